use axum::{Extension, Json, extract::State};
use ledger::Caller;

use super::{
    Api, ApiError, Query,
    access::{OwnBatch, OwnJob},
    types::{Changed, ErrorBody, RetryQuery},
};

/// Cancels every job of a batch that has not ended. A worker that has one stops within a step. May be repeated.
#[utoipa::path(post, path = "/v1/batches/{id}/cancel", params(("id" = Uuid, Path, description = "The batch")), responses(
    (status = 200, body = Changed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn cancel_batch(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    OwnBatch(id): OwnBatch,
) -> Result<Json<Changed>, ApiError> {
    let jobs = api.ledger()?.cancel_batch(id).await?;
    if jobs > 0 {
        tracing::info!(batch.id = %id, jobs, state = "cancelled", project = caller.project, token.id = caller.token.map(display), "batch cancelled");
    }
    Ok(Json(Changed { jobs }))
}

/// Cancels a job that has not ended. A worker that has it stops within a step. May be repeated.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", params(("id" = Uuid, Path, description = "The job")), responses(
    (status = 200, body = Changed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn cancel_job(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    OwnJob(id): OwnJob,
) -> Result<Json<Changed>, ApiError> {
    let was_open = api.ledger()?.cancel_job(id).await?;
    if was_open {
        tracing::info!(job.id = %id, state = "cancelled", project = caller.project, token.id = caller.token.map(display), "job cancelled");
    }
    Ok(Json(Changed { jobs: was_open.into() }))
}

/// Tries the failed jobs of a batch again, and no others, with all their attempts before them. May be repeated.
#[utoipa::path(post, path = "/v1/batches/{id}/retry", params(("id" = Uuid, Path, description = "The batch"), RetryQuery), responses(
    (status = 200, body = Changed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 429, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
pub async fn retry_batch(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    OwnBatch(id): OwnBatch,
    Query(query): Query<RetryQuery>,
) -> Result<Json<Changed>, ApiError> {
    let jobs = api.ledger()?.retry_batch(id, query.quarantined).await?;
    api.outbox_filled.notify_one();
    if jobs > 0 {
        tracing::info!(batch.id = %id, jobs, state = "queued", project = caller.project, token.id = caller.token.map(display), "failed jobs of the batch queued again");
    }
    Ok(Json(Changed { jobs }))
}

/// Tries a failed or quarantined job again, with all its attempts before it. May be repeated.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", params(("id" = Uuid, Path, description = "The job")), responses(
    (status = 200, body = Changed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 429, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
pub async fn retry_job(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    OwnJob(id): OwnJob,
) -> Result<Json<Changed>, ApiError> {
    let had_failed = api.ledger()?.retry_job(id).await?;
    api.outbox_filled.notify_one();
    if had_failed {
        tracing::info!(job.id = %id, state = "queued", project = caller.project, token.id = caller.token.map(display), "job queued again");
    }
    Ok(Json(Changed { jobs: had_failed.into() }))
}
