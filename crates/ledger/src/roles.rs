use sqlx::AssertSqlSafe;

use crate::{Ledger, LedgerError, Result, errors::Answer as _};

/// All that a worker's statements need, and no more: it takes jobs and ends them, and sees neither tokens nor how to make a batch.
const WORKER_RIGHTS: [&str; 10] = [
    "SELECT, UPDATE (state, epoch, attempt, run_at, started_at, finished_at, error_class, error_message) ON jobs",
    "SELECT ON batches",
    "SELECT (name, reads) ON projects",
    "SELECT, UPDATE (checkpoint_sha256) ON pools",
    "SELECT, INSERT, UPDATE, DELETE ON leases",
    // The login is the database's to say.
    "SELECT, INSERT (job_id, epoch, attempt, worker), UPDATE (begun_at, finished_at, outcome, error) ON attempts",
    "SELECT, INSERT ON results, masks, scores, artifacts",
    "SELECT, INSERT, UPDATE ON reusable_results",
    "INSERT ON outbox",
    "USAGE ON SCHEMA public",
];

impl Ledger {
    /// Gives a role of the database what a worker needs, in place of what it had in these tables. Its members are the workers' logins: one that may not log
    /// in any more has lost all it could do.
    pub async fn grant_worker(&self, role: &str) -> Result<()> {
        let doing = "grant a worker's rights";
        let quoted = sqlx::query_scalar!(r#"SELECT quote_ident(rolname) AS "quoted!" FROM pg_roles WHERE rolname = $1"#, role);
        let quoted = quoted.fetch_optional(&self.pool).answer(doing).await?;
        let quoted = quoted.ok_or_else(|| LedgerError::UnknownRole { role: role.chars().take(80).collect() })?;
        let mut transaction = self.pool.begin().answer(doing).await?;
        // Before version 15 of Postgres everybody might make tables and functions there, and what a statement means would be a worker's to say.
        sqlx::query("REVOKE CREATE ON SCHEMA public FROM PUBLIC").execute(&mut *transaction).answer(doing).await?;
        let nothing = format!("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {quoted}");
        // The role's name is quoted by Postgres, and all else is written above.
        sqlx::query(AssertSqlSafe(nothing)).execute(&mut *transaction).answer(doing).await?;
        for rights in WORKER_RIGHTS {
            let grant = format!("GRANT {rights} TO {quoted}");
            sqlx::query(AssertSqlSafe(grant)).execute(&mut *transaction).answer(doing).await?;
        }
        transaction.commit().answer(doing).await
    }
}
