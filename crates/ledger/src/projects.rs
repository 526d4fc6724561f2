use jiff::Timestamp;
use request::{AllowList, Allowed};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Ledger, LedgerError, Result, errors::Answer as _, pools::is_pool_name, time::Time};

/// The project of batches from before there were projects, and of whoever is served without a token.
pub const DEFAULT_PROJECT: &str = "default";

/// How many jobs of a project may wait where nobody has said otherwise.
pub const DEFAULT_MAX_WAITING_JOBS: u64 = 10_000_000;

/// Whose batches they are: nobody sees those of another project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// 1 to 40 lower-case letters, digits and hyphens, a letter first.
    pub name: String,
    /// What its requests may read.
    pub reads: AllowList,
    /// How many of its jobs may wait at a time.
    pub max_waiting_jobs: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What of a project is to be otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProjectChange {
    /// What its requests may read, in place of what they may read now.
    pub reads: Option<AllowList>,
    /// How many of its jobs may wait at a time.
    pub max_waiting_jobs: Option<u64>,
}

impl Ledger {
    /// Makes a project; false where there is one of that name, which is left as it is.
    pub async fn create_project(&self, name: &str, reads: &AllowList, max_waiting_jobs: u64) -> Result<bool> {
        // The rule of pools: both are parts of paths and of labels.
        if !is_pool_name(name) {
            return Err(LedgerError::ProjectName { name: name.chars().take(80).collect() });
        }
        let made = sqlx::query!(
            "INSERT INTO projects (name, reads, max_waiting_jobs) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            name,
            &stored(reads),
            max_waiting_jobs.cast_signed()
        );
        Ok(made.execute(&self.pool).answer("make a project").await?.rows_affected() == 1)
    }

    /// Changes a project. What it may not read any more is refused to jobs that are queued, too.
    pub async fn change_project(&self, name: &str, change: &ProjectChange) -> Result<()> {
        let reads = change.reads.as_ref().map(stored);
        let changed = sqlx::query!(
            "UPDATE projects SET reads = coalesce($2, reads), max_waiting_jobs = coalesce($3, max_waiting_jobs) WHERE name = $1",
            name,
            reads.as_deref(),
            change.max_waiting_jobs.map(u64::cast_signed)
        );
        match changed.execute(&self.pool).answer("change a project").await?.rows_affected() {
            0 => Err(LedgerError::UnknownProject { name: name.chars().take(80).collect() }),
            _ => Ok(()),
        }
    }

    /// All projects, by name.
    pub async fn projects(&self) -> Result<Vec<Project>> {
        let rows =
            sqlx::query!(r#"SELECT name, reads, max_waiting_jobs, created_at AS "created_at: Time" FROM projects ORDER BY name"#);
        let rows = rows.fetch_all(&self.pool).answer("list the projects").await?;
        rows.into_iter()
            .map(|row| {
                let (reads, max_waiting_jobs) = (read_allow_list(&row.reads)?, row.max_waiting_jobs.cast_unsigned());
                Ok(Project { name: row.name, reads, max_waiting_jobs, created_at: row.created_at.0 })
            })
            .collect()
    }

    /// Whether a batch is there and the project's.
    pub async fn owns_batch(&self, project: &str, batch: Uuid) -> Result<bool> {
        sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM batches WHERE id = $1 AND project = $2) AS "is_its!""#, batch, project)
            .fetch_one(&self.pool)
            .answer("look up whose batch it is")
            .await
    }

    /// Whether a job is there and the project's.
    pub async fn owns_job(&self, project: &str, job: Uuid) -> Result<bool> {
        sqlx::query_scalar!(
            r#"
            SELECT EXISTS (
                SELECT FROM jobs JOIN batches ON batches.id = batch_id WHERE jobs.id = $1 AND project = $2
            ) AS "is_its!"
            "#,
            job,
            project
        )
        .fetch_one(&self.pool)
        .answer("look up whose job it is")
        .await
    }
}

fn stored(reads: &AllowList) -> Vec<String> {
    reads.entries().iter().map(Allowed::to_string).collect()
}

/// What this version cannot read allows nothing: it is an error.
pub(crate) fn read_allow_list(stored: &[String]) -> Result<AllowList> {
    let entries = stored.iter().map(|entry| entry.parse()).collect::<std::result::Result<_, _>>();
    entries.map(AllowList::new).map_err(|source| LedgerError::AllowList { source })
}

/// How many more jobs of a project may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub left: u64,
    limit: u64,
}

impl Room {
    /// Of a project, where `own` of its waiting jobs are not counted, which the transaction itself has brought. No more are counted than tell.
    pub(crate) async fn of(connection: &mut PgConnection, project: &str, own: u64) -> Result<Self> {
        let row = sqlx::query!(
            r#"
            SELECT max_waiting_jobs AS "limit!", (
                SELECT count(*) FROM (
                    SELECT FROM batches JOIN jobs ON jobs.batch_id = batches.id
                    WHERE project = projects.name AND state = 'queued'
                    -- One more than may, within what a bigint holds.
                    LIMIT least(max_waiting_jobs, 9223372036854775807 - $2) + $2
                ) AS first
            ) AS "waiting!"
            FROM projects
            WHERE name = $1
            "#,
            project,
            own.saturating_add(1).cast_signed()
        );
        let row = row.fetch_optional(connection).answer("count the jobs that wait").await?;
        let row = row.ok_or_else(|| LedgerError::UnknownProject { name: project.chars().take(80).collect() })?;
        let (limit, waiting) = (row.limit.cast_unsigned(), row.waiting.cast_unsigned());
        Ok(Self { left: limit.saturating_add(own).saturating_sub(waiting), limit })
    }

    /// Refuses more jobs than there is room for.
    pub(crate) fn check(self, jobs: u64) -> Result<()> {
        if jobs > self.left { Err(LedgerError::TooManyWaiting { room: self.left, limit: self.limit }) } else { Ok(()) }
    }
}
