use std::{collections::BTreeMap, time::Duration};

use uuid::Uuid;

use crate::{
    ClaimedJob, ErrorClass, Finalised, JobFailure, Lease, Ledger, LedgerError, Result,
    errors::Answer as _,
    projects::read_allow_list,
    reading::read_request,
    together::{Answers, everyones},
};

/// Who asks for a job of which pool, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ask {
    pool: String,
    worker: String,
    ttl: Duration,
}

/// What a claim says of a job.
struct Row {
    id: Uuid,
    batch_id: Uuid,
    epoch: i64,
    attempt: i32,
    max_attempts: i32,
    request: String,
    reuse: bool,
    traceparent: Option<String>,
    project: String,
    reads: Vec<String>,
}

/// The statement for so many jobs. Where the number is a parameter, Postgres plans each call anew, and that takes longer than one claim: for one job
/// it is in the text.
macro_rules! claim {
    ($limit:tt, $($argument:expr),+) => {
        sqlx::query_as!(
            Row,
            r#"
            WITH next AS MATERIALIZED (
                SELECT id FROM jobs
                WHERE pool = $1 AND state = 'queued' AND run_at <= now()
                ORDER BY priority DESC, turn, id
                LIMIT "# + $limit + r#"
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
            SELECT
                claimed.id, batch_id, epoch, attempt, max_attempts, request::text AS "request!", reuse, traceparent, project, reads
            FROM claimed
            JOIN batches ON batches.id = batch_id
            JOIN projects ON projects.name = project
            "#,
            $($argument),+
        )
    };
}

impl Ledger {
    /// queued -> running: the pool's next due job, with a lease that ends `ttl` from now; none when nothing is due. Calls that come while one is under
    /// way go together in one statement.
    ///
    /// Next is: the highest priority, then batches in turns, then age. A job that this version cannot read is failed at once
    /// ([`crate::LedgerError::Unreadable`]; ask again): left to the reaper, it would look like one that takes workers down.
    pub async fn claim(&self, pool: &str, worker: &str, ttl: Duration) -> Result<Option<ClaimedJob>> {
        let ask = Ask { pool: pool.into(), worker: worker.into(), ttl };
        let ledger = self.clone();
        let claim_all = move |asks| {
            let ledger = ledger.clone();
            async move { ledger.claim_all(asks).await }
        };
        self.claims.call(ask, claim_all).await
    }

    /// For a worker all asks are alike, and one statement answers them.
    async fn claim_all(&self, asks: Vec<Ask>) -> Answers<Option<ClaimedJob>> {
        let mut alike = BTreeMap::<&Ask, usize>::new();
        for ask in &asks {
            *alike.entry(ask).or_default() += 1;
        }
        let mut answers = BTreeMap::new();
        for (ask, count) in alike {
            answers.insert(ask, self.claim_alike(ask, count).await);
        }
        asks.iter().map(|ask| answers.get_mut(ask).and_then(Vec::pop).unwrap_or(Ok(None))).collect()
    }

    /// At most as many jobs as that, or why some were none.
    async fn claim_alike(&self, Ask { pool, worker, ttl }: &Ask, count: usize) -> Answers<Option<ClaimedJob>> {
        let (seconds, limit) = (ttl.as_secs_f64(), count as i64);
        let (pool, worker) = (pool.as_str(), worker.as_str());
        let rows = if count == 1 {
            claim!("1", pool, worker, seconds).fetch_all(&self.pool).answer("claim a job").await
        } else {
            claim!("$4", pool, worker, seconds, limit).fetch_all(&self.pool).answer("claim jobs").await
        };
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => return everyones(error, count),
        };
        let mut answers = Vec::new();
        for row in rows {
            let lease = Lease { job_id: row.id, batch_id: row.batch_id, epoch: row.epoch, worker: worker.into() };
            let read = read_request(row.id, &row.request).and_then(|request| Ok((request, read_allow_list(&row.reads)?)));
            answers.push(match read {
                Ok((request, reads)) => Ok(Some(ClaimedJob {
                    lease,
                    attempt: row.attempt,
                    max_attempts: row.max_attempts,
                    request,
                    project: row.project,
                    reads,
                    reuse: row.reuse,
                    traceparent: row.traceparent,
                })),
                Err(error) => Err(self.fail_unreadable(pool, lease, error).await),
            });
        }
        answers
    }

    async fn fail_unreadable(&self, pool: &str, lease: Lease, error: LedgerError) -> LedgerError {
        let failure = JobFailure { class: ErrorClass::Permanent, message: error.to_string() };
        match self.fail(&lease, &failure).await {
            Ok(Finalised::Accepted) => {
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
                error
            }
            // Somebody else has the last word.
            Ok(Finalised::LeaseLost) => error,
            Err(error) => error,
        }
    }

    /// Notes that the model begins with the job: the one a worker began with last is charged if it takes the worker down. Calls that come while
    /// one is under way go together in one statement.
    pub async fn begin(&self, lease: &Lease) -> Result<()> {
        let pool = self.pool.clone();
        let begin_all = move |leases: Vec<Lease>| {
            let pool = pool.clone();
            async move {
                let (jobs, epochs): (Vec<_>, Vec<_>) = leases.iter().map(|lease| (lease.job_id, lease.epoch)).unzip();
                let begun = sqlx::query!(
                    "UPDATE attempts SET begun_at = now()
                     FROM unnest($1::uuid[], $2::bigint[]) AS given (job_id, epoch)
                     WHERE attempts.job_id = given.job_id AND attempts.epoch = given.epoch",
                    &jobs,
                    &epochs
                );
                match begun.execute(&pool).answer("note that jobs are begun").await {
                    Ok(_) => leases.iter().map(|_| Ok(())).collect(),
                    Err(error) => everyones(error, leases.len()),
                }
            }
        };
        self.beginnings.call(lease.clone(), begin_all).await
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
