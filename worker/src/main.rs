//! The `worker` binary: segments images, for a person at a terminal (`segment`) or out of the queue (`run`), and compares methods (`evaluate`).

mod artifacts;
mod cli;
mod commands;
mod errors;
mod evaluate;
mod job;
mod lease;
mod metrics;
mod model;
mod pull;
mod receipt;
mod work;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Segment(arguments) => commands::segment::segment(&arguments),
        Command::Evaluate(arguments) => commands::evaluate::evaluate(&arguments),
        Command::Run(config) => commands::run::run(config),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report().into(),
    }
}
