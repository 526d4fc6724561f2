use std::time::Duration;

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::{
    Client,
    config::{Builder, RequestChecksumCalculation, ResponseChecksumValidation},
    primitives::ByteStream,
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_types::base64;
use bytes::{Bytes, BytesMut};
use request::S3Uri;
use sha2::{Digest as _, Sha256};

use crate::{ObjectsConfig, ObjectsError, errors::describe};

/// The first attempt and the retries, within the operation's time limit.
pub(crate) const ATTEMPTS: u32 = 3;
/// What is set aside for a body on the word of its announced length, in bytes; more grows as it arrives.
const MAX_RESERVED: u64 = 64 << 20;

/// An object as it was when it was read.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// All of it.
    pub bytes: Bytes,
    /// What the store calls this content of the object (`ETag`), if it says so.
    pub etag: Option<String>,
}

/// A client of one object store. Clones share its connections.
#[derive(Clone)]
pub struct Objects {
    pub(crate) client: Client,
    pub(crate) read_timeout: Duration,
    body_timeout: Duration,
    operation_timeout: Duration,
}

impl Objects {
    /// Makes a client; nothing is sent to the store until the first request. Credentials come from the SDK's chain: the
    /// environment, the profile files, then the roles that Kubernetes, ECS and EC2 lend.
    pub async fn connect(config: &ObjectsConfig) -> Self {
        let mut trusted = TrustStore::default();
        if let Some(pem) = config.authorities.pem() {
            trusted = trusted.with_pem_certificate(pem);
        }
        let tls = TlsContext::builder().with_trust_store(trusted).build().expect("its authorities have been read once");
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls)
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(config.connect_timeout)
            .read_timeout(config.read_timeout)
            .operation_attempt_timeout(config.attempt_timeout)
            .operation_timeout(config.operation_timeout)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http)
            .region(Region::new(config.region.clone()))
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
        if let Some(endpoint) = &config.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        // Not every store knows the newer checksums: what is written says its SHA-256 alone, which others ignore. What is read is
        // compared with the one that the store tells, if it does.
        let store = Builder::from(&loader.load().await)
            .force_path_style(config.path_style)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenSupported)
            .build();
        Self {
            client: Client::from_conf(store),
            read_timeout: config.read_timeout,
            body_timeout: config.attempt_timeout,
            operation_timeout: config.operation_timeout,
        }
    }

    /// Reads a whole object of at most `limit_bytes` bytes.
    pub async fn get(&self, uri: &S3Uri, limit_bytes: u64) -> Result<Bytes, ObjectsError> {
        self.fetch(uri, limit_bytes).await.map(|object| object.bytes)
    }

    /// The same, with the tag that tells it from what else was or will be there. All bytes are out of one answer of the store: of an object that is
    /// replaced meanwhile never a part of the old one and a part of the new.
    pub async fn fetch(&self, uri: &S3Uri, limit_bytes: u64) -> Result<Fetched, ObjectsError> {
        let whole = self.get_whole(uri, limit_bytes);
        let limit = self.operation_timeout;
        tokio::time::timeout(limit, whole).await.unwrap_or_else(|_| Err(not_read_within(uri, limit)))
    }

    /// The client's own limits and retries end with an answer's head, so what breaks off after it is asked for again here.
    async fn get_whole(&self, uri: &S3Uri, limit_bytes: u64) -> Result<Fetched, ObjectsError> {
        let mut attempt = 1;
        loop {
            let request = self.client.get_object().bucket(uri.bucket()).key(uri.key());
            let object = request.send().await.map_err(|error| ObjectsError::object(uri, error))?;
            let announced = object.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
            if announced > limit_bytes {
                return Err(too_large(uri, limit_bytes));
            }
            let body = tokio::time::timeout(self.body_timeout, read(uri, object.body, announced, limit_bytes));
            match body.await.unwrap_or_else(|_| Err(not_read_within(uri, self.body_timeout))) {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => attempt += 1,
                outcome => {
                    let etag = object.e_tag.map(|etag| etag.trim_matches('"').to_owned());
                    return outcome.map(|bytes| Fetched { bytes, etag });
                }
            }
        }
    }

    /// Writes a whole object, replacing what was there. Its SHA-256 goes with it, so that a store that knows of it refuses a body that was
    /// changed on the way.
    pub async fn put(&self, uri: &S3Uri, body: Bytes, content_type: &str) -> Result<(), ObjectsError> {
        let request = self.client.put_object().bucket(uri.bucket()).key(uri.key());
        let checksum = base64::encode(Sha256::digest(&body));
        let request = request.content_type(content_type).checksum_sha256(checksum).body(ByteStream::from(body));
        request.send().await.map(drop).map_err(|error| ObjectsError::object(uri, error))
    }

    /// The keys that begin with `prefix`, in the store's order; more than `limit` are refused.
    pub async fn list(&self, bucket: &str, prefix: &str, limit: usize) -> Result<Vec<String>, ObjectsError> {
        let mut keys = Vec::new();
        let mut next = None;
        loop {
            let request = self.client.list_objects_v2().bucket(bucket).prefix(prefix).set_continuation_token(next);
            let page = request.send().await.map_err(|error| ObjectsError::bucket(bucket, error))?;
            keys.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
            if keys.len() > limit {
                return Err(ObjectsError::TooMany { folder: format!("s3://{bucket}/{prefix}"), limit });
            }
            next = page.next_continuation_token.filter(|_| page.is_truncated == Some(true));
            if next.is_none() {
                return Ok(keys);
            }
        }
    }

    /// Checks that a bucket exists and the credentials open it.
    pub async fn check(&self, bucket: &str) -> Result<(), ObjectsError> {
        let answer = self.client.head_bucket().bucket(bucket).send().await;
        answer.map(drop).map_err(|error| ObjectsError::bucket(bucket, error))
    }
}

/// Reads the body, counting: the announced length can be missing, or a lie.
async fn read(uri: &S3Uri, mut body: ByteStream, announced: u64, limit: u64) -> Result<Bytes, ObjectsError> {
    let mut bytes = BytesMut::with_capacity(announced.min(MAX_RESERVED) as usize);
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| ObjectsError::Unavailable { place: uri.to_string(), reason: describe(&error) })?;
        if (bytes.len() + part.len()) as u64 > limit {
            return Err(too_large(uri, limit));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.freeze())
}

pub(crate) fn not_read_within(uri: &S3Uri, limit: Duration) -> ObjectsError {
    ObjectsError::Unavailable { place: uri.to_string(), reason: format!("the object was not read within {limit:?}") }
}

pub(crate) fn too_large(uri: &S3Uri, limit: u64) -> ObjectsError {
    ObjectsError::TooLarge { uri: uri.to_string(), limit }
}
