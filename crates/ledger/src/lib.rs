//! The ledger: what was asked for, who works on it, what came of it. Every SQL statement of the project is here.
//!
//! A job's life:
//! ```text
//!            claim                    finalise
//! queued ------------> running ---------------------> succeeded
//!   ^                   |  |  |
//!   |  fail (transient, |  |  +-- fail (permanent, or the last attempt) --> failed
//!   |  back-off),       |  |
//!   +-- release, reap --+  +----- reap, the second time ------------------> quarantined
//! ```
//! Cancelling ends queued and running jobs, and stays. Retrying makes failed and quarantined ones queued again, with no attempt
//! counted. The database itself refuses every other transition (migration 2).
//!
//! Invariant: each transition is one statement or one transaction, guarded by the job's state and its epoch. The epoch grows with
//! every claim and is the fencing token: who comes with an old one changes nothing and hears [`Finalised::LeaseLost`].
//!
//! Invariant: only the database's clock counts. Workers send durations, never points in time.
//!
//! Invariant: no transaction is open while a worker computes.

mod ageing;
mod batch;
mod cancelling;
mod claims;
mod copy;
mod errors;
mod job;
mod outbox;
mod outcomes;
mod pools;
mod projects;
mod reading;
mod reaper;
mod retrying;
mod reuse;
mod roles;
mod server;
mod submit;
mod time;
mod together;
mod tokens;
mod upload;

use std::{io, sync::LazyLock, time::Duration};

pub use batch::{AgedJobs, BatchStatus, Counts, NewBatch, PoolStatus, SubmittedBatch, Workload};
pub use cancelling::Cancellations;
use claims::Ask;
use errors::Answer as _;
pub use errors::LedgerError;
pub use job::{
    Artifact, ArtifactKind, ClaimedJob, ErrorClass, Finalised, JobFailure, JobResult, JobState, JobStatus, Lease, Mask,
    ReapedJob, ReusableResult, ReuseKey, Score, ScoredJob,
};
pub use outbox::OutboxBatch;
use outcomes::Success;
pub use projects::{DEFAULT_MAX_WAITING_JOBS, DEFAULT_PROJECT, Project, ProjectChange};
pub use server::Server;
use sqlx::{Connection, PgConnection, PgPool, migrate::Migrator, postgres::PgPoolOptions};
pub use submit::BatchWriter;
use together::Together;
pub use tokens::{Caller, NewToken, Scope, TokenStatus};

/// The most attempts a job may have.
pub const MAX_ATTEMPTS: i32 = 5;

/// How long a connection may take to come about, and how long a call may wait for a free one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("../../migrations");
    // While a new version is rolled out, programs of this one start beside it: later migrations only expand.
    migrations.set_ignore_missing(true);
    migrations
});

type Result<T, E = LedgerError> = std::result::Result<T, E>;

/// A handle on the ledger; clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct Ledger {
    pool: PgPool,
    claims: Together<Ask, Option<ClaimedJob>>,
    beginnings: Together<Lease, ()>,
    results: Together<Success, Finalised>,
}

impl Ledger {
    /// Connects to Postgres, trusting the system's authorities. See [`Ledger::connect_to`].
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self> {
        Self::connect_to(&url.parse()?, max_connections).await
    }

    /// Connects to Postgres, trying once: the error says what to do when that fails. Connections lost later come back by
    /// themselves.
    pub async fn connect_to(server: &Server, max_connections: u32) -> Result<Self> {
        let options = server.options.clone();
        // The pool would try again until its time is up and then say no more than that. Boxed, as with TLS it takes kilobytes of every caller's
        // future.
        let first = tokio::time::timeout(CONNECT_TIMEOUT, Box::pin(PgConnection::connect_with(&options)))
            .await
            .map_err(|_| LedgerError::NoAnswer { server: server.to_string(), seconds: CONNECT_TIMEOUT.as_secs() })?
            .map_err(|source| LedgerError::unreachable(server, source))?;
        first.close().await.map_err(|source| LedgerError::unreachable(server, source))?;
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(CONNECT_TIMEOUT)
            .after_release(|connection, _| Box::pin(still_answers(connection)))
            .connect_lazy_with(options);
        Ok(Self { pool, claims: Together::default(), beginnings: Together::default(), results: Together::default() })
    }

    /// Brings the schema up to date; several may call it at once.
    pub async fn migrate(&self) -> Result<()> {
        let mut connection = self.patient_connection().await?;
        MIGRATIONS.run(&mut connection).await.map_err(|source| LedgerError::Migration { source })
    }

    /// Takes every migration back, and every table with them.
    pub async fn revert_all(&self) -> Result<()> {
        let mut connection = self.patient_connection().await?;
        MIGRATIONS.undo(&mut connection, 0).await.map_err(|source| LedgerError::Migration { source })
    }

    /// Whether Postgres answers.
    pub async fn ping(&self) -> Result<()> {
        let mut connection = self.pool.acquire().answer("reach the database").await?;
        connection.ping().answer("reach the database").await
    }

    /// Outside of the pool and without a limit to its statements: a migration of a large table takes its time, and so does
    /// waiting for the one who migrates already.
    async fn patient_connection(&self) -> Result<PgConnection> {
        let doing = "connect for the migrations";
        let options = self.pool.connect_options();
        let mut connection = Box::pin(PgConnection::connect_with(&options)).answer(doing).await?;
        sqlx::query("SET statement_timeout = 0").execute(&mut connection).answer(doing).await?;
        Ok(connection)
    }
}

/// Whether a connection that comes back to the pool is good for another call; an error closes it. The pool asks too, and waits for
/// the answer without a limit: with a server that is gone without a word, that would keep the connection's place for as long
/// as the system sends its packets again, a quarter of an hour.
async fn still_answers(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let answer = tokio::time::timeout(CONNECT_TIMEOUT, connection.ping()).await;
    answer.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())).map(|()| true)
}
