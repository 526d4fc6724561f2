use crate::{JobState, Ledger, ReapedJob, Result, errors::Answer as _};

impl Ledger {
    /// Takes every expired lease away: its job is queued again with a token, or quarantined when this is the second worker lost
    /// over it, or failed when that was its last attempt.
    ///
    /// A worker computes one job at a time: of those it held, the one it began with last ([`Ledger::begin`]) is charged with the crash, or
    /// the one claimed first where it had begun with none; its neighbours are not. Leases of one worker end seconds apart: one that was
    /// taken away before still counts as held with those that were claimed meanwhile.
    ///
    /// Any number of reapers may run at once. Both rows of a job are locked without waiting, so that a reaper never stands in the
    /// way of a worker, and a heartbeat that came in meanwhile saves its lease. A server that just came up gives each lease its
    /// time once more: nobody could extend one while it was down, and those workers are not lost.
    pub async fn reap(&self) -> Result<Vec<ReapedJob>> {
        sqlx::query_as!(
            ReapedJob,
            r#"
            WITH expired AS MATERIALIZED (
                SELECT
                    jobs.id, jobs.attempt, max_attempts,
                    leases.worker,
                    crashes + CASE WHEN EXISTS (
                        SELECT FROM attempts AS other
                        WHERE other.worker = leases.worker
                            AND (other.outcome IS NULL OR other.outcome = 'lost' AND other.finished_at > jobs.started_at)
                            AND CASE
                                -- Of those that were begun with or claimed together, one: whichever.
                                WHEN own.begun_at IS NOT NULL THEN (other.begun_at, other.job_id) > (own.begun_at, own.job_id)
                                ELSE other.begun_at IS NOT NULL OR (other.started_at, other.job_id) < (jobs.started_at, jobs.id)
                            END
                    ) THEN 0 ELSE 1 END AS charged
                FROM leases
                JOIN jobs ON jobs.id = leases.job_id AND jobs.epoch = leases.epoch AND jobs.state = 'running'
                JOIN attempts AS own ON own.job_id = leases.job_id AND own.epoch = leases.epoch
                WHERE expires_at < now() AND pg_postmaster_start_time() + ttl < now()
                FOR UPDATE OF leases, jobs SKIP LOCKED
            ), judged AS (
                SELECT
                    id,
                    worker,
                    charged,
                    CASE
                        WHEN charged >= 2 THEN 'quarantined'
                        WHEN attempt >= max_attempts THEN 'failed'
                        ELSE 'queued'
                    END::job_state AS next
                FROM expired
            ), changed AS (
                UPDATE jobs SET
                    state = next,
                    crashes = charged,
                    error_class = CASE next WHEN 'quarantined' THEN 'permanent' WHEN 'failed' THEN 'transient' END::error_class,
                    error_message = CASE next
                        WHEN 'quarantined' THEN format('two workers were lost while they held this job, the last was %s', worker)
                        WHEN 'failed' THEN format('the worker %s was lost during the last of %s attempts', worker, max_attempts)
                    END,
                    finished_at = CASE WHEN next <> 'queued' THEN now() END
                FROM judged
                WHERE jobs.id = judged.id
                RETURNING jobs.id, batch_id, pool, worker, epoch, state, started_at
            ), ended AS (
                UPDATE attempts SET finished_at = now(), outcome = 'lost', error = 'the lease expired'
                FROM changed
                WHERE attempts.job_id = changed.id AND attempts.epoch = changed.epoch
            ), freed AS (
                DELETE FROM leases USING changed WHERE leases.job_id = changed.id
            ), owed AS (
                INSERT INTO outbox (pool, tokens) SELECT pool, count(*) FROM changed WHERE state = 'queued' GROUP BY pool
            )
            SELECT
                id AS job_id, batch_id, pool, worker, epoch, state AS "state: JobState",
                extract(epoch FROM now() - started_at)::float8 AS "seconds!"
            FROM changed
            "#
        )
        .fetch_all(&self.pool)
        .answer("take expired leases away")
        .await
    }
}
