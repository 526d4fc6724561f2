//! The HTTP API. Its OpenAPI document is made from this code and served at /openapi.json.

mod access;
mod change;
mod errors;
mod from_ledger;
mod manifest;
mod observe;
mod read;
mod submit;
mod tokens;
pub mod types;

use std::sync::{Arc, OnceLock};

use axum::{
    Json, Router,
    extract::{FromRequest, FromRequestParts},
    http::{Method, StatusCode, Uri},
    middleware,
    routing::get,
};
use ledger::{Ledger, Scope};
use tokio::sync::{Notify, Semaphore};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::{errors::ApiError, manifest::Limits, read::workloads, submit::is_name};
use crate::{metrics::Metrics, workloads::Workloads};

/// What every request may use. Clones share it.
#[derive(Clone)]
pub struct Api {
    /// Empty until Postgres was reached for the first time: the process answers, with 503, from its first moment on.
    pub ledger: Arc<OnceLock<Ledger>>,
    /// Uploads at a time: each holds a connection to Postgres as long as it lasts, and reading must stay possible.
    pub uploads: Arc<Semaphore>,
    /// What a manifest may cost.
    pub limits: Limits,
    /// Whether who shows no token is served all the same, as the default project.
    pub without_tokens: bool,
    /// Wakes the relay: jobs were submitted or tried again.
    pub outbox_filled: Arc<Notify>,
    /// What waits and runs, as it was measured last.
    pub workloads: Workloads,
    /// What is counted.
    pub metrics: Metrics,
}

impl Api {
    fn ledger(&self) -> Result<&Ledger, ApiError> {
        self.ledger.get().ok_or_else(|| ApiError::unavailable("the dispatcher has not reached Postgres yet: try again"))
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "dotmask",
    description = "A few dots in, a mask out: batches of images, segmented by a pool of workers."
))]
struct Document;

/// Every route of the API by what a token must be able to do there, and its document.
pub fn router(api: Api) -> Router {
    let reading = OpenApiRouter::new()
        .routes(routes!(read::batch))
        .routes(routes!(read::jobs))
        .routes(routes!(read::scores))
        .routes(routes!(read::job))
        .routes(routes!(read::pools))
        .routes(routes!(read::pool));
    let submitting = OpenApiRouter::new()
        .routes(routes!(submit::submit_batch))
        .routes(routes!(change::cancel_batch))
        .routes(routes!(change::cancel_job))
        .routes(routes!(change::retry_batch))
        .routes(routes!(change::retry_job));
    let administering =
        OpenApiRouter::new().routes(routes!(tokens::list_tokens, tokens::create_token)).routes(routes!(tokens::revoke_token));
    let groups = [(Scope::Read, reading), (Scope::Submit, submitting), (Scope::Admin, administering)];
    let mut all = OpenApiRouter::with_openapi(Document::openapi());
    for (needs, mut group) in groups {
        access::describe(group.get_openapi_mut(), needs);
        let guard = access::Guard { api: api.clone(), needs };
        all = all.merge(group.route_layer(middleware::from_fn_with_state(guard, access::admit)));
    }
    let (router, document) = all.split_for_parts();
    let document = Arc::new(document);
    router.route("/openapi.json", get(async move || Json(document))).with_state(api)
}

/// The same, with answers to what no route answers, and with every request counted.
pub fn service(api: Api) -> Router {
    let metrics = api.metrics.clone();
    router(api)
        .fallback(async |uri: Uri| {
            ApiError::new(StatusCode::NOT_FOUND, format!("there is no {}; /openapi.json lists what there is", uri.path()))
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} cannot be asked for with {method}", uri.path()))
        })
        .layer(middleware::from_fn_with_state(metrics, observe::observe))
}

/// A body of JSON; a bad one is answered in JSON.
#[derive(FromRequest)]
#[from_request(via(Json), rejection(ApiError))]
struct JsonBody<T>(T);

/// A part of the path; a bad one is answered in JSON.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
struct Path<T>(T);

/// The query; a bad one is answered in JSON.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
struct Query<T>(T);
