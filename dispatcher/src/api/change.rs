use axum::{Json, extract::State};
use uuid::Uuid;

use super::{
    Api, ApiError, Path, Query,
    read::{no_batch, no_job},
    types::{Changed, ErrorBody, RetryQuery},
};

/// Cancels every job of a batch that has not ended. A worker that has one stops within a step. May be repeated.
#[utoipa::path(post, path = "/v1/batches/{id}/cancel", params(("id" = Uuid, Path, description = "The batch")), responses(
    (status = 200, body = Changed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn cancel_batch(State(api): State<Api>, Path(id): Path<Uuid>) -> Result<Json<Changed>, ApiError> {
    let ledger = api.ledger()?;
    let jobs = ledger.cancel_batch(id).await?;
    if jobs == 0 && ledger.batch(id).await?.is_none() {
        return Err(no_batch(id));
    }
    if jobs > 0 {
        tracing::info!(batch.id = %id, jobs, state = "cancelled", "batch cancelled");
    }
    Ok(Json(Changed { jobs }))
}

/// Cancels a job that has not ended. A worker that has it stops within a step. May be repeated.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", params(("id" = Uuid, Path, description = "The job")), responses(
    (status = 200, body = Changed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn cancel_job(State(api): State<Api>, Path(id): Path<Uuid>) -> Result<Json<Changed>, ApiError> {
    let ledger = api.ledger()?;
    let was_open = ledger.cancel_job(id).await?;
    changed_job(&api, id, was_open, "cancelled", "job cancelled").await
}

/// Tries the failed jobs of a batch again, and no others, with all their attempts before them. May be repeated.
#[utoipa::path(post, path = "/v1/batches/{id}/retry", params(("id" = Uuid, Path, description = "The batch"), RetryQuery), responses(
    (status = 200, body = Changed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn retry_batch(
    State(api): State<Api>,
    Path(id): Path<Uuid>,
    Query(query): Query<RetryQuery>,
) -> Result<Json<Changed>, ApiError> {
    let ledger = api.ledger()?;
    let jobs = ledger.retry_batch(id, query.quarantined).await?;
    if jobs == 0 && ledger.batch(id).await?.is_none() {
        return Err(no_batch(id));
    }
    api.outbox_filled.notify_one();
    if jobs > 0 {
        tracing::info!(batch.id = %id, jobs, state = "queued", "failed jobs of the batch queued again");
    }
    Ok(Json(Changed { jobs }))
}

/// Tries a failed or quarantined job again, with all its attempts before it. May be repeated.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", params(("id" = Uuid, Path, description = "The job")), responses(
    (status = 200, body = Changed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn retry_job(State(api): State<Api>, Path(id): Path<Uuid>) -> Result<Json<Changed>, ApiError> {
    let had_failed = api.ledger()?.retry_job(id).await?;
    api.outbox_filled.notify_one();
    changed_job(&api, id, had_failed, "queued", "job queued again").await
}

async fn changed_job(
    api: &Api,
    id: Uuid,
    is_changed: bool,
    state: &'static str,
    became: &'static str,
) -> Result<Json<Changed>, ApiError> {
    if is_changed {
        tracing::info!(job.id = %id, state, "{became}");
    } else if api.ledger()?.job(id).await?.is_none() {
        return Err(no_job(id));
    }
    Ok(Json(Changed { jobs: is_changed.into() }))
}
