use std::{io, sync::Arc, time::Duration};

use crate::Server;
use request::UriError;
use sqlx::{error::DatabaseError, migrate::MigrateError, postgres::PgDatabaseError};

/// What can go wrong with the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Not a Postgres URL. The URL itself is not repeated: it may hold a password.
    #[error("the database URL is not usable: {reason}; expected postgres://user:password@host:port/database")]
    Url {
        /// What the parser said.
        reason: String,
    },
    /// No connection.
    #[error("cannot connect to Postgres at {server}: {source}; is it running, and does the database URL name it?")]
    Unreachable {
        /// `host:port/database`.
        server: String,
        /// What the driver said.
        source: sqlx::Error,
    },
    /// A server that cannot be told from one that others put in its place, or that speaks no TLS where it should.
    #[error("cannot connect to Postgres at {server} by TLS: {reason}")]
    Tls {
        /// `host:port/database`.
        server: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// No answer in time.
    #[error("Postgres at {server} did not answer within {seconds} s; is it running, and does the database URL name it?")]
    NoAnswer {
        /// `host:port/database`.
        server: String,
        /// How long it had.
        seconds: u64,
    },
    /// The schema could not be brought up or down.
    #[error("cannot migrate the database: {source}")]
    Migration {
        /// What the migrator said.
        source: MigrateError,
    },
    /// The tables are missing.
    #[error("cannot {doing}: the database has no tables of this version yet; the dispatcher makes them when it starts")]
    NotMigrated {
        /// What was being done.
        doing: &'static str,
    },
    /// A statement failed.
    #[error("cannot {doing}: {source}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// What the driver said.
        source: sqlx::Error,
    },
    /// A name no pool can have.
    #[error("{name:?} is no name for a pool, expected 1 to 40 lower-case letters, digits and hyphens, a letter first")]
    PoolName {
        /// As given.
        name: String,
    },
    /// Nobody declared this pool.
    #[error("pool {pool:?} is unknown; the dispatcher declares the pools it is started with")]
    UnknownPool {
        /// As given.
        pool: String,
    },
    /// A name no project can have.
    #[error("{name:?} is no name for a project, expected 1 to 40 lower-case letters, digits and hyphens, a letter first")]
    ProjectName {
        /// As given.
        name: String,
    },
    /// Nobody made this project.
    #[error("there is no project {name:?}; `dispatcher project list` lists what there is, `dispatcher project create` makes one")]
    UnknownProject {
        /// As given.
        name: String,
    },
    /// A role that the database has not.
    #[error("the database has no role {role:?}; make it with CREATE ROLE")]
    UnknownRole {
        /// As given.
        role: String,
    },
    /// A project's list of what it may read has an entry that is none.
    #[error("what the project may read cannot be told: {source}; mend it with `dispatcher project change`")]
    AllowList {
        /// What is wrong with the entry.
        source: UriError,
    },
    /// As many jobs of the project wait as may.
    #[error(
        "only {room} more jobs of the project may wait, {limit} in all; nothing was changed: ask for fewer, or again when some have ended"
    )]
    TooManyWaiting {
        /// How many there is room for.
        room: u64,
        /// How many may wait.
        limit: u64,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {reason}")]
    NoRandomness {
        /// What it said.
        reason: String,
    },
    /// The pool's masks come from another checkpoint.
    #[error("pool {pool:?} runs the checkpoint {expected}, this worker has {found}; use that file, or another pool")]
    OtherCheckpoint {
        /// The pool.
        pool: String,
        /// SHA-256 of the pool's checkpoint.
        expected: String,
        /// SHA-256 of the one offered.
        found: String,
    },
    /// A batch without a job.
    #[error("the batch has no jobs; submit at least one")]
    EmptyBatch,
    /// The key of another submission.
    #[error("the idempotency key was used before, for batch {batch} of other content; a new submission needs a new key")]
    KeyOfAnotherBatch {
        /// That batch.
        batch: uuid::Uuid,
    },
    /// A request Postgres cannot keep.
    #[error("line {line} cannot be stored: {reason}")]
    Unstorable {
        /// The manifest's line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A row that does not say what this version writes.
    #[error("job {job_id} is stored in a way this version cannot read: {reason}")]
    Unreadable {
        /// The job.
        job_id: uuid::Uuid,
        /// What is wrong with it.
        reason: String,
    },
    /// A statement for several calls failed.
    #[error(transparent)]
    Shared(Arc<LedgerError>),
    /// The statement of a call was given up, as the program ends or by a panic.
    #[error("a call to the database was given up")]
    GivenUp,
}

impl LedgerError {
    /// No connection, for the driver's reason.
    pub(crate) fn unreachable(server: &Server, source: sqlx::Error) -> Self {
        let reason = match &source {
            sqlx::Error::Tls(reason) => tls::explain(reason.as_ref()).or_else(|| {
                Some(format!("{reason}; turn TLS on there, or add sslmode=disable to the database URL to do without"))
            }),
            sqlx::Error::Io(reason) => tls::explain(reason),
            _ => None,
        };
        let server = server.to_string();
        match reason {
            Some(reason) => Self::Tls { server, reason },
            None => Self::Unreachable { server, source },
        }
    }

    /// A failed statement, with the cases that have a better explanation told apart.
    fn query(doing: &'static str, source: sqlx::Error) -> Self {
        match source.as_database_error().and_then(DatabaseError::code).as_deref() {
            Some(UNDEFINED_TABLE | UNDEFINED_COLUMN) => Self::NotMigrated { doing },
            _ => Self::Query { doing, source },
        }
    }

    /// Whether a row with the same key was there already.
    pub(crate) fn is_unique_violation(&self) -> bool {
        let Self::Query { source, .. } = self else { return false };
        source.as_database_error().is_some_and(DatabaseError::is_unique_violation)
    }

    /// Whether the same call may succeed later without anybody doing anything: lost connections, a server that starts or stops,
    /// deadlocks and serialization failures.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::GivenUp => true,
            Self::Shared(error) => error.is_transient(),
            Self::Unreachable { source, .. }
            | Self::Query { source, .. }
            | Self::Migration { source: MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) } => {
                is_transient(source)
            }
            _ => false,
        }
    }
}

/// Longer than waiting for a connection and the server's own limit for a statement together: who runs into it talks to a server
/// that is gone without a word.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// A statement on its way: each ends in bounded time, and says in its error what was being done.
pub(crate) trait Answer<T> {
    async fn answer(self, doing: &'static str) -> Result<T, LedgerError>;
}

impl<T, F: Future<Output = sqlx::Result<T>>> Answer<T> for F {
    async fn answer(self, doing: &'static str) -> Result<T, LedgerError> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self).await;
        answer
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
            .map_err(|source| LedgerError::query(doing, source))
    }
}

const UNDEFINED_TABLE: &str = "42P01";
const UNDEFINED_COLUMN: &str = "42703";

/// By SQLSTATE class: 08 connection, 40 rollback (deadlock, serialization), 53 resources, 57 operator (shutdown, starting up,
/// statement cancelled by a timeout); 25P03 is a transaction that idled too long, 55P03 a lock not had in time.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.try_downcast_ref::<PgDatabaseError>().is_some_and(|error| {
            let code = error.code();
            matches!(code.get(..2), Some("08" | "40" | "53" | "57")) || matches!(code, "25P03" | "55P03")
        }),
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => true,
        _ => false,
    }
}
