//! `dispatcher project` and `dispatcher token`.

use clap::{Args, Subcommand, value_parser};
use ledger::DEFAULT_MAX_WAITING_JOBS;
use request::Allowed;
use uuid::Uuid;

use super::PostgresArgs;
use crate::api::{
    is_name,
    types::{MAX_TOKEN_DAYS, TokenScope},
};

/// `dispatcher project`.
#[derive(Args)]
pub struct ProjectArgs {
    /// Where Postgres is.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: ProjectCommand,
}

/// What to do with projects.
#[derive(Subcommand)]
pub enum ProjectCommand {
    /// Make a project.
    Create {
        /// Its name: 1 to 40 lower-case letters, digits and hyphens, a letter first.
        name: String,
        /// What its requests may read: a folder (s3://bucket/folder/), a bucket (s3://bucket), or s3://* for all that the workers' credentials
        /// open. May be given several times.
        #[arg(long, value_name = "S3 FOLDER", required = true)]
        read: Vec<Allowed>,
        /// How many of its jobs may wait at a time.
        #[arg(long, value_name = "JOBS", default_value_t = DEFAULT_MAX_WAITING_JOBS, value_parser = value_parser!(u64).range(1..=MOST_WAITING_JOBS))]
        max_waiting_jobs: u64,
    },
    /// Change a project. What it may not read any more is refused to jobs that wait, too.
    Change {
        /// Its name.
        name: String,
        /// What its requests may read, in place of all that they may read now. May be given several times.
        #[arg(long, value_name = "S3 FOLDER")]
        read: Vec<Allowed>,
        /// How many of its jobs may wait at a time.
        #[arg(long, value_name = "JOBS", value_parser = value_parser!(u64).range(1..=MOST_WAITING_JOBS))]
        max_waiting_jobs: Option<u64>,
    },
    /// List the projects.
    List,
}

/// What Postgres can count to.
const MOST_WAITING_JOBS: u64 = i64::MAX as u64;

/// `dispatcher token`.
#[derive(Args)]
pub struct TokenArgs {
    /// Where Postgres is.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// What to do with tokens.
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it. It is shown this once: only its hash is kept.
    Create {
        /// Whose batches it opens.
        #[arg(long)]
        project: String,
        /// What it may do; each may all that those before it may.
        #[arg(long)]
        scope: TokenScope,
        /// For people: whose it is, and where it is used.
        #[arg(long, value_parser = token_name)]
        name: String,
        /// From how many days on it is refused; never if not given.
        #[arg(long, value_name = "DAYS", value_parser = value_parser!(u32).range(1..=i64::from(MAX_TOKEN_DAYS)))]
        days: Option<u32>,
    },
    /// List tokens, those that are refused by now as well. Their text is kept nowhere.
    List {
        /// Of one project.
        #[arg(long)]
        project: Option<String>,
    },
    /// Have a token refused from now on.
    Revoke {
        /// Its id, as `dispatcher token list` has it.
        id: Uuid,
    },
}

fn token_name(text: &str) -> Result<String, String> {
    if is_name(text) { Ok(text.into()) } else { Err("expected 1 to 200 characters and no control character".into()) }
}
