use crate::{Ledger, LedgerError, PoolStatus, Result, Workload, errors::Answer as _};

impl Ledger {
    /// Makes a pool known, once or again. Its name has 1 to 40 lower-case letters, digits and hyphens, a letter first.
    pub async fn declare_pool(&self, name: &str) -> Result<()> {
        if !is_pool_name(name) {
            return Err(LedgerError::PoolName { name: name.chars().take(80).collect() });
        }
        sqlx::query!("INSERT INTO pools (name) VALUES ($1) ON CONFLICT DO NOTHING", name)
            .execute(&self.pool)
            .answer("declare a pool")
            .await?;
        Ok(())
    }

    /// Ties the pool to its first worker's checkpoint and refuses every other one.
    pub async fn bind_checkpoint(&self, pool: &str, checkpoint_sha256: &str) -> Result<()> {
        let unknown = || LedgerError::UnknownPool { pool: pool.chars().take(80).collect() };
        if !is_pool_name(pool) {
            return Err(unknown());
        }
        let bound = sqlx::query_scalar!(
            r#"UPDATE pools SET checkpoint_sha256 = coalesce(checkpoint_sha256, $2) WHERE name = $1
               RETURNING checkpoint_sha256 AS "checkpoint_sha256!""#,
            pool,
            checkpoint_sha256
        )
        .fetch_optional(&self.pool)
        .answer("bind the pool to its checkpoint")
        .await?;
        match bound {
            None => Err(unknown()),
            Some(expected) if expected != checkpoint_sha256 => {
                Err(LedgerError::OtherCheckpoint { pool: pool.into(), expected, found: checkpoint_sha256.into() })
            }
            Some(_) => Ok(()),
        }
    }

    /// All pools, by name.
    pub async fn pools(&self) -> Result<Vec<PoolStatus>> {
        let rows = sqlx::query!(
            r#"
            SELECT
                name,
                checkpoint_sha256,
                (SELECT count(*) FROM jobs WHERE pool = name AND state = 'queued') AS "queued!",
                (SELECT count(*) FROM leases JOIN jobs ON jobs.id = job_id WHERE pool = name) AS "running!"
            FROM pools
            ORDER BY name
            "#
        )
        .fetch_all(&self.pool)
        .answer("list the pools")
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| PoolStatus {
                name: row.name,
                checkpoint_sha256: row.checkpoint_sha256,
                queued: row.queued.cast_unsigned(),
                running: row.running.cast_unsigned(),
            })
            .collect())
    }

    /// The pools' names, in order.
    pub async fn pool_names(&self) -> Result<Vec<String>> {
        sqlx::query_scalar!("SELECT name FROM pools ORDER BY name").fetch_all(&self.pool).answer("list the pools").await
    }

    /// Jobs that could be claimed now, by pool and no more than `at_most` of each; pools without one are left out.
    pub async fn due_by_pool(&self, at_most: u32) -> Result<Vec<(String, u64)>> {
        let rows = sqlx::query!(
            r#"
            SELECT name, due AS "due!"
            FROM pools
            CROSS JOIN LATERAL (
                SELECT count(*) AS due
                FROM (SELECT FROM jobs WHERE jobs.pool = name AND state = 'queued' AND run_at <= now() LIMIT $1) AS first
            ) AS counted
            WHERE due > 0
            ORDER BY name
            "#,
            i64::from(at_most)
        )
        .fetch_all(&self.pool)
        .answer("count the jobs that are due")
        .await?;
        Ok(rows.into_iter().map(|row| (row.name, row.due.cast_unsigned())).collect())
    }

    /// What waits and runs, by pool.
    ///
    /// It counts all that waits, and with millions of jobs that takes a while: ask seldom. The ids of jobs are in the order of their submission, so the
    /// least of those that wait is the oldest's.
    pub async fn workloads(&self) -> Result<Vec<Workload>> {
        sqlx::query_as!(
            Workload,
            r#"
            SELECT
                name AS pool,
                waiting.jobs AS "queued!",
                held.running AS "running!",
                held.busy_workers AS "busy_workers!",
                held.expired_leases AS "expired_leases!",
                (
                    SELECT extract(epoch FROM now() - created_at)::float8 FROM jobs
                    WHERE jobs.pool = pools.name AND state = 'queued' AND run_at <= now()
                    ORDER BY priority DESC, turn, id
                    LIMIT 1
                ) AS next_job_age_seconds,
                (
                    SELECT extract(epoch FROM now() - created_at)::float8 FROM jobs WHERE id = waiting.oldest
                ) AS oldest_job_age_seconds,
                owed.tokens AS "outbox_tokens!",
                owed.age AS outbox_age_seconds,
                (
                    SELECT avg(seconds) FROM (
                        SELECT id FROM batches
                        WHERE batches.pool = pools.name
                            AND EXISTS (SELECT FROM jobs WHERE batch_id = batches.id AND state = 'succeeded')
                        ORDER BY id DESC
                        LIMIT 20
                    ) AS newest
                    CROSS JOIN LATERAL (
                        SELECT seconds FROM jobs JOIN results ON results.job_id = jobs.id
                        WHERE batch_id = newest.id AND state = 'succeeded' AND jobs.pool = pools.name
                        LIMIT 50
                    ) AS measured
                ) AS mean_job_seconds
            FROM pools
            CROSS JOIN LATERAL (
                SELECT count(*) AS jobs, min(id::text)::uuid AS oldest FROM jobs WHERE jobs.pool = pools.name AND state = 'queued'
            ) AS waiting
            CROSS JOIN LATERAL (
                SELECT
                    count(*) AS running,
                    count(DISTINCT worker) AS busy_workers,
                    count(*) FILTER (WHERE expires_at < now()) AS expired_leases
                FROM leases JOIN jobs ON jobs.id = leases.job_id
                WHERE jobs.pool = pools.name
            ) AS held
            CROSS JOIN LATERAL (
                SELECT
                    coalesce(sum(tokens), 0) AS tokens,
                    extract(epoch FROM now() - min(created_at))::float8 AS age
                FROM outbox
                WHERE outbox.pool = pools.name
            ) AS owed
            ORDER BY name
            "#
        )
        .fetch_all(&self.pool)
        .answer("measure what waits and runs")
        .await
    }
}

/// The same rule as the table's.
pub(crate) fn is_pool_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 40 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_part)
}
