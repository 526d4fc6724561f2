//! A worker's last word on a job. Each is one statement: the job's row is locked and its guard checked before all else, and when
//! that finds nothing, nothing is written.
//!
//! Each may be said again: a worker whose answer was lost hears [`Finalised::Accepted`] for the word that was taken.

use std::slice;

use serde::Serialize;
use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use crate::{
    ErrorClass, Finalised, JobFailure, JobResult, Lease, Ledger, Result,
    errors::Answer as _,
    together::{Answers, everyones},
};

/// The longest message kept of an error, in characters.
const MAX_MESSAGE: usize = 2_000;

impl Ledger {
    /// running -> succeeded, with its result. The objects must be in their store before. Calls that come while one is under way go together in one
    /// statement.
    pub async fn finalise(&self, lease: &Lease, result: &JobResult) -> Result<Finalised> {
        let success = Success { job_id: lease.job_id, epoch: lease.epoch, result: result.clone() };
        let pool = self.pool.clone();
        self.results.call(success, move |successes| finalise_all(pool.clone(), successes)).await
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

    async fn answer_to(&self, lease: &Lease, outcome: AttemptOutcome, changed: Option<Uuid>) -> Result<Finalised> {
        match changed {
            Some(_) => Ok(Finalised::Accepted),
            None => answer_to(&self.pool, lease.job_id, lease.epoch, outcome).await,
        }
    }
}

/// A claim that has come to a result.
#[derive(Debug)]
pub(crate) struct Success {
    job_id: Uuid,
    epoch: i64,
    result: JobResult,
}

/// A row of a result beside the claim it is of.
#[derive(Serialize)]
struct OfClaim<'a, T> {
    job_id: Uuid,
    epoch: i64,
    #[serde(flatten)]
    row: &'a T,
}

/// A claim whose result was accepted.
struct Accepted {
    job_id: Uuid,
    epoch: i64,
}

/// The statement for the claims that are given as ids, epochs and seconds. Arrays Postgres plans anew at each call, and that takes longer than one result:
/// for one job they are single values.
macro_rules! finalise {
    ($given:tt, $jobs:expr, $epochs:expr, $seconds:expr, $masks:expr, $scores:expr, $artifacts:expr) => {
        sqlx::query_as!(
            Accepted,
            r#"
        WITH held AS MATERIALIZED (
            SELECT id, given.seconds
            FROM "# + $given + r#" AS given (job_id, epoch, seconds)
            JOIN jobs ON jobs.id = given.job_id
            WHERE jobs.epoch = given.epoch AND state = 'running'
            -- In the order in which a batch is cancelled: nobody waits for the other in a circle.
            ORDER BY id
            FOR UPDATE OF jobs
        ), changed AS (
            UPDATE jobs SET state = 'succeeded', finished_at = now()
            FROM held
            WHERE jobs.id = held.id
            RETURNING jobs.id AS job_id, epoch, seconds
        ), ended AS (
            UPDATE attempts SET finished_at = now(), outcome = 'succeeded'
            FROM changed
            WHERE attempts.job_id = changed.job_id AND attempts.epoch = changed.epoch
        ), freed AS (
            DELETE FROM leases USING changed WHERE leases.job_id = changed.job_id
        ), made AS (
            INSERT INTO results (job_id, epoch, seconds) SELECT job_id, epoch, seconds FROM changed
        ), masked AS (
            INSERT INTO masks (job_id, object, iou, best_step, confidence, warnings)
            SELECT job_id, object, mask.iou, mask.best_step, confidence, warnings
            FROM changed JOIN json_to_recordset($4::json) AS mask (
                job_id uuid, epoch bigint, object integer, iou double precision, best_step integer, confidence double precision, warnings json
            ) USING (job_id, epoch)
        ), scored AS (
            INSERT INTO scores (
                job_id, setting, repeat, method, dice, iou, best_step, seconds, iou_with_initial, agreement, confidence,
                published_dice, published_iou, skipped
            )
            SELECT
                job_id, setting, repeat, method, dice, iou, best_step, score.seconds, iou_with_initial, agreement, confidence,
                published_dice, published_iou, skipped
            FROM changed JOIN json_to_recordset($5::json) AS score (
                job_id uuid, epoch bigint, setting text, repeat integer, method method, dice double precision, iou double precision,
                best_step integer, seconds double precision, iou_with_initial double precision, agreement double precision,
                confidence double precision, published_dice double precision, published_iou double precision, skipped text
            ) USING (job_id, epoch)
        ), kept AS (
            INSERT INTO artifacts (job_id, kind, object, uri, sha256, bytes)
            SELECT job_id, kind, object, uri, sha256, bytes
            FROM changed JOIN json_to_recordset($6::json) AS artifact (
                job_id uuid, epoch bigint, kind artifact_kind, object integer, uri text, sha256 text, bytes bigint
            ) USING (job_id, epoch)
        )
        SELECT job_id, epoch FROM changed
        "#,
            $jobs,
            $epochs,
            $seconds,
            $masks as _,
            $scores as _,
            $artifacts as _
        )
    };
}

async fn finalise_all(pool: PgPool, successes: Vec<Success>) -> Answers<Finalised> {
    match finalise_together(&pool, &successes).await {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(error) if successes.len() == 1 || error.is_transient() => everyones(error, successes.len()),
        // One that cannot be stored, and nothing says which: the others are not to suffer for it.
        Err(_) => {
            let mut answers = Vec::new();
            for success in &successes {
                answers.push(finalise_together(&pool, slice::from_ref(success)).await.map(|answers| answers[0]));
            }
            answers
        }
    }
}

/// All of them, or by an error none.
async fn finalise_together(pool: &PgPool, successes: &[Success]) -> Result<Vec<Finalised>> {
    let jobs: Vec<Uuid> = successes.iter().map(|success| success.job_id).collect();
    let epochs: Vec<i64> = successes.iter().map(|success| success.epoch).collect();
    let seconds: Vec<f64> = successes.iter().map(|success| success.result.seconds).collect();
    let masks = Json(of_claims(successes, |result| &result.masks));
    let scores = Json(of_claims(successes, |result| &result.scores));
    let artifacts = Json(of_claims(successes, |result| &result.artifacts));
    let changed = if let ([job], [epoch], [seconds]) = (&*jobs, &*epochs, &*seconds) {
        let changed = finalise!("(SELECT $1::uuid, $2::bigint, $3::float8)", job, epoch, seconds, masks, scores, artifacts);
        changed.fetch_all(pool).answer("accept a result").await?
    } else {
        let changed =
            finalise!("unnest($1::uuid[], $2::bigint[], $3::float8[])", &jobs, &epochs, &seconds, masks, scores, artifacts);
        changed.fetch_all(pool).answer("accept results").await?
    };
    let mut answers = Vec::new();
    for success in successes {
        answers.push(if changed.iter().any(|claim| claim.job_id == success.job_id && claim.epoch == success.epoch) {
            Finalised::Accepted
        } else {
            answer_to(pool, success.job_id, success.epoch, AttemptOutcome::Succeeded).await?
        });
    }
    Ok(answers)
}

/// The rows of all results, each with its claim.
fn of_claims<T>(successes: &[Success], rows: fn(&JobResult) -> &Vec<T>) -> Vec<OfClaim<'_, T>> {
    let mut all = Vec::new();
    for &Success { job_id, epoch, ref result } in successes {
        all.extend(rows(result).iter().map(|row| OfClaim { job_id, epoch, row }));
    }
    all
}

/// What a worker hears whose word changed nothing: it may have been taken before.
async fn answer_to(pool: &PgPool, job: Uuid, epoch: i64, outcome: AttemptOutcome) -> Result<Finalised> {
    let was_taken = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM attempts WHERE job_id = $1 AND epoch = $2 AND outcome = $3) AS "was_taken!""#,
        job,
        epoch,
        outcome as AttemptOutcome
    )
    .fetch_one(pool)
    .answer("look up how an attempt ended")
    .await?;
    Ok(if was_taken { Finalised::Accepted } else { Finalised::LeaseLost })
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
