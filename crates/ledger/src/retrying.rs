use uuid::Uuid;

use crate::{Ledger, Result, errors::Answer as _, projects::Room};

/// Jobs a statement: a batch of millions is retried in many, each well within its time.
const CHUNK: i64 = 10_000;

impl Ledger {
    /// failed -> queued, and quarantined -> queued where `also_quarantined`: those jobs of a batch, with no attempt counted, in
    /// turns with what waits now, with their tokens. Returns how many. Done in parts: cut off in between, it may be called again.
    pub async fn retry_batch(&self, batch: Uuid, also_quarantined: bool) -> Result<u64> {
        let asked = sqlx::query!(
            r#"
            SELECT project, (
                SELECT count(*) FROM jobs WHERE batch_id = $1 AND (state = 'failed' OR $2 AND state = 'quarantined')
            ) AS "jobs!"
            FROM batches
            WHERE id = $1
            "#,
            batch,
            also_quarantined
        );
        let Some(asked) = asked.fetch_optional(&self.pool).answer("retry a batch").await? else { return Ok(0) };
        // Commands that come together may each find the same room.
        let mut connection = self.pool.acquire().answer("retry a batch").await?;
        Room::of(&mut connection, &asked.project, 0).await?.check(asked.jobs.cast_unsigned())?;
        drop(connection);
        let mut retried = 0;
        // Each job once: one that fails again meanwhile is not met a second time.
        let mut after_line = 0;
        loop {
            let part = sqlx::query!(
                r#"
                WITH held AS MATERIALIZED (
                    SELECT id, line, pool, priority FROM jobs
                    WHERE batch_id = $1 AND line > $3 AND (state = 'failed' OR $2 AND state = 'quarantined')
                    ORDER BY line
                    LIMIT $5
                    FOR UPDATE
                ), placed AS (
                    SELECT id, row_number() OVER (PARTITION BY pool, priority ORDER BY line) - 1 + $4 + coalesce(
                        (
                            SELECT min(turn) FROM jobs
                            WHERE pool = held.pool AND priority = held.priority AND state = 'queued' AND attempt = 0
                        ), 0
                    ) AS turn
                    FROM held
                ), changed AS (
                    UPDATE jobs SET
                        state = 'queued', attempt = 0, crashes = 0, run_at = now(), turn = placed.turn,
                        error_class = NULL, error_message = NULL, finished_at = NULL
                    FROM placed
                    WHERE jobs.id = placed.id
                    RETURNING pool, line
                ), owed AS (
                    INSERT INTO outbox (pool, tokens) SELECT pool, count(*) FROM changed GROUP BY pool
                )
                SELECT count(*) AS "jobs!", coalesce(max(line), 0) AS "last_line!" FROM changed
                "#,
                batch,
                also_quarantined,
                after_line,
                retried,
                CHUNK
            )
            .fetch_one(&self.pool)
            .answer("retry a batch")
            .await?;
            retried += part.jobs;
            after_line = part.last_line;
            if part.jobs < CHUNK {
                return Ok(retried.cast_unsigned());
            }
        }
    }

    /// failed or quarantined -> queued: one job, with no attempt counted, in turn with what waits now, with its token; false where it is
    /// in another state.
    pub async fn retry_job(&self, job: Uuid) -> Result<bool> {
        let project = sqlx::query_scalar!(
            "SELECT project FROM jobs JOIN batches ON batches.id = batch_id
             WHERE jobs.id = $1 AND state IN ('failed', 'quarantined')",
            job
        );
        let Some(project) = project.fetch_optional(&self.pool).answer("retry a job").await? else { return Ok(false) };
        let mut connection = self.pool.acquire().answer("retry a job").await?;
        Room::of(&mut connection, &project, 0).await?.check(1)?;
        drop(connection);
        let pool = sqlx::query_scalar!(
            r#"
            WITH changed AS (
                UPDATE jobs SET
                    state = 'queued', attempt = 0, crashes = 0, run_at = now(),
                    turn = coalesce(
                        (
                            SELECT min(turn) FROM jobs AS waiting
                            WHERE waiting.pool = jobs.pool AND waiting.priority = jobs.priority
                                AND waiting.state = 'queued' AND waiting.attempt = 0
                        ), 0
                    ),
                    error_class = NULL, error_message = NULL, finished_at = NULL
                WHERE id = $1 AND state IN ('failed', 'quarantined')
                RETURNING pool
            ), owed AS (
                INSERT INTO outbox (pool, tokens) SELECT pool, 1 FROM changed
            )
            SELECT pool FROM changed
            "#,
            job
        )
        .fetch_optional(&self.pool)
        .answer("retry a job")
        .await?;
        Ok(pool.is_some())
    }
}
