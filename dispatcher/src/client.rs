//! The API from the other side: what `submit`, `watch` and the others ask, with the server's own types.

use std::{path::PathBuf, time::Duration};

use futures_util::TryFutureExt;
use reqwest::{Body, Certificate, Method, RequestBuilder, Response, StatusCode, Url, redirect::Policy};
use secrets::Secret;
use serde::{Serialize, de::DeserializeOwned};
use telemetry::{Backoff, Printable};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    Exit,
    api::types::{Batch, BatchQuery, Changed, ErrorBody, Jobs, JobsQuery, Pools, RetryQuery, Scores, SubmittedBatch},
    cli::ServerArgs,
};

/// A dispatcher that is just being started or restarted is waited for so long.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// A dispatcher on this network connects in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For every answer but an upload's, which takes as long as it takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For commands, which may change millions of jobs.
const CHANGE_TIMEOUT: Duration = Duration::from_mins(10);

/// Talks to one dispatcher.
pub struct Client {
    http: reqwest::Client,
    server: Url,
    token: Option<Secret>,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("cannot reach the dispatcher at {server}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        server: Url,
        /// What the network said.
        reason: String,
    },
    /// It answers that it cannot answer now.
    #[error("the dispatcher at {server} is not ready: {reason}")]
    NotReady {
        /// Which one.
        server: Url,
        /// What it waits for.
        reason: String,
    },
    /// It wants another token, or one at all.
    #[error("the dispatcher at {server} refuses: {reason}")]
    NotLetIn {
        /// Which one.
        server: Url,
        /// What it said.
        reason: String,
    },
    /// The request is wrong.
    #[error("{}", .0.error)]
    Refused(Box<ErrorBody>),
    /// The manifest cannot be read on this side.
    #[error("cannot read the manifest {}: {reason}", path.display())]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The upload began and its answer never came, or not to its end.
    #[error(
        "the connection to {server} broke before the upload was answered: {reason}; it is not known whether the batch was submitted"
    )]
    Interrupted {
        /// Which dispatcher.
        server: Url,
        /// What the network said.
        reason: String,
    },
    /// An answer that no dispatcher of this version gives.
    #[error("the dispatcher at {server} answered with an error ({status}): {reason}")]
    Broken {
        /// Which one.
        server: Url,
        /// The HTTP status.
        status: StatusCode,
        /// The body's text, shortened.
        reason: String,
    },
}

impl ClientError {
    /// What the process ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::NotReady { .. } => Exit::Unreachable,
            Self::NotLetIn { .. } | Self::Refused(_) | Self::Manifest { .. } => Exit::BadInput,
            Self::Interrupted { .. } | Self::Broken { .. } => Exit::Failed,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => {
                Some("is `dispatcher serve` running there? --server or DOTMASK_SERVER says where to look".into())
            }
            Self::NotReady { .. } => Some("its log says what it waits for, and so does /readyz beside its /metrics".into()),
            Self::NotLetIn { .. } => Some(
                "the token is read from DOTMASK_TOKEN, or from the file that --token-file or DOTMASK_TOKEN_FILE names; \
                 `dispatcher token create` makes one"
                    .into(),
            ),
            Self::Refused(body) if !body.lines.is_empty() => {
                Some("correct these lines and submit the whole manifest again".into())
            }
            Self::Refused(body) if !body.pools.is_empty() => Some(format!("--pool takes one of: {}", body.pools.join(", "))),
            _ => None,
        }
    }

    /// Whether the same request may work in a moment: every one is harmless to repeat.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotReady { .. } | Self::Interrupted { .. })
    }
}

impl Client {
    /// For the dispatcher there; nothing is sent yet.
    pub fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        // The API never sends its clients elsewhere, and who does must not get the token.
        args.check()?;
        let (server, token, authorities) = (args.url.clone(), args.token()?, args.trust.authorities()?);
        if token.is_some() && tls::is_plain_http(server.as_str()) {
            tls::warn_of_plain("dispatcher", server.as_str(), "reach it by https://, or the token is everybody's on the way");
        }
        let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(Policy::none());
        let http = match authorities.pem() {
            Some(pem) => http.tls_certs_merge(Certificate::from_pem_bundle(pem.as_bytes())?),
            None => http,
        };
        let http = http.build()?;
        Ok(Self { http, server, token })
    }

    /// Every pool.
    pub async fn pools(&self) -> Result<Pools, ClientError> {
        self.get("v1/pools", &()).await
    }

    /// A batch and its counts.
    pub async fn batch(&self, id: Uuid) -> Result<Batch, ClientError> {
        self.get(&format!("v1/batches/{id}"), &()).await
    }

    /// A page of a batch's jobs.
    pub async fn jobs(&self, batch: Uuid, query: &JobsQuery) -> Result<Jobs, ClientError> {
        self.get(&format!("v1/batches/{batch}/jobs"), query).await
    }

    /// A page of the scores of a batch's evaluations.
    pub async fn scores(&self, batch: Uuid, query: &JobsQuery) -> Result<Scores, ClientError> {
        self.get(&format!("v1/batches/{batch}/scores"), query).await
    }

    /// Sends a manifest as one batch. An answer that was lost may have been a success: repeated with the same key, it is the same
    /// batch.
    pub async fn submit(
        &self,
        query: &BatchQuery,
        key: &str,
        traceparent: Option<&str>,
        manifest: Body,
    ) -> Result<SubmittedBatch, ClientError> {
        let mut request = self.request(Method::POST, "v1/batches").query(query).header("idempotency-key", key).body(manifest);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let interrupted =
            |error: &reqwest::Error| ClientError::Interrupted { server: self.server.clone(), reason: innermost(error) };
        let response = request
            .send()
            .await
            .map_err(|error| if error.is_connect() { self.unreachable(&error) } else { interrupted(&error) })?;
        self.read(response, interrupted).await
    }

    /// Repeats `ask` with back-off while the dispatcher is away, at most for `patience`. `say` hears of it once, and once of its end.
    pub async fn patiently<T>(
        &self,
        patience: Duration,
        say: impl Fn(&str),
        mut ask: impl AsyncFnMut() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));
        // An upload may take longer than that before it breaks off: only what comes after the first failure counts.
        let mut failing_since = None;
        loop {
            let error = match ask().await {
                Err(error) if error.may_pass() && failing_since.is_none_or(|since: Instant| since.elapsed() < patience) => error,
                settled => {
                    if failing_since.is_some() && settled.is_ok() {
                        say("the dispatcher answers again");
                    }
                    return settled;
                }
            };
            if failing_since.is_none() {
                say(&format!("{}; trying again for {} s", Printable(&error), patience.as_secs()));
                failing_since = Some(Instant::now());
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Cancels what is open of a batch.
    pub async fn cancel_batch(&self, id: Uuid) -> Result<Changed, ClientError> {
        self.change(&format!("v1/batches/{id}/cancel"), &()).await
    }

    /// Cancels a job.
    pub async fn cancel_job(&self, id: Uuid) -> Result<Changed, ClientError> {
        self.change(&format!("v1/jobs/{id}/cancel"), &()).await
    }

    /// Tries what failed of a batch again.
    pub async fn retry_batch(&self, id: Uuid, query: &RetryQuery) -> Result<Changed, ClientError> {
        self.change(&format!("v1/batches/{id}/retry"), query).await
    }

    /// Tries a job again.
    pub async fn retry_job(&self, id: Uuid) -> Result<Changed, ClientError> {
        self.change(&format!("v1/jobs/{id}/retry"), &()).await
    }

    async fn change(&self, path: &str, query: &impl Serialize) -> Result<Changed, ClientError> {
        let request = self.request(Method::POST, path).query(query).timeout(CHANGE_TIMEOUT);
        let response = request.send().map_err(|error| self.unreachable(&error)).await?;
        self.read(response, |error| self.unreachable(error)).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, ClientError> {
        let request = self.request(Method::GET, path).query(query).timeout(ANSWER_TIMEOUT);
        let response = request.send().map_err(|error| self.unreachable(&error)).await?;
        self.read(response, |error| self.unreachable(error)).await
    }

    /// Reads an answer to its end; `broken_off` says what it means that there is none.
    async fn read<T: DeserializeOwned>(
        &self,
        response: Response,
        broken_off: impl FnOnce(&reqwest::Error) -> ClientError,
    ) -> Result<T, ClientError> {
        let status = response.status();
        let body = response.bytes().await.map_err(|error| broken_off(&error))?;
        let broken = || ClientError::Broken {
            server: self.server.clone(),
            status,
            reason: String::from_utf8_lossy(&body).chars().take(300).collect(),
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| broken());
        }
        let refusal: ErrorBody = serde_json::from_slice(&body).map_err(|_| broken())?;
        Err(match status {
            StatusCode::SERVICE_UNAVAILABLE => ClientError::NotReady { server: self.server.clone(), reason: refusal.error },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                ClientError::NotLetIn { server: self.server.clone(), reason: refusal.error }
            }
            status if status.is_client_error() => ClientError::Refused(Box::new(refusal)),
            _ => broken(),
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}/{path}", self.server.as_str().trim_end_matches('/')));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { server: self.server.clone(), reason: innermost(error) }
    }
}

/// The cause that says most: the layers above it only repeat the URL.
fn innermost(error: &reqwest::Error) -> String {
    if let Some(reason) = tls::explain(error) {
        return reason;
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.is_timeout() { "no answer in time".into() } else { cause.to_string() }
}
