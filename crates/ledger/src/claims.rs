use std::time::Duration;

use crate::{ClaimedJob, ErrorClass, Finalised, JobFailure, Lease, Ledger, Result, errors::Answer as _, reading::read_request};

impl Ledger {
    /// queued -> running: the pool's next due job, with a lease that ends `ttl` from now; none when nothing is due.
    ///
    /// Next is: the highest priority, then batches in turns, then age. A job that this version cannot read is failed at once
    /// ([`crate::LedgerError::Unreadable`]; ask again): left to the reaper, it would look like one that takes workers down.
    pub async fn claim(&self, pool: &str, worker: &str, ttl: Duration) -> Result<Option<ClaimedJob>> {
        let row = sqlx::query!(
            r#"
            WITH next AS MATERIALIZED (
                SELECT id FROM jobs
                WHERE pool = $1 AND state = 'queued' AND run_at <= now()
                ORDER BY priority DESC, turn, id
                LIMIT 1
                FOR UPDATE SKIP LOCKED
            ), claimed AS (
                UPDATE jobs SET state = 'running', attempt = attempt + 1, epoch = epoch + 1, started_at = now()
                FROM next
                WHERE jobs.id = next.id
                RETURNING jobs.*
            ), leased AS (
                INSERT INTO leases (job_id, epoch, worker, ttl, expires_at)
                SELECT id, epoch, $2, make_interval(secs => $3), now() + make_interval(secs => $3) FROM claimed
            ), begun AS (
                INSERT INTO attempts (job_id, epoch, attempt, worker) SELECT id, epoch, attempt, $2 FROM claimed
            )
            SELECT claimed.id, batch_id, epoch, attempt, max_attempts, request::text AS "request!", reuse, traceparent
            FROM claimed
            JOIN batches ON batches.id = batch_id
            "#,
            pool,
            worker,
            ttl.as_secs_f64()
        )
        .fetch_optional(&self.pool)
        .answer("claim a job")
        .await?;
        let Some(row) = row else { return Ok(None) };
        let lease = Lease { job_id: row.id, batch_id: row.batch_id, epoch: row.epoch, worker: worker.into() };
        match read_request(row.id, &row.request) {
            Ok(request) => Ok(Some(ClaimedJob {
                lease,
                attempt: row.attempt,
                max_attempts: row.max_attempts,
                request,
                reuse: row.reuse,
                traceparent: row.traceparent,
            })),
            Err(error) => {
                let failure = JobFailure { class: ErrorClass::Permanent, message: error.to_string() };
                // A lease lost already means that somebody else has the last word.
                if self.fail(&lease, &failure).await? == Finalised::Accepted {
                    let Lease { job_id, batch_id, epoch, worker } = lease;
                    tracing::info!(
                        job.id = %job_id,
                        batch.id = %batch_id,
                        epoch,
                        worker,
                        pool,
                        state = "failed",
                        class = "permanent",
                        "job claimed and failed at once: this version cannot read its request"
                    );
                }
                Err(error)
            }
        }
    }

    /// Notes that the model begins with the job: the one a worker began with last is charged if it takes the worker down.
    pub async fn begin(&self, lease: &Lease) -> Result<()> {
        sqlx::query!("UPDATE attempts SET begun_at = now() WHERE job_id = $1 AND epoch = $2", lease.job_id, lease.epoch)
            .execute(&self.pool)
            .answer("note that a job is begun")
            .await?;
        Ok(())
    }

    /// Extends the lease to `ttl` from now; false when it is lost.
    ///
    /// A lease whose time is over is extended too, as long as the reaper has not taken it away: nobody else has the job.
    pub async fn heartbeat(&self, lease: &Lease, ttl: Duration) -> Result<bool> {
        let done = sqlx::query!(
            "UPDATE leases SET ttl = make_interval(secs => $3), expires_at = now() + make_interval(secs => $3)
             WHERE job_id = $1 AND epoch = $2",
            lease.job_id,
            lease.epoch,
            ttl.as_secs_f64()
        )
        .execute(&self.pool)
        .answer("extend a lease")
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
