use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use request::S3Uri;

/// What S3 says of temporary credentials that are no longer good, with the status of a bad request.
const TOKEN_CODES: [&str; 3] = ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"];

/// Why an object could not be read or written. The text names the object or bucket and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// No object has this key.
    #[error("there is no object {uri}; check the bucket and the key")]
    NotFound {
        /// The object's place.
        uri: String,
    },
    /// There is no such bucket.
    #[error("there is no bucket {bucket}; create it, or check the endpoint and the region")]
    NoBucket {
        /// The bucket's name.
        bucket: String,
    },
    /// The store refuses these credentials, or they may not do this.
    #[error("the store refuses access to {place} ({code}); check the credentials and the bucket's policy")]
    Denied {
        /// The object's place or the bucket.
        place: String,
        /// The store's own word for it.
        code: String,
    },
    /// The object is larger than the caller takes.
    #[error("{uri} has more than {limit} bytes, the most that is taken")]
    TooLarge {
        /// The object's place.
        uri: String,
        /// The most that the caller takes, in bytes.
        limit: u64,
    },
    /// A folder holds more than the caller takes.
    #[error("{folder} has more than {limit} objects, the most that is taken; name a smaller folder")]
    TooMany {
        /// The bucket and what the keys begin with.
        folder: String,
        /// The most that the caller takes.
        limit: usize,
    },
    /// The store refuses the request itself.
    #[error("the store refuses the request for {place}: {reason}")]
    Refused {
        /// The object's place or the bucket.
        place: String,
        /// The store's own words.
        reason: String,
    },
    /// The store could not be reached, was too slow, or failed inside.
    #[error("the store failed to serve {place}: {reason}; check the endpoint and the network, then try again")]
    Unavailable {
        /// The object's place or the bucket.
        place: String,
        /// What was seen.
        reason: String,
    },
}

impl ObjectsError {
    /// Whether the same request may succeed later. Denied ones may: credentials expire and are renewed, and they say nothing about
    /// the object.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Denied { .. })
    }

    pub(crate) fn object<E: ProvideErrorMetadata + Error + 'static>(uri: &S3Uri, error: SdkError<E>) -> Self {
        match Refusal::of(error) {
            Ok(refusal) if refusal.code == "NoSuchBucket" => Self::NoBucket { bucket: uri.bucket().into() },
            Ok(refusal) if refusal.code == "NoSuchKey" || refusal.status == 404 => Self::NotFound { uri: uri.to_string() },
            outcome => Self::other(uri.to_string(), outcome),
        }
    }

    pub(crate) fn bucket<E: ProvideErrorMetadata + Error + 'static>(bucket: &str, error: SdkError<E>) -> Self {
        match Refusal::of(error) {
            Ok(Refusal { status: 404, .. }) => Self::NoBucket { bucket: bucket.into() },
            outcome => Self::other(bucket.into(), outcome),
        }
    }

    fn other(place: String, outcome: Result<Refusal, String>) -> Self {
        match outcome {
            Ok(Refusal { status, code, .. }) if matches!(status, 401 | 403) || TOKEN_CODES.contains(&code.as_str()) => {
                Self::Denied { place, code }
            }
            // The named one is a slow upload, which S3 gives the status of a bad request.
            Ok(Refusal { reason, status, code }) if matches!(status, 408 | 429 | 500..) || code == "RequestTimeout" => {
                Self::Unavailable { place, reason }
            }
            Ok(Refusal { reason, .. }) => Self::Refused { place, reason },
            Err(reason) => Self::Unavailable { place, reason },
        }
    }
}

/// The store's answer when it is an error.
struct Refusal {
    status: u16,
    /// S3's name for the error; the status where an answer without a body has none.
    code: String,
    reason: String,
}

impl Refusal {
    /// The store's answer, or why there is none.
    fn of<E: ProvideErrorMetadata + Error + 'static>(error: SdkError<E>) -> Result<Self, String> {
        let SdkError::ServiceError(answer) = error else { return Err(describe(&error)) };
        let status = answer.raw().status().as_u16();
        let code = answer.err().code().map_or_else(|| format!("status {status}"), Into::into);
        let reason = match answer.err().message() {
            Some(message) => format!("{code}: {message}"),
            None => code.clone(),
        };
        Ok(Self { status, code, reason })
    }
}

/// An error with its causes, each once: "dispatch failure" alone says nothing.
pub(crate) fn describe(error: &(dyn Error + 'static)) -> String {
    if let Some(reason) = tls::explain(error) {
        return reason;
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
