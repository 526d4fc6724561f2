use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use uuid::Uuid;

use super::{
    Api, ApiError, Path, Query,
    access::{OwnBatch, OwnJob},
    types::{Batch, ErrorBody, Job, Jobs, JobsQuery, Pools, ScoredJob, Scores, Workload},
};
use crate::workloads::Workloads;

/// Jobs in one answer where the client does not say.
const DEFAULT_LIMIT: u32 = 100;
/// Jobs in one answer at most: with a thousand points each, still some tens of megabytes.
const MAX_LIMIT: u32 = 1_000;
/// Evaluations in one answer at most: with 600 rows each, still some tens of megabytes.
const MAX_SCORES_LIMIT: u32 = 200;

/// A batch and its jobs by state.
#[utoipa::path(get, path = "/v1/batches/{id}", params(("id" = Uuid, Path, description = "The batch")), responses(
    (status = 200, body = Batch), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn batch(State(api): State<Api>, OwnBatch(id): OwnBatch) -> Result<Json<Batch>, ApiError> {
    let batch = api.ledger()?.batch(id).await?.ok_or_else(|| no_batch(id))?;
    Ok(Json(batch.into()))
}

/// A batch's jobs by line, a page at a time.
#[utoipa::path(get, path = "/v1/batches/{id}/jobs", params(("id" = Uuid, Path, description = "The batch"), JobsQuery), responses(
    (status = 200, body = Jobs), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn jobs(
    State(api): State<Api>,
    OwnBatch(id): OwnBatch,
    Query(query): Query<JobsQuery>,
) -> Result<Json<Jobs>, ApiError> {
    let limit = page_size(&query, MAX_LIMIT)?;
    let jobs: Vec<Job> = api.ledger()?.jobs(id, query.after, limit).await?.into_iter().map(Into::into).collect();
    let next_after = jobs.last().filter(|_| jobs.len() == limit as usize).map(|job| job.line);
    Ok(Json(Jobs { jobs, next_after }))
}

/// The scores of a batch's evaluations that have ended, by line, a page at a time.
#[utoipa::path(get, path = "/v1/batches/{id}/scores", params(("id" = Uuid, Path, description = "The batch"),
    ("after" = Option<u64>, Query, description = "Only lines after this one: the answer's `next_after`"),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "At most so many; 100 if left out")), responses((status = 200, body = Scores), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn scores(
    State(api): State<Api>,
    OwnBatch(id): OwnBatch,
    Query(query): Query<JobsQuery>,
) -> Result<Json<Scores>, ApiError> {
    let limit = page_size(&query, MAX_SCORES_LIMIT)?;
    let jobs: Vec<ScoredJob> = api.ledger()?.scores(id, query.after, limit).await?.into_iter().map(Into::into).collect();
    let next_after = jobs.last().filter(|_| jobs.len() == limit as usize).map(|job| job.line);
    Ok(Json(Scores { jobs, next_after }))
}

fn page_size(query: &JobsQuery, most: u32) -> Result<u32, ApiError> {
    let refuse = |error| Err(ApiError::new(StatusCode::BAD_REQUEST, error));
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=most).contains(&limit) {
        return refuse(format!("limit is {limit}, expected 1 to {most}"));
    }
    // As the document has it, whose numbers are signed.
    if query.after > i64::MAX as u64 {
        return refuse(format!("after is {}, expected at most {}", query.after, i64::MAX));
    }
    Ok(limit)
}

/// One job.
#[utoipa::path(get, path = "/v1/jobs/{id}", params(("id" = Uuid, Path, description = "The job")), responses(
    (status = 200, body = Job), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn job(State(api): State<Api>, OwnJob(id): OwnJob) -> Result<Json<Job>, ApiError> {
    let job = api.ledger()?.job(id).await?.ok_or_else(|| no_job(id))?;
    Ok(Json(job.into()))
}

/// Every pool with its open jobs.
#[utoipa::path(get, path = "/v1/pools", responses((status = 200, body = Pools), (status = 503, body = ErrorBody)))]
pub async fn pools(State(api): State<Api>) -> Result<Json<Pools>, ApiError> {
    let pools = api.ledger()?.pools().await?.into_iter().map(Into::into).collect();
    Ok(Json(Pools { pools }))
}

/// A pool's open work, for an autoscaler: as it was measured last, some seconds ago.
#[utoipa::path(get, path = "/v1/pools/{name}", params(("name" = String, Path, description = "The pool")), responses(
    (status = 200, body = Workload), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn pool(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<Workload>, ApiError> {
    measured(&api.workloads, &name)
}

/// The same on `/workloads/{pool}`, for an autoscaler: beside /metrics, which tells as much, and with no token.
pub fn workloads(workloads: Workloads) -> Router {
    Router::new().route("/workloads/{name}", get(async move |Path(name): Path<String>| measured(&workloads, &name)))
}

fn measured(workloads: &Workloads, pool: &str) -> Result<Json<Workload>, ApiError> {
    let not_measured = || ApiError::unavailable("the pools have not been measured for a while: try again");
    let measured = workloads.get().ok_or_else(not_measured)?;
    let no_pool = || ApiError::new(StatusCode::NOT_FOUND, "there is no such pool; /v1/pools lists what there is");
    let workload = measured.into_iter().find(|workload| workload.pool == pool).ok_or_else(no_pool)?;
    Ok(Json(workload.into()))
}

/// The answer to who names a batch that was never submitted.
pub fn no_batch(id: Uuid) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no batch {id}"))
}

/// The same of a job.
pub fn no_job(id: Uuid) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no job {id}"))
}
