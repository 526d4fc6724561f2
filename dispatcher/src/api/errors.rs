use axum::{
    Json,
    extract::rejection::{JsonRejection, PathRejection, QueryRejection},
    http::{
        HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use ledger::{LedgerError, Scope};

use super::types::ErrorBody;

/// How long a client is asked to wait when a server of ours is away.
const RETRY_AFTER_SECONDS: u32 = 2;

/// An answer that is not a success: always JSON with an `error`.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    // Boxed: an error is rare, and its room would be taken in every result.
    body: Box<ErrorBody>,
}

impl ApiError {
    /// An answer with that status and text.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self::with_body(status, ErrorBody { error: error.into(), ..ErrorBody::default() })
    }

    /// An answer with more than a text.
    pub fn with_body(status: StatusCode, body: ErrorBody) -> Self {
        Self { status, body: Box::new(body) }
    }

    /// 503: nothing was changed, and the same request may work in a moment.
    pub fn unavailable(error: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    /// 401: nobody knows who asks.
    pub fn unauthorized(error: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error)
    }

    /// 403: who asks is known, and may not.
    pub fn forbidden(needs: Scope, has: Scope) -> Self {
        let error = format!("this needs a token of the scope {}, yours has the scope {}", needs.label(), has.label());
        Self::new(StatusCode::FORBIDDEN, error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
            }
            StatusCode::UNAUTHORIZED => {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"dotmask\""));
            }
            _ => {}
        }
        response
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::EmptyBatch => {
                Self::new(StatusCode::BAD_REQUEST, "the manifest is empty: expected one JSON object a line")
            }
            error @ LedgerError::KeyOfAnotherBatch { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            error @ LedgerError::TooManyWaiting { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string()),
            LedgerError::NotMigrated { .. } => Self::unavailable(
                "the database has no tables of this version yet: run `dispatcher migrate`, or serve with --migrate",
            ),
            error if error.is_transient() => {
                // The census says once that Postgres is away; every request in the meantime would repeat it.
                tracing::debug!(%error, "request refused");
                Self::unavailable("Postgres does not answer at the moment: try again")
            }
            error => {
                tracing::error!(%error, "request failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the dispatcher failed to handle the request; its log says why")
            }
        }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}
