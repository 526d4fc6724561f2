//! The `worker` binary: its commands, with SAM.

use std::process::ExitCode;

use clap::Parser;
use segmenter::Segmenter;
use worker::{
    cli::{Cli, Command},
    commands,
};

fn main() -> ExitCode {
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
