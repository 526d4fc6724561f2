use sqlx::postgres::PgListener;
use uuid::Uuid;

use crate::{Ledger, LedgerError, Result, errors::Answer as _};

/// Where workers hear of cancelled jobs before their next heartbeat.
const CHANNEL: &str = "dotmask_cancelled";

/// Jobs a statement: a batch of millions is cancelled in many, each well within its time.
const CHUNK: i64 = 10_000;

/// Cancels the open jobs that the condition names and counts them, and those that were running.
///
/// Their rows are locked by a statement of its own: whoever waits there for a claim that is about to be committed sees its lease and its
/// attempt only in the next one.
macro_rules! cancel_jobs {
    ($ledger:expr, $doing:literal, $condition:literal, $($argument:expr),+) => {{
        let mut transaction = $ledger.pool.begin().answer($doing).await?;
        sqlx::query!(
            "SELECT FROM jobs WHERE state IN ('queued', 'running') AND " + $condition + " ORDER BY id LIMIT $2 FOR UPDATE",
            $($argument),+
        )
        .execute(&mut *transaction)
        .answer($doing)
        .await?;
        let changed = sqlx::query!(
            r#"
            WITH held AS MATERIALIZED (
                SELECT id, state FROM jobs
                WHERE state IN ('queued', 'running') AND "# + $condition + r#"
                ORDER BY id
                LIMIT $2
                FOR UPDATE
            ), changed AS (
                UPDATE jobs SET state = 'cancelled', finished_at = now()
                FROM held
                WHERE jobs.id = held.id
                RETURNING jobs.id, epoch, held.state = 'running' AS was_running
            ), ended AS (
                UPDATE attempts SET finished_at = now(), outcome = 'cancelled'
                FROM changed
                WHERE attempts.job_id = changed.id AND attempts.epoch = changed.epoch AND was_running
            ), freed AS (
                DELETE FROM leases USING changed WHERE leases.job_id = changed.id
            )
            SELECT count(*) AS "jobs!", count(*) FILTER (WHERE was_running) AS "running!" FROM changed
            "#,
            $($argument),+
        )
        .fetch_one(&mut *transaction)
        .answer($doing)
        .await?;
        transaction.commit().answer($doing).await?;
        changed
    }};
}

impl Ledger {
    /// queued and running -> cancelled: all open jobs of a batch. Returns how many; their workers are told at once, and hear of it
    /// by their next heartbeat at the latest. Done in parts: cut off in between, it may be called again.
    pub async fn cancel_batch(&self, batch: Uuid) -> Result<u64> {
        let (mut cancelled, mut running) = (0, 0);
        loop {
            let changed = cancel_jobs!(self, "cancel a batch", "batch_id = $1", batch, CHUNK);
            cancelled += changed.jobs;
            running += changed.running;
            if changed.jobs < CHUNK {
                break;
            }
        }
        if running > 0 {
            self.tell_workers(batch).await?;
        }
        Ok(cancelled.cast_unsigned())
    }

    /// queued or running -> cancelled: one job; false where it had ended already or never was.
    pub async fn cancel_job(&self, job: Uuid) -> Result<bool> {
        let changed = cancel_jobs!(self, "cancel a job", "id = $1", job, 1);
        if changed.running > 0 {
            self.tell_workers(job).await?;
        }
        Ok(changed.jobs > 0)
    }

    /// Hears of cancelled jobs and batches from now on; takes a connection of the pool for itself.
    pub async fn cancellations(&self) -> Result<Cancellations> {
        let doing = "listen for cancelled jobs";
        let mut listener = PgListener::connect_with(&self.pool).answer(doing).await?;
        listener.listen(CHANNEL).answer(doing).await?;
        Ok(Cancellations { listener })
    }

    /// Only a hint: nobody may be listening.
    async fn tell_workers(&self, id: Uuid) -> Result<()> {
        sqlx::query!("SELECT pg_notify($1, $2)", CHANNEL, id.to_string())
            .execute(&self.pool)
            .answer("tell the workers of cancelled jobs")
            .await?;
        Ok(())
    }
}

/// News of cancelled jobs. What is said while the connection is lost is not heard: the truth is what a heartbeat says.
#[derive(Debug)]
pub struct Cancellations {
    listener: PgListener,
}

impl Cancellations {
    /// The id of the next batch or job that is cancelled while it runs. Waits for as long as there is none; a lost connection is
    /// made anew, or is an error, after which the next call tries again.
    pub async fn next(&mut self) -> Result<Uuid> {
        loop {
            let query = |source| LedgerError::Query { doing: "listen for cancelled jobs", source };
            let notification = self.listener.recv().await.map_err(query)?;
            // What others send on this channel means nothing here.
            if let Ok(id) = notification.payload().parse() {
                return Ok(id);
            }
        }
    }
}
