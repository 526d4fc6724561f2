use axum::{Extension, Json, extract::State, http::StatusCode};
use ledger::Caller;
use uuid::Uuid;

use super::{
    Api, ApiError, JsonBody, Path,
    submit::check_name,
    types::{ErrorBody, MAX_TOKEN_DAYS, MadeToken, NewToken, Tokens},
};

/// The tokens of your project, the newest first, those that are refused by now as well. Their text is kept nowhere.
#[utoipa::path(get, path = "/v1/tokens", responses((status = 200, body = Tokens), (status = 503, body = ErrorBody)))]
pub async fn list_tokens(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Result<Json<Tokens>, ApiError> {
    let tokens = api.ledger()?.tokens(Some(&caller.project)).await?;
    Ok(Json(Tokens { tokens: tokens.into_iter().map(Into::into).collect() }))
}

/// Makes a token for your project. Its text is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", request_body = NewToken, responses((status = 201, body = MadeToken),
    (status = 400, body = ErrorBody), (status = 413, body = ErrorBody), (status = 415, body = ErrorBody), (status = 422, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
pub async fn create_token(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    JsonBody(wanted): JsonBody<NewToken>,
) -> Result<(StatusCode, Json<MadeToken>), ApiError> {
    check_name(&wanted.name)?;
    if wanted.expires_in_days.is_some_and(|days| !(1..=MAX_TOKEN_DAYS).contains(&days)) {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, format!("expires_in_days is not 1 to {MAX_TOKEN_DAYS}")));
    }
    let new = wanted.of(caller.project);
    let (id, token) = api.ledger()?.create_token(&new).await?;
    tracing::info!(made.id = %id, scope = new.scope.label(), project = new.project, token.id = caller.token.map(display), "token made");
    Ok((StatusCode::CREATED, Json(MadeToken { id, token })))
}

/// Has a token of your project refused from now on. May be repeated.
#[utoipa::path(delete, path = "/v1/tokens/{id}", params(("id" = Uuid, Path, description = "The token's id")), responses(
    (status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn revoke_token(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    if !api.ledger()?.revoke_token(Some(&caller.project), id).await? {
        return Err(ApiError::new(StatusCode::NOT_FOUND, format!("there is no token {id}")));
    }
    tracing::info!(revoked.id = %id, project = caller.project, token.id = caller.token.map(display), "token revoked");
    Ok(StatusCode::NO_CONTENT)
}
