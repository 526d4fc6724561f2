//! The command line and the environment, typed and checked whole before anything starts.
#![expect(clippy::doc_markdown, reason = "these comments are the help's text, where a backtick would be shown as one")]

mod administration;
mod data_set;
mod limits;
mod servers;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, value_parser};
use evaluation::datasets::Kind;
use telemetry::LogFormat;
use uuid::Uuid;

pub use self::{
    administration::{ProjectArgs, ProjectCommand, TokenArgs, TokenCommand},
    data_set::{DataArgs, DataSet},
    limits::LimitArgs,
    servers::{PostgresArgs, RabbitMqArgs, ServerArgs},
};

/// Takes batches of segmentation requests, keeps the workers supplied, and tells how each job fares.
///
/// Exit codes: 0 done; 1 failed; 2 usage or bad input; 3 server not reachable; 4 (watch) a job did not succeed.
#[derive(Parser)]
#[command(version, max_term_width = 120)]
pub struct Cli {
    /// How log lines look on stderr: text or json. DOTMASK_LOG filters them, e.g. info,ledger=debug.
    #[arg(long, env = "DOTMASK_LOG_FORMAT", value_name = "FORMAT", default_value_t, global = true)]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Serve the HTTP API and keep the queues supplied until told to stop.
    Serve(ServeArgs),
    /// Bring the database up to date and exit; several may do so at once.
    Migrate(MigrateArgs),
    /// List every metric of serve as a Markdown table.
    Metrics,
    /// Send a manifest (JSON lines) as one batch and print the batch's id.
    Submit(Box<SubmitArgs>),
    /// Show a batch's progress until it is done, then its jobs.
    Watch(WatchArgs),
    /// Print the table of a batch of evaluations, as far as it is done.
    Report(ReportArgs),
    /// Cancel the jobs of a batch that have not ended, or one job. A worker that has one stops within a step.
    Cancel(CancelArgs),
    /// Queue the failed jobs of a batch again, and no others, or one job.
    Retry(RetryArgs),
    /// Make, list and change projects: whose batches they are, and what their requests may read. Works on Postgres itself.
    Project(ProjectArgs),
    /// Make, list and revoke API tokens. Works on Postgres itself.
    Token(TokenArgs),
}

/// `dispatcher migrate`.
#[derive(Args)]
pub struct MigrateArgs {
    /// Where Postgres is.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Seconds to wait for Postgres before giving up with exit code 3; without end if not given.
    #[arg(long, env = "DOTMASK_WAIT_SECONDS", value_name = "SECONDS", value_parser = seconds)]
    pub wait_seconds: Option<Duration>,
    /// Give this role of the database what workers need and no more. Give it to the workers' logins (CREATE ROLE ... IN ROLE ...), and not the dispatcher's.
    #[arg(long, env = "DOTMASK_WORKER_ROLE", value_name = "ROLE")]
    pub worker_role: Option<String>,
}

/// `dispatcher serve`.
#[derive(Args)]
pub struct ServeArgs {
    /// Where Postgres is.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Where RabbitMQ is.
    #[command(flatten)]
    pub rabbitmq: RabbitMqArgs,
    /// Address and port of the API.
    #[arg(long, env = "DOTMASK_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Address and port of /metrics, /healthz, /readyz, and of /workloads/POOL for an autoscaler. They ask for no token: let nobody reach them but who
    /// watches over the system.
    #[arg(long, env = "DOTMASK_METRICS_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:9463")]
    pub metrics_listen: SocketAddr,
    /// Serve whoever shows no token, as the project `default`. For a machine of one's own: only on a loopback address.
    #[arg(long, env = "DOTMASK_WITHOUT_TOKENS")]
    pub without_tokens: bool,
    /// The pools to declare at start, separated by commas. A pool once declared stays; a batch for any other is refused.
    #[arg(long, env = "DOTMASK_POOLS", value_name = "POOLS", value_delimiter = ',', required = true)]
    pub pools: Vec<String>,
    /// Bring the database up to date before serving.
    #[arg(long, env = "DOTMASK_MIGRATE")]
    pub migrate: bool,
    /// The most connections to Postgres. Half of them may be taken by uploads of manifests; further uploads are asked to come back.
    #[arg(long, env = "DOTMASK_POSTGRES_CONNECTIONS", value_name = "N", default_value_t = 16, value_parser = value_parser!(u32).range(4..=1_000))]
    pub postgres_connections: u32,
    /// What a manifest may cost.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Seconds between looks for workers that are lost. Fewer give their jobs to others sooner, for one query each.
    #[arg(long, env = "DOTMASK_REAP_SECONDS", value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub reap_seconds: Duration,
    /// Seconds between comparisons of jobs due with tokens queued. Fewer heal a lost queue and begin retries sooner, for one query
    /// and one look at each queue.
    #[arg(long, env = "DOTMASK_RECONCILE_SECONDS", value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub reconcile_seconds: Duration,
    /// Seconds a priority may stand still, because higher ones have work, before the job at its head is raised to them. Fewer serve
    /// low priorities sooner, more keep high ones to themselves for longer.
    #[arg(long, env = "DOTMASK_AGEING_SECONDS", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub ageing_seconds: Duration,
}

impl ServeArgs {
    /// What no single value shows to be wrong.
    pub fn check(&self) -> Result<(), BadSettings> {
        if self.without_tokens && !self.listen.ip().is_loopback() {
            return Err(BadSettings::OpenToOthers { listen: self.listen });
        }
        Ok(())
    }
}

/// Settings that do not go together.
#[derive(Debug, thiserror::Error)]
pub enum BadSettings {
    /// Without tokens, and not on a loopback address.
    #[error(
        "--without-tokens (DOTMASK_WITHOUT_TOKENS) would let everybody in who reaches {listen}: listen on 127.0.0.1, or leave it out and make tokens with `dispatcher token create`"
    )]
    OpenToOthers {
        /// Where it was to listen.
        listen: SocketAddr,
    },
    /// A user, and perhaps a password, in a URL that has none and is shown.
    #[error("{variable} names a user before the server, expected http://host:port; a password has no place there")]
    UserInUrl {
        /// Which URL.
        variable: &'static str,
    },
}

/// `dispatcher submit`.
#[derive(Args)]
pub struct SubmitArgs {
    /// The manifest: one JSON object a line, e.g. {"image": "s3://scans/a.png", "points": [[120, 80, 1]]}. "-" reads stdin.
    #[arg(required_unless_present = "data")]
    pub manifest: Option<PathBuf>,
    /// In its place.
    #[command(flatten)]
    pub data: DataArgs,
    /// The pool of every line that names none. Not needed where the dispatcher has only one.
    #[arg(long)]
    pub pool: Option<String>,
    /// Your own name for the batch. The same lines under the same name are the same batch, not a second one.
    #[arg(long)]
    pub name: Option<String>,
    /// Jobs of a higher priority are taken before all others of their pool, -100 to 100.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i16,
    /// Let its jobs take over finished results of the same image, points, parameters and checkpoint that were submitted with --reuse,
    /// in place of computing them again, and lend theirs.
    #[arg(long)]
    pub reuse: bool,
    /// The submission's own mark: submitted again with it, the same lines are the same batch. One is made up if left out.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Stay and show the batch's progress, as `dispatcher watch` does.
    #[arg(long)]
    pub watch: bool,
    /// Where the dispatcher is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `dispatcher watch`.
#[derive(Args)]
pub struct WatchArgs {
    /// The batch's id, as `dispatcher submit` printed it.
    pub batch: Uuid,
    /// Print each job as one line of JSON instead of a table, however many there are.
    #[arg(long)]
    pub json: bool,
    /// Print the table of a batch of any size; otherwise only up to 50 jobs are listed.
    #[arg(long)]
    pub all: bool,
    /// List the objects of the least confidence first: the masks to look at. Without --all the first 50.
    #[arg(long, conflicts_with = "json")]
    pub by_confidence: bool,
    /// Where the dispatcher is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `dispatcher report`.
#[derive(Args)]
pub struct ReportArgs {
    /// The batch's id, as `dispatcher submit` printed it.
    pub batch: Uuid,
    /// Write every row into this file, too.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Lay the table out as the paper's for this kind of data set, with the paper's figures beside ours: folder, monuseg, glas or amos22.
    #[arg(long, value_name = "KIND", default_value_t = Kind::Folder)]
    pub kind: Kind,
    /// Which of the paper's figures: vit_b or vit_l.
    #[arg(long, value_name = "NAME")]
    pub architecture: Option<String>,
    /// Where the dispatcher is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What a command is about.
#[derive(Args)]
pub struct TargetArgs {
    /// The batch's id, as `dispatcher submit` printed it.
    #[arg(required_unless_present = "job")]
    pub batch: Option<Uuid>,
    /// One job in its place, by its id: /v1/batches/BATCH/jobs of the API lists them.
    #[arg(long, value_name = "JOB", conflicts_with = "batch")]
    pub job: Option<Uuid>,
    /// Where the dispatcher is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `dispatcher cancel`.
#[derive(Args)]
pub struct CancelArgs {
    /// What to cancel.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `dispatcher retry`.
#[derive(Args)]
pub struct RetryArgs {
    /// What to queue again.
    #[command(flatten)]
    pub target: TargetArgs,
    /// The batch's quarantined jobs as well, which took two workers down.
    #[arg(long, conflicts_with = "job")]
    pub quarantined: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    if (0.1..=3_600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("expected 0.1 to 3600 seconds".into())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn refusal(arguments: &[&str]) -> String {
        Cli::try_parse_from(["dispatcher"].iter().chain(arguments)).err().expect("must be refused").to_string()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn refuses_bad_values_and_says_what_was_expected() {
        assert!(refusal(&["watch", "42"]).contains("<BATCH>"));
        assert!(refusal(&["submit"]).contains("<MANIFEST"));
        assert!(refusal(&["submit", "scans.jsonl", "--data", "glas:s3://scans"]).contains("cannot be used with"));
        assert!(
            refusal(&["submit", "scans.jsonl", "--steps", "5"]).contains("cannot be used with"),
            "a manifest's lines say it themselves"
        );
        assert!(
            refusal(&["watch", "0199b1f0-0000-7000-8000-000000000000", "--server", "localhost:8080"]).contains("expected http")
        );
        let serve = ["serve", "--database-url-file", "/run/url", "--pools", "gpu"];
        assert!(refusal(&[&serve[..], &["--reap-seconds", "0"]].concat()).contains("0.1 to 3600"));
        assert!(refusal(&[&serve[..], &["--listen", "8080"]].concat()).contains("--listen"));
        assert!(refusal(&[&serve[..], &["--log-format", "xml"]].concat()).contains("expected text or json"));
        assert!(refusal(&serve[..3]).contains("--pools"));
    }

    #[test]
    fn takes_a_secret_from_a_variable_or_a_file_and_from_no_flag() {
        let help = Cli::command().find_subcommand_mut("serve").expect("exists").render_long_help().to_string();
        for variable in ["DATABASE_URL", "DATABASE_URL_FILE", "AMQP_URL", "AMQP_URL_FILE"] {
            assert!(help.contains(&format!("[env: {variable}")), "{variable}: {help}");
        }
        for flag in ["--database-url=postgres://x", "--amqp-url=amqp://x"] {
            assert!(refusal(&["serve", "--pools", "gpu", flag]).contains("unexpected argument"));
        }
    }
}
