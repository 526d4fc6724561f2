//! The dispatcher: takes batches in over HTTP, keeps every pool's queue supplied with tokens, and takes jobs back from lost workers.
//! The same binary is the client that submits a batch and watches it.

mod administration;
mod api;
mod change;
mod cli;
mod client;
mod data_set;
mod metrics;
mod report;
mod serve;
mod submit;
mod tasks;
mod watch;
mod workloads;

use std::process::ExitCode;

use clap::Parser;
use secrets::SecretError;
use telemetry::{Printable, Service, TelemetryError};
use tls::AuthoritiesError;

use crate::{
    cli::{BadSettings, Cli, Command},
    client::ClientError,
    data_set::DataSetError,
};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli).await {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {:#}", Printable(&error));
            if let Some(hint) = error.downcast_ref::<ClientError>().and_then(ClientError::hint) {
                eprintln!("hint: {}", Printable(hint));
            }
            exit(&error).into()
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<Exit> {
    // reqwest is built without a TLS provider of its own. This is the process's first call, so none is installed yet.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let traces = telemetry::start(Service { name: env!("CARGO_CRATE_NAME"), sampled_by: None }, cli.log_format)?;
    let outcome = Box::pin(obey(cli.command)).await;
    traces.end().await;
    outcome
}

async fn obey(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Migrate(args) => serve::migrate(args).await,
        Command::Metrics => serve::list_metrics(),
        Command::Submit(args) => submit::run(*args).await,
        Command::Watch(args) => watch::run(args).await,
        Command::Report(args) => report::run(args).await,
        Command::Cancel(args) => change::cancel(args).await,
        Command::Retry(args) => change::retry(args).await,
        Command::Project(args) => administration::projects(args).await,
        Command::Token(args) => administration::tokens(args).await,
    }
}

fn exit(error: &anyhow::Error) -> Exit {
    use broker::BrokerError;
    use ledger::LedgerError;
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return error.exit();
    }
    if let Some(error) = error.downcast_ref::<DataSetError>() {
        return error.exit();
    }
    if error.is::<TelemetryError>() || error.is::<SecretError>() || error.is::<AuthoritiesError>() || error.is::<BadSettings>() {
        return Exit::BadInput;
    }
    let is_bad_url = matches!(error.downcast_ref(), Some(BrokerError::Url { .. }));
    match error.downcast_ref() {
        Some(
            LedgerError::Url { .. }
            | LedgerError::Tls { .. }
            | LedgerError::PoolName { .. }
            | LedgerError::UnknownRole { .. }
            | LedgerError::ProjectName { .. }
            | LedgerError::UnknownProject { .. },
        ) => Exit::BadInput,
        // A wrong password, or no such database: waiting mends neither.
        Some(error @ LedgerError::Unreachable { .. }) if !error.is_transient() => Exit::BadInput,
        _ if is_bad_url => Exit::BadInput,
        _ => Exit::Failed,
    }
}

/// What the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// 0
    Done,
    /// 1
    Failed,
    /// 2, also clap's
    BadInput,
    /// 3
    Unreachable,
    /// 4
    JobsDidNotSucceed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::BadInput => 2,
            Exit::Unreachable => 3,
            Exit::JobsDidNotSucceed => 4,
        })
    }
}
