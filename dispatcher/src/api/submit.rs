use std::{collections::BTreeSet, ops::RangeInclusive};

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_LENGTH},
};
use ledger::{Caller, NewBatch};
use tracing::{
    Instrument as _, Span,
    field::{Empty, display},
};

use super::{
    Api, ApiError, Query,
    manifest::{Manifest, Rules, too_large, unknown_pool},
    types::{BatchQuery, ErrorBody, SubmittedBatch},
};

/// The longest name a batch may have.
const MAX_NAME_CHARS: usize = 200;
/// A submission's own mark.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The trace a submission is part of, as <https://www.w3.org/TR/trace-context/> has it.
const TRACEPARENT: &str = "traceparent";
/// The longest one.
const MAX_KEY_BYTES: usize = 255;
/// The priorities a batch may have.
const PRIORITIES: RangeInclusive<i16> = -100..=100;

/// Submits a batch: every line becomes a job, or, if any line is bad, none does and each bad one is named.
///
/// A submission may be repeated: one of the same Idempotency-Key, or of the same name and content, is the same batch, answered with
/// 200 in place of 201.
#[utoipa::path(post, path = "/v1/batches",
    params(BatchQuery, ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = r"^[\x20-\x7e]+$", description =
        "The submission's own mark, 1 to 255 visible ASCII characters: repeated with it and the same lines, it is the same batch"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context that the batch and its jobs become part of")),
    request_body(content = String, content_type = "application/x-ndjson", description =
        "One JSON object a line: image (s3://bucket/key), and either points ([[x, y, 1 or 0], ...]), or objects ([{id, points}, ...]), \
        or for an evaluation truth (s3://bucket/key) with setting (\"3/3\"), repeats and seed, or with points; if wanted label, group, \
        methods; and for each id, pool, parameters, slice, window"),
    responses((status = 201, body = SubmittedBatch), (status = 200, body = SubmittedBatch), (status = 400, body = ErrorBody),
        (status = 408, body = ErrorBody), (status = 413, body = ErrorBody), (status = 422, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub async fn submit_batch(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<BatchQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<SubmittedBatch>), ApiError> {
    // Of the highest level, so that its ids are in the lines of every level.
    let span = tracing::error_span!("submit_batch", batch.id = Empty, trace.id = Empty);
    let sent = headers.get_all(TRACEPARENT).iter().map(|value| value.to_str().unwrap_or_default()).collect::<Vec<_>>();
    // Given twice it is malformed, and that is no reason to refuse the batch.
    telemetry::join_trace(&span, if let [traceparent] = *sent { Some(traceparent) } else { None });
    receive(api, caller, query, headers, body).instrument(span).await
}

async fn receive(
    api: Api,
    caller: Caller,
    query: BatchQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<SubmittedBatch>), ApiError> {
    let announced_bytes: Option<u64> = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced_bytes.is_some_and(|bytes| bytes > api.limits.manifest_bytes) {
        return Err(too_large(api.limits.manifest_bytes));
    }
    check(&query)?;
    let idempotency_key = idempotency_key(&headers)?;
    let ledger = api.ledger()?;
    let _place = api.uploads.try_acquire().map_err(|_| {
        ApiError::unavailable("as many manifests as this dispatcher takes at a time are being uploaded: try again")
    })?;
    let pools: BTreeSet<String> = ledger.pool_names().await?.into_iter().collect();
    let pool = choose_pool(query.pool, &pools)?;

    let BatchQuery { name, priority, reuse, .. } = query;
    let traceparent = telemetry::traceparent(&Span::current());
    let Caller { project, reads, scope: _, token } = caller;
    let batch = NewBatch { project: project.clone(), name, pool: pool.clone(), priority, idempotency_key, reuse, traceparent };
    let writer = ledger.begin_batch(batch).await?;
    let rules = Rules { pools, reads, limits: api.limits };
    let writer = Manifest::new(writer, rules).read(body).await.inspect_err(|_| api.metrics.record_refused())?;
    let batch = writer.commit().await?;
    Span::current().record("batch.id", display(batch.id));

    if !batch.is_new {
        tracing::info!(batch.jobs = batch.jobs, "batch submitted again, nothing was added");
        return Ok((StatusCode::OK, Json(batch.into())));
    }
    api.outbox_filled.notify_one();
    api.metrics.record_submitted(&pool, batch.jobs);
    tracing::info!(state = "queued", batch.jobs = batch.jobs, pool, project, token.id = token.map(display), "batch submitted");
    Ok((StatusCode::CREATED, Json(batch.into())))
}

fn check(query: &BatchQuery) -> Result<(), ApiError> {
    let refuse = |error: String| Err(ApiError::new(StatusCode::BAD_REQUEST, error));
    query.name.as_deref().map_or(Ok(()), check_name)?;
    if !PRIORITIES.contains(&query.priority) {
        return refuse(format!("priority is {}, expected {} to {}", query.priority, PRIORITIES.start(), PRIORITIES.end()));
    }
    Ok(())
}

/// Whether a name can be kept and shown.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

/// Refuses a name that could not be kept or shown.
pub fn check_name(name: &str) -> Result<(), ApiError> {
    if is_name(name) {
        return Ok(());
    }
    let error = format!("the name is not usable, expected 1 to {MAX_NAME_CHARS} characters and no control character");
    Err(ApiError::new(StatusCode::BAD_REQUEST, error))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    // A tab passes for text in a header.
    let is_visible = |key: &&str| key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let key = key.to_str().ok().filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len())).filter(is_visible);
    let refuse = || {
        let error = format!("the Idempotency-Key is not usable, expected 1 to {MAX_KEY_BYTES} visible ASCII characters");
        ApiError::new(StatusCode::BAD_REQUEST, error)
    };
    key.map(|key| Some(key.to_owned())).ok_or_else(refuse)
}

/// The pool asked for, or the only one there is.
fn choose_pool(asked: Option<String>, pools: &BTreeSet<String>) -> Result<String, ApiError> {
    let error = match (asked, pools.first()) {
        (Some(pool), _) if pools.contains(&pool) => return Ok(pool),
        (None, Some(only)) if pools.len() == 1 => return Ok(only.clone()),
        (Some(pool), _) => unknown_pool(&pool, pools),
        (None, _) => "which pool? there are several".into(),
    };
    let body = ErrorBody { error, pools: pools.iter().cloned().collect(), ..ErrorBody::default() };
    Err(ApiError::with_body(StatusCode::BAD_REQUEST, body))
}
