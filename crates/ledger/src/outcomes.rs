//! A worker's last word on a job. Each is one statement: the job's row is locked and its guard checked before all else, and when
//! that finds nothing, nothing is written.
//!
//! Each may be said again: a worker whose answer was lost hears [`Finalised::Accepted`] for the word that was taken.

use sqlx::types::Json;
use uuid::Uuid;

use crate::{ArtifactKind, ErrorClass, Finalised, JobFailure, JobResult, Lease, Ledger, Result, errors::Answer as _};

/// The longest message kept of an error, in characters.
const MAX_MESSAGE: usize = 2_000;

impl Ledger {
    /// running -> succeeded, with its result. The objects must be in their store before.
    pub async fn finalise(&self, lease: &Lease, result: &JobResult) -> Result<Finalised> {
        let kinds: Vec<ArtifactKind> = result.artifacts.iter().map(|artifact| artifact.kind).collect();
        let objects: Vec<i32> = result.artifacts.iter().map(|artifact| artifact.object.cast_signed()).collect();
        let uris: Vec<String> = result.artifacts.iter().map(|artifact| artifact.uri.to_string()).collect();
        let digests: Vec<String> = result.artifacts.iter().map(|artifact| artifact.sha256.clone()).collect();
        let sizes: Vec<i64> = result.artifacts.iter().map(|artifact| artifact.bytes.cast_signed()).collect();
        let changed = sqlx::query_scalar!(
            r#"
            WITH changed AS (
                UPDATE jobs SET state = 'succeeded', finished_at = now()
                WHERE id = $1 AND epoch = $2 AND state = 'running'
                RETURNING id, epoch
            ), ended AS (
                UPDATE attempts SET finished_at = now(), outcome = 'succeeded'
                FROM changed
                WHERE attempts.job_id = changed.id AND attempts.epoch = changed.epoch
            ), freed AS (
                DELETE FROM leases USING changed WHERE leases.job_id = changed.id
            ), made AS (
                INSERT INTO results (job_id, epoch, seconds) SELECT id, epoch, $3 FROM changed
            ), masked AS (
                INSERT INTO masks (job_id, object, iou, best_step, confidence, warnings)
                SELECT id, mask.*
                FROM changed, json_to_recordset($4::json) AS mask (
                    object integer, iou double precision, best_step integer, confidence double precision, warnings json
                )
            ), scored AS (
                INSERT INTO scores (
                    job_id, setting, repeat, method, dice, iou, best_step, seconds, iou_with_initial, agreement, confidence,
                    published_dice, published_iou, skipped
                )
                SELECT id, score.*
                FROM changed, json_to_recordset($5::json) AS score (
                    setting text, repeat integer, method method, dice double precision, iou double precision, best_step integer,
                    seconds double precision, iou_with_initial double precision, agreement double precision,
                    confidence double precision, published_dice double precision, published_iou double precision, skipped text
                )
            ), kept AS (
                INSERT INTO artifacts (job_id, kind, object, uri, sha256, bytes)
                SELECT id, artifact.*
                FROM changed, unnest($6::artifact_kind[], $7::integer[], $8::text[], $9::text[], $10::bigint[]) AS artifact
            )
            SELECT id FROM changed
            "#,
            lease.job_id,
            lease.epoch,
            result.seconds,
            Json(&result.masks) as _,
            Json(&result.scores) as _,
            kinds as Vec<ArtifactKind>,
            &objects,
            &uris,
            &digests,
            &sizes
        )
        .fetch_optional(&self.pool)
        .answer("accept a result")
        .await?;
        self.answer_to(lease, AttemptOutcome::Succeeded, changed).await
    }

    /// running -> queued after a back-off, or failed.
    ///
    /// A transient failure waits up to 5 s, 20 s, 80 s, 5 min (by chance down to the half of it) while the job may have another
    /// attempt: together they outlast a store that is away for some minutes. No token is owed for it: it would come before its
    /// time, and the reconciler sees what is due.
    /// `Shutdown` is [`Ledger::release`].
    pub async fn fail(&self, lease: &Lease, failure: &JobFailure) -> Result<Finalised> {
        let outcome = match failure.class {
            ErrorClass::Shutdown => return self.release(lease).await,
            ErrorClass::Transient => AttemptOutcome::Transient,
            ErrorClass::Permanent => AttemptOutcome::Permanent,
        };
        // Postgres keeps no NUL in a text.
        let message: String = failure.message.chars().filter(|&c| c != '\0').take(MAX_MESSAGE).collect();
        let changed = sqlx::query_scalar!(
            r#"
            WITH held AS MATERIALIZED (
                SELECT id, $3::error_class = 'transient' AND attempt < max_attempts AS again
                FROM jobs
                WHERE id = $1 AND epoch = $2 AND state = 'running'
                FOR UPDATE
            ), changed AS (
                UPDATE jobs SET
                    state = CASE WHEN again THEN 'queued' ELSE 'failed' END::job_state,
                    run_at = CASE
                        WHEN again THEN now() + make_interval(secs => least(300, 5 * 4 ^ (attempt - 1)) * (0.5 + 0.5 * random()))
                        ELSE run_at
                    END,
                    error_class = CASE WHEN NOT again THEN $3::error_class END,
                    error_message = CASE WHEN NOT again THEN $4 END,
                    finished_at = CASE WHEN NOT again THEN now() END
                FROM held
                WHERE jobs.id = held.id
                RETURNING jobs.id, epoch
            ), ended AS (
                UPDATE attempts SET finished_at = now(), outcome = $5, error = $4
                FROM changed
                WHERE attempts.job_id = changed.id AND attempts.epoch = changed.epoch
            ), freed AS (
                DELETE FROM leases USING changed WHERE leases.job_id = changed.id
            )
            SELECT id FROM changed
            "#,
            lease.job_id,
            lease.epoch,
            failure.class as ErrorClass,
            message,
            outcome as AttemptOutcome
        )
        .fetch_optional(&self.pool)
        .answer("record a failure")
        .await?;
        self.answer_to(lease, outcome, changed).await
    }

    /// running -> queued, the attempt not charged, with one token in the outbox.
    pub async fn release(&self, lease: &Lease) -> Result<Finalised> {
        let changed = sqlx::query_scalar!(
            r#"
            WITH changed AS (
                UPDATE jobs SET state = 'queued', attempt = attempt - 1
                WHERE id = $1 AND epoch = $2 AND state = 'running'
                RETURNING id, epoch, pool
            ), ended AS (
                UPDATE attempts SET finished_at = now(), outcome = 'released'
                FROM changed
                WHERE attempts.job_id = changed.id AND attempts.epoch = changed.epoch
            ), freed AS (
                DELETE FROM leases USING changed WHERE leases.job_id = changed.id
            ), owed AS (
                INSERT INTO outbox (pool, tokens) SELECT pool, 1 FROM changed
            )
            SELECT id FROM changed
            "#,
            lease.job_id,
            lease.epoch
        )
        .fetch_optional(&self.pool)
        .answer("release a job")
        .await?;
        self.answer_to(lease, AttemptOutcome::Released, changed).await
    }

    /// What a worker hears whose word changed the job or, where it changed nothing, had been taken before.
    async fn answer_to(&self, lease: &Lease, outcome: AttemptOutcome, changed: Option<Uuid>) -> Result<Finalised> {
        if changed.is_some() {
            return Ok(Finalised::Accepted);
        }
        let was_taken = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM attempts WHERE job_id = $1 AND epoch = $2 AND outcome = $3) AS "was_taken!""#,
            lease.job_id,
            lease.epoch,
            outcome as AttemptOutcome
        )
        .fetch_one(&self.pool)
        .answer("look up how an attempt ended")
        .await?;
        Ok(if was_taken { Finalised::Accepted } else { Finalised::LeaseLost })
    }
}

/// How an attempt ended by its worker's word.
#[derive(Debug, Clone, Copy, sqlx::Type)]
#[sqlx(type_name = "attempt_outcome", rename_all = "snake_case")]
enum AttemptOutcome {
    Succeeded,
    Transient,
    Permanent,
    Released,
}
