use sqlx::{PgConnection, postgres::PgListener};
use uuid::Uuid;

use crate::{Ledger, LedgerError, Result, errors::Answer as _};

/// Where workers hear of cancelled jobs before their next heartbeat.
const CHANNEL: &str = "dotmask_cancelled";

/// Jobs a statement: a batch of millions is cancelled in many, each well within its time.
const CHUNK: i64 = 10_000;

/// What cancelling came to.
struct Cancelled {
    jobs: i64,
    /// Those that a worker had.
    running: i64,
}

impl Ledger {
    /// queued and running -> cancelled: all open jobs of a batch. Returns how many; their workers are told at once, and hear of it
    /// by their next heartbeat at the latest. Done in parts: cut off in between, it may be called again.
    pub async fn cancel_batch(&self, batch: Uuid) -> Result<u64> {
        let doing = "cancel a batch";
        let (mut cancelled, mut running) = (0, 0);
        let mut after_line = 0;
        loop {
            let mut transaction = self.pool.begin().answer(doing).await?;
            let held = sqlx::query!(
                "SELECT id, line FROM jobs WHERE batch_id = $1 AND line > $2 AND state IN ('queued', 'running')
                 ORDER BY line LIMIT $3 FOR UPDATE",
                batch,
                after_line,
                CHUNK
            );
            let held = held.fetch_all(&mut *transaction).answer(doing).await?;
            let Some(last) = held.last() else { break };
            after_line = last.line;
            let ids: Vec<Uuid> = held.iter().map(|job| job.id).collect();
            let changed = cancel_held(&mut transaction, &ids).await?;
            transaction.commit().answer(doing).await?;
            cancelled += changed.jobs;
            running += changed.running;
        }
        if running > 0 {
            self.tell_workers(batch).await?;
        }
        Ok(cancelled.cast_unsigned())
    }

    /// queued or running -> cancelled: one job; false where it had ended already or never was.
    pub async fn cancel_job(&self, job: Uuid) -> Result<bool> {
        let doing = "cancel a job";
        let mut transaction = self.pool.begin().answer(doing).await?;
        let held = sqlx::query_scalar!("SELECT id FROM jobs WHERE id = $1 AND state IN ('queued', 'running') FOR UPDATE", job);
        let held = held.fetch_all(&mut *transaction).answer(doing).await?;
        let changed = cancel_held(&mut transaction, &held).await?;
        transaction.commit().answer(doing).await?;
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

/// Cancels open jobs whose rows this transaction has locked by a statement before: whoever waits there for a claim that is about to be
/// committed sees its lease and its attempt only now.
async fn cancel_held(transaction: &mut PgConnection, held: &[Uuid]) -> Result<Cancelled> {
    sqlx::query_as!(
        Cancelled,
        r#"
        WITH held AS MATERIALIZED (
            SELECT id, state FROM jobs WHERE id = ANY($1)
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
        held
    )
    .fetch_one(transaction)
    .answer("cancel jobs")
    .await
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
