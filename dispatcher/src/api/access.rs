//! Who is let in, and to what.

use axum::{
    Extension,
    extract::{FromRequestParts, Request, State},
    http::{
        HeaderMap,
        header::{AUTHORIZATION, HOST, ORIGIN},
        request::Parts,
        uri::Authority,
    },
    middleware::Next,
    response::Response,
};
use ledger::{Caller, DEFAULT_PROJECT, Scope};
use utoipa::openapi::{
    ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder,
    path::Operation,
    security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};
use uuid::Uuid;

use super::{
    Api, ApiError, Path,
    manifest::discard,
    read::{no_batch, no_job},
};

/// What the document calls the way to be let in.
const SCHEME: &str = "token";
/// A token is 72 characters; nobody needs to look at what is far longer.
const MAX_TOKEN_BYTES: usize = 200;

/// Who may do what in an [`Api`], for the layer of a group of routes.
#[derive(Clone)]
pub struct Guard {
    /// Where tokens are looked up.
    pub api: Api,
    /// What the group's routes need.
    pub needs: Scope,
}

/// Lets a request pass whose token may do what its route needs, and tells the route who asks. Nothing of the body is read before.
pub async fn admit(State(guard): State<Guard>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    match identify(&guard, request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            Ok(next.run(request).await)
        }
        Err(refusal) => {
            // Who still sends does not read the answer.
            discard(request.into_body().into_data_stream()).await;
            Err(refusal)
        }
    }
}

async fn identify(Guard { api, needs }: &Guard, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let caller = match (given.next(), given.next()) {
        (None, _) if api.without_tokens => {
            check_local(headers)?;
            api.ledger()?.caller_without_token(DEFAULT_PROJECT).await?
        }
        (None, _) => return Err(ApiError::unauthorized("this needs a token: send the header Authorization: Bearer TOKEN")),
        (Some(value), None) => match value.to_str().ok().and_then(bearer) {
            Some(token) => api.ledger()?.authenticate(token).await?,
            None => None,
        },
        (Some(_), Some(_)) => None,
    };
    let caller = caller.ok_or_else(|| ApiError::unauthorized("the token is none, or it has expired or was revoked"))?;
    if caller.scope < *needs {
        return Err(ApiError::forbidden(*needs, caller.scope));
    }
    Ok(caller)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let is_token = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN_BYTES;
    is_token.then_some(token)
}

/// Of what reaches a loopback address, that which a web page in somebody's browser has sent there is refused: a browser names the page's
/// origin, or the host that the page's author has made to mean this machine.
fn check_local(headers: &HeaderMap) -> Result<(), ApiError> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let is_local = |host: Authority| {
        let name = host.host().trim_matches(['[', ']']).to_ascii_lowercase();
        name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    };
    if headers.contains_key(ORIGIN) || !host.is_none_or(is_local) {
        return Err(ApiError::unauthorized("without a token only programs of this machine are served, and no web page"));
    }
    Ok(())
}

/// A batch of the caller's project; that of another is as if it were not there.
pub struct OwnBatch(pub Uuid);

impl FromRequestParts<Api> for OwnBatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let (id, project) = asked(parts, api).await?;
        if api.ledger()?.owns_batch(&project, id).await? { Ok(Self(id)) } else { Err(no_batch(id)) }
    }
}

/// A job of the caller's project; that of another is as if it were not there.
pub struct OwnJob(pub Uuid);

impl FromRequestParts<Api> for OwnJob {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let (id, project) = asked(parts, api).await?;
        if api.ledger()?.owns_job(&project, id).await? { Ok(Self(id)) } else { Err(no_job(id)) }
    }
}

/// The id that the path names, and the project of who asks.
async fn asked(parts: &mut Parts, api: &Api) -> Result<(Uuid, String), ApiError> {
    let Path(id) = Path::from_request_parts(parts, api).await?;
    let caller = Extension::<Caller>::from_request_parts(parts, api).await;
    let Extension(caller) = caller.map_err(|_| ApiError::unauthorized("this needs a token"))?;
    Ok((id, caller.project))
}

/// Adds to a group's part of the document what its guard does.
pub fn describe(document: &mut OpenApi, needs: Scope) {
    let components = document.components.get_or_insert_default();
    let scheme = SecurityScheme::Http(Http::builder().scheme(HttpAuthScheme::Bearer).build());
    components.security_schemes.insert(SCHEME.into(), scheme.into());
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            describe_operation(operation, needs);
        }
    }
}

fn describe_operation(operation: &mut Operation, needs: Scope) {
    operation.security = Some(vec![SecurityRequirement::new(SCHEME, [needs.label()])]);
    for (status, what) in [("401", "No token, or one that is refused"), ("403", "The token may not do this")] {
        let body = ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("ErrorBody")))).build();
        let response = ResponseBuilder::new().description(what).content("application/json", body).build();
        operation.responses.responses.insert(status.into(), response.into());
    }
}
