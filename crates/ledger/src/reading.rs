use request::{Parameters, Points, S3Uri};
use sqlx::types::Json;
use uuid::Uuid;

use crate::{
    Artifact, BatchStatus, Counts, ErrorClass, JobFailure, JobResult, JobState, JobStatus, Ledger, LedgerError, Result,
    errors::Answer as _, time::Time,
};

/// Selects [`JobRow`]s; the literal says which and in what order.
macro_rules! select_jobs {
    ($rest:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            JobRow,
            r#"
            SELECT
                jobs.id, batch_id, line, user_id, pool, image,
                points AS "points: Json<Points>",
                parameters AS "parameters: Json<Parameters>",
                state AS "state: JobState",
                attempt, max_attempts, jobs.epoch,
                error_class AS "error_class: ErrorClass",
                error_message,
                created_at AS "created_at: Time",
                started_at AS "started_at: Time",
                finished_at AS "finished_at: Time",
                iou AS "iou?", best_step AS "best_step?", seconds AS "seconds?",
                (
                    SELECT json_agg(json_build_object('kind', kind, 'uri', uri, 'sha256', sha256, 'bytes', bytes) ORDER BY kind)
                    FROM artifacts
                    WHERE artifacts.job_id = jobs.id
                ) AS "artifacts: Json<Vec<Artifact>>"
            FROM jobs
            LEFT JOIN results ON results.job_id = jobs.id
            "# + $rest,
            $($argument),+
        )
    };
}

impl Ledger {
    /// A batch and its counts.
    pub async fn batch(&self, id: Uuid) -> Result<Option<BatchStatus>> {
        let row = sqlx::query!(
            r#"
            SELECT
                name, batches.pool, batches.created_at AS "created_at: Time",
                counts.queued AS "queued!", counts.running AS "running!", counts.succeeded AS "succeeded!",
                counts.failed AS "failed!", counts.cancelled AS "cancelled!", counts.quarantined AS "quarantined!",
                counts.last_finished_at AS "last_finished_at?: Time"
            FROM batches
            CROSS JOIN LATERAL (
                SELECT
                    count(*) FILTER (WHERE state = 'queued') AS queued,
                    count(*) FILTER (WHERE state = 'running') AS running,
                    count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
                    count(*) FILTER (WHERE state = 'failed') AS failed,
                    count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
                    count(*) FILTER (WHERE state = 'quarantined') AS quarantined,
                    max(finished_at) AS last_finished_at
                FROM jobs
                WHERE batch_id = batches.id
            ) AS counts
            WHERE batches.id = $1
            "#,
            id
        )
        .fetch_optional(&self.pool)
        .answer("read a batch")
        .await?;
        Ok(row.map(|row| {
            let counts = Counts {
                queued: row.queued.cast_unsigned(),
                running: row.running.cast_unsigned(),
                succeeded: row.succeeded.cast_unsigned(),
                failed: row.failed.cast_unsigned(),
                cancelled: row.cancelled.cast_unsigned(),
                quarantined: row.quarantined.cast_unsigned(),
            };
            BatchStatus {
                id,
                name: row.name,
                pool: row.pool,
                created_at: row.created_at.0,
                finished_at: row.last_finished_at.filter(|_| counts.open() == 0).map(|time| time.0),
                counts,
            }
        }))
    }

    /// Up to `limit` jobs of a batch, those with a line after `after_line`, by line.
    pub async fn jobs(&self, batch: Uuid, after_line: u64, limit: u32) -> Result<Vec<JobStatus>> {
        select_jobs!(
            "WHERE batch_id = $1 AND line > $2 ORDER BY line LIMIT $3",
            batch,
            i64::try_from(after_line).unwrap_or(i64::MAX),
            i64::from(limit)
        )
        .fetch_all(&self.pool)
        .answer("read the jobs of a batch")
        .await?
        .into_iter()
        .map(JobStatus::try_from)
        .collect()
    }

    /// One job.
    pub async fn job(&self, id: Uuid) -> Result<Option<JobStatus>> {
        select_jobs!("WHERE jobs.id = $1", id)
            .fetch_optional(&self.pool)
            .answer("read a job")
            .await?
            .map(JobStatus::try_from)
            .transpose()
    }
}

struct JobRow {
    id: Uuid,
    batch_id: Uuid,
    line: i64,
    user_id: Option<String>,
    pool: String,
    image: String,
    points: Json<Points>,
    parameters: Json<Parameters>,
    state: JobState,
    attempt: i32,
    max_attempts: i32,
    epoch: i64,
    error_class: Option<ErrorClass>,
    error_message: Option<String>,
    created_at: Time,
    started_at: Option<Time>,
    finished_at: Option<Time>,
    iou: Option<f64>,
    best_step: Option<i32>,
    seconds: Option<f64>,
    artifacts: Option<Json<Vec<Artifact>>>,
}

impl TryFrom<JobRow> for JobStatus {
    type Error = LedgerError;

    fn try_from(row: JobRow) -> Result<Self> {
        let image = parse_image(row.id, &row.image)?;
        let artifacts = row.artifacts.map(|Json(artifacts)| artifacts).unwrap_or_default();
        let result = match (row.iou, row.best_step, row.seconds) {
            (Some(iou), Some(best_step), Some(seconds)) => Some(JobResult { artifacts, iou, best_step, seconds }),
            _ => None,
        };
        let error = row.error_class.zip(row.error_message).map(|(class, message)| JobFailure { class, message });
        Ok(Self {
            id: row.id,
            batch_id: row.batch_id,
            line: row.line.cast_unsigned(),
            user_id: row.user_id,
            pool: row.pool,
            image,
            points: row.points.0,
            parameters: row.parameters.0,
            state: row.state,
            attempt: row.attempt,
            max_attempts: row.max_attempts,
            epoch: row.epoch,
            error,
            created_at: row.created_at.0,
            started_at: row.started_at.map(|time| time.0),
            finished_at: row.finished_at.map(|time| time.0),
            result,
        })
    }
}

/// What was an image's place when it was stored must still be one. The error does not repeat it: it is logged.
pub(crate) fn parse_image(job_id: Uuid, text: &str) -> Result<S3Uri> {
    let reason = "its image has no place this version knows, expected s3://bucket/key";
    text.parse().map_err(|_: request::UriError| LedgerError::Unreadable { job_id, reason: reason.into() })
}
