use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest key S3 allows, in bytes.
const MAX_KEY_BYTES: usize = 1_024;

/// An object's place: `s3://bucket/key`. The key is taken as it stands, nothing in it is decoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct S3Uri {
    bucket: String,
    key: String,
}

/// Why a text is not an object's place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{uri:?} is not an object's place: {reason}; expected s3://bucket/key")]
pub struct UriError {
    uri: String,
    reason: &'static str,
}

impl S3Uri {
    /// An object's place from its two parts.
    pub fn new(bucket: &str, key: &str) -> Result<Self, UriError> {
        let refuse = |reason| UriError { uri: format!("s3://{bucket}/{key}").chars().take(200).collect(), reason };
        let is_bucket_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(is_bucket_char) {
            return Err(refuse("a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens"));
        }
        if key.is_empty() {
            return Err(refuse("the key is missing"));
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(refuse("a key has at most 1024 bytes"));
        }
        if key.chars().any(char::is_control) {
            return Err(refuse("the key has a control character"));
        }
        Ok(Self { bucket: bucket.into(), key: key.into() })
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The key within the bucket, without a leading slash.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl FromStr for S3Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let refuse = |reason| UriError { uri: text.chars().take(200).collect(), reason };
        let rest = text.strip_prefix("s3://").ok_or_else(|| refuse("it does not begin with s3://"))?;
        let (bucket, key) = rest.split_once('/').ok_or_else(|| refuse("the key is missing"))?;
        Self::new(bucket, key)
    }
}

impl TryFrom<String> for S3Uri {
    type Error = UriError;

    fn try_from(text: String) -> Result<Self, UriError> {
        text.parse()
    }
}

impl From<S3Uri> for String {
    fn from(uri: S3Uri) -> Self {
        uri.to_string()
    }
}

impl fmt::Display for S3Uri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "s3://{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_key_as_it_stands() {
        let uri: S3Uri = "s3://scans/a b/%2e+ü/../x.png".parse().expect("valid");
        assert_eq!((uri.bucket(), uri.key()), ("scans", "a b/%2e+ü/../x.png"));
        assert_eq!(uri.to_string(), "s3://scans/a b/%2e+ü/../x.png");
    }

    #[test]
    fn refuses_what_is_not_an_object() {
        for text in
            ["", "scan.png", "https://scans/x", "s3://", "s3://scans", "s3://scans/", "s3://A/x", "s3://ab/x", "s3://scans/\n"]
        {
            let error = text.parse::<S3Uri>().expect_err(text).to_string();
            assert!(error.contains("expected s3://bucket/key"), "{error}");
        }
        assert!(format!("s3://scans/{}", "x".repeat(1_025)).parse::<S3Uri>().is_err());
    }
}
