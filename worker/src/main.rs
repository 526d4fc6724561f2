//! The `worker` binary: its commands, with SAM.

use std::process::ExitCode;

use clap::Parser;
use segmenter::Segmenter;
use worker::{
    cli::{Cli, Command},
    commands,
};

#[expect(unsafe_code, reason = "the environment is changed before there are threads")]
fn main() -> ExitCode {
    // SAFETY: this is the process's only thread.
    unsafe { broker::prepare_threads() };
    let outcome = match Cli::parse().command {
        Command::Segment(arguments) => commands::segment::segment(&arguments),
        Command::Evaluate(arguments) => commands::evaluate::evaluate(&arguments),
        Command::Bench(arguments) => commands::bench::bench(&arguments),
        Command::Run(config) => commands::run::run::<Segmenter>(*config),
        Command::Metrics => commands::run::list_metrics(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report().into(),
    }
}
