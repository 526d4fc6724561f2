//! `private-servers DIR` starts Postgres, `RabbitMQ` and an object store in DIR, prints what to export to use them, and ends
//! them when it is interrupted.

use std::{path::Path, process::ExitCode};

use servers::{ServerError, Stack};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).filter(|dir| !dir.as_encoded_bytes().starts_with(b"-")) else {
        eprintln!("usage: private-servers DIR");
        return ExitCode::from(2);
    };
    match run(Path::new(&dir)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(dir: &Path) -> Result<(), ServerError> {
    let mut terminated = signal(SignalKind::terminate()).expect("a runtime with signals runs");
    let mut interrupted = signal(SignalKind::interrupt()).expect("a runtime with signals runs");
    let mut stack = tokio::select! {
        stack = Stack::start(dir) => stack?,
        _ = terminated.recv() => return Ok(()),
        _ = interrupted.recv() => return Ok(()),
    };
    for (name, value) in stack.environment() {
        println!("export {name}='{value}'");
    }
    eprintln!("running in {}; interrupt to stop", dir.display());
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    stack.stop().await
}
