use request::SegmentationRequest;
use sqlx::types::Json;
use uuid::Uuid;

use crate::{
    Artifact, BatchStatus, Counts, ErrorClass, JobFailure, JobResult, JobState, JobStatus, Ledger, LedgerError, Mask, Result,
    Score, ScoredJob, errors::Answer as _, time::Time,
};

/// Selects [`JobRow`]s; the literal says which and in what order.
macro_rules! select_jobs {
    ($rest:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            JobRow,
            r#"
            SELECT
                jobs.id, batch_id, line, pool,
                request::text AS "request!",
                state AS "state: JobState",
                attempt, max_attempts, jobs.epoch,
                error_class AS "error_class: ErrorClass",
                error_message,
                created_at AS "created_at: Time",
                started_at AS "started_at: Time",
                finished_at AS "finished_at: Time",
                seconds AS "seconds?",
                (
                    SELECT json_agg(row_to_json(artifacts) ORDER BY object, kind) FROM artifacts WHERE artifacts.job_id = jobs.id
                ) AS "artifacts: Json<Vec<Artifact>>",
                (
                    SELECT json_agg(row_to_json(masks) ORDER BY object) FROM masks WHERE masks.job_id = jobs.id
                ) AS "masks: Json<Vec<Mask>>"
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

    /// Up to `limit` jobs of a batch, those with a line after `after_line`, by line. Without their scores, of which
    /// [`Ledger::scores`] has pages of its own.
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
        let row = select_jobs!("WHERE jobs.id = $1", id).fetch_optional(&self.pool).answer("read a job").await?;
        let Some(row) = row else { return Ok(None) };
        let mut job = JobStatus::try_from(row)?;
        if let Some(result) = &mut job.result {
            // Written with the result, and never changed.
            let scores = sqlx::query_scalar!(
                r#"
                SELECT json_agg(row_to_json(scores) ORDER BY repeat, method) AS "scores: Json<Vec<Score>>"
                FROM scores
                WHERE job_id = $1
                "#,
                id
            );
            let scores = scores.fetch_one(&self.pool).answer("read a job's scores").await?;
            result.scores = scores.map(|Json(scores)| scores).unwrap_or_default();
        }
        Ok(Some(job))
    }

    /// Up to `limit` jobs of a batch that have scores, those with a line after `after_line`, by line.
    pub async fn scores(&self, batch: Uuid, after_line: u64, limit: u32) -> Result<Vec<ScoredJob>> {
        let rows = sqlx::query!(
            r#"
            SELECT
                jobs.id, line,
                request::text AS "request!",
                (
                    SELECT json_agg(row_to_json(scores) ORDER BY repeat, method) FROM scores WHERE scores.job_id = jobs.id
                ) AS "scores!: Json<Vec<Score>>"
            FROM jobs
            WHERE batch_id = $1 AND line > $2 AND EXISTS (SELECT FROM scores WHERE scores.job_id = jobs.id)
            ORDER BY line
            LIMIT $3
            "#,
            batch,
            i64::try_from(after_line).unwrap_or(i64::MAX),
            i64::from(limit)
        )
        .fetch_all(&self.pool)
        .answer("read the scores of a batch")
        .await?;
        rows.into_iter()
            .map(|row| {
                let request = read_request(row.id, &row.request)?;
                Ok(ScoredJob { id: row.id, line: row.line.cast_unsigned(), request, scores: row.scores.0 })
            })
            .collect()
    }
}

struct JobRow {
    id: Uuid,
    batch_id: Uuid,
    line: i64,
    pool: String,
    request: String,
    state: JobState,
    attempt: i32,
    max_attempts: i32,
    epoch: i64,
    error_class: Option<ErrorClass>,
    error_message: Option<String>,
    created_at: Time,
    started_at: Option<Time>,
    finished_at: Option<Time>,
    seconds: Option<f64>,
    artifacts: Option<Json<Vec<Artifact>>>,
    masks: Option<Json<Vec<Mask>>>,
}

impl TryFrom<JobRow> for JobStatus {
    type Error = LedgerError;

    fn try_from(row: JobRow) -> Result<Self> {
        let request = read_request(row.id, &row.request)?;
        let artifacts = row.artifacts.map(|Json(artifacts)| artifacts).unwrap_or_default();
        let masks = row.masks.map(|Json(masks)| masks).unwrap_or_default();
        let result = row.seconds.map(|seconds| JobResult { artifacts, masks, scores: Vec::new(), seconds });
        let error = row.error_class.zip(row.error_message).map(|(class, message)| JobFailure { class, message });
        Ok(Self {
            id: row.id,
            batch_id: row.batch_id,
            line: row.line.cast_unsigned(),
            pool: row.pool,
            request,
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

/// What was a request when it was stored must still be one. The error repeats nothing of it, for it is logged.
pub(crate) fn read_request(job_id: Uuid, text: &str) -> Result<SegmentationRequest> {
    let unreadable = |error: serde_json::Error| {
        let reason = format!("its request is none that this version takes, up to its character {}", error.column());
        LedgerError::Unreadable { job_id, reason }
    };
    serde_json::from_str(text).map_err(unreadable)
}
