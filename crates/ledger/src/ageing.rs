use std::time::Duration;

use crate::{AgedJobs, Ledger, Result, errors::Answer as _};

impl Ledger {
    /// Raises jobs that are passed over: where the first due job of a priority has stayed the first for longer than `after`, so that
    /// nothing of its priority was served, that job (and with it one for every ten that run in the pool) gets the highest priority
    /// that waits there, and its turn. A low priority is thus served slowly and never starves, and batches of one priority still go in turns:
    /// what counts is not how long a job waits but how long its priority stands still.
    ///
    /// To be called every few seconds; what it saw is kept in the database. Any number may call it: two at the same moment may
    /// raise twice as many.
    pub async fn age(&self, after: Duration) -> Result<Vec<AgedJobs>> {
        sqlx::query_as!(
            AgedJobs,
            r#"
            WITH RECURSIVE heads AS (
                SELECT name AS pool, first.priority, first.id, first.priority AS highest, first.turn AS its_turn
                FROM pools CROSS JOIN LATERAL (
                    SELECT priority, turn, id FROM jobs
                    WHERE pool = name AND state = 'queued' AND run_at <= now()
                    ORDER BY priority DESC, turn, id
                    LIMIT 1
                ) AS first
                UNION ALL
                SELECT heads.pool, next.priority, next.id, highest, its_turn
                FROM heads CROSS JOIN LATERAL (
                    SELECT priority, id FROM jobs
                    WHERE pool = heads.pool AND state = 'queued' AND run_at <= now() AND priority < heads.priority
                    ORDER BY priority DESC, turn, id
                    LIMIT 1
                ) AS next
            ), seen AS (
                INSERT INTO queue_heads (pool, priority, job_id) SELECT pool, priority, id FROM heads
                ON CONFLICT (pool, priority) DO UPDATE SET job_id = excluded.job_id, since = now()
                WHERE queue_heads.job_id <> excluded.job_id
            ), gone AS (
                DELETE FROM queue_heads AS old
                WHERE NOT EXISTS (SELECT FROM heads WHERE heads.pool = old.pool AND heads.priority = old.priority)
            ), starving AS (
                SELECT
                    heads.pool, heads.priority, highest, its_turn,
                    1 + (SELECT count(*) FROM leases JOIN jobs ON jobs.id = job_id WHERE jobs.pool = heads.pool) / 10 AS share
                FROM heads JOIN queue_heads AS old ON old.pool = heads.pool AND old.priority = heads.priority AND old.job_id = heads.id
                WHERE heads.priority < highest AND old.since + make_interval(secs => $1) < now()
            ), chosen AS MATERIALIZED (
                SELECT id, starving.priority AS from_priority, highest, its_turn
                FROM starving CROSS JOIN LATERAL (
                    SELECT id FROM jobs
                    WHERE pool = starving.pool AND priority = starving.priority AND state = 'queued' AND run_at <= now()
                    ORDER BY turn, id
                    LIMIT share
                    FOR UPDATE SKIP LOCKED
                ) AS first
            ), raised AS (
                UPDATE jobs SET priority = highest, turn = its_turn
                FROM chosen
                WHERE jobs.id = chosen.id
                RETURNING pool, from_priority, highest
            )
            SELECT pool AS "pool!", from_priority AS "from_priority!", highest AS "to_priority!", count(*) AS "jobs!"
            FROM raised
            GROUP BY pool, from_priority, highest
            ORDER BY pool, from_priority
            "#,
            after.as_secs_f64()
        )
        .fetch_all(&self.pool)
        .answer("raise jobs that are passed over")
        .await
    }
}
