use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest key S3 allows, in bytes.
const MAX_KEY_BYTES: usize = 1_024;

/// An object's place: `s3://bucket/key`. The key is taken as it stands, nothing in it is decoded. Keys that stores and proxies are known to read
/// in different ways are refused: two names for one object, or one for two, would lead past what a project may read.
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
        if !is_bucket_name(bucket) {
            return Err(refuse(
                "a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens, begins and ends with a letter or digit, has no two \
                 dots in a row, and no user, port or query beside it",
            ));
        }
        if key.is_empty() {
            return Err(refuse("the key is missing"));
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(refuse("a key has at most 1024 bytes"));
        }
        if key.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')) {
            return Err(refuse("the key has a control character, or one that no listing can show; rename the object"));
        }
        if key.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(refuse(
                "the key has a part \".\" or \"..\", or an empty one (a slash at its beginning or end, or two in a row), which means different \
                 objects to different stores; rename the object",
            ));
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

fn is_bucket_name(bucket: &str) -> bool {
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=63).contains(&bucket.len())
        && bucket.chars().all(|c| is_end(c) || c == '-' || c == '.')
        && bucket.starts_with(is_end)
        && bucket.ends_with(is_end)
        && !bucket.contains("..")
}

impl FromStr for S3Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let refuse = |reason| UriError { uri: text.chars().take(200).collect(), reason };
        let rest = text.strip_prefix("s3://").ok_or_else(|| refuse(
                "it does not begin with s3://, in lower case, and nothing is read from elsewhere (no http://, file:// or s3a://); put the object \
                 into a bucket",
            ))?;
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
        for key in [
            "a.png",
            "a b/%2e+ü/x.png",
            "%2e%2e/x",
            "..%2fx",
            "a%2Fb",
            "100%",
            "a+b",
            "a?versionId=1#x",
            " a ",
            "...",
            "a/.../b",
            ".hidden",
            "a\\..\\b",
            "b\u{fc}",
            "bu\u{308}",
            "\u{2028}\u{202e}",
        ] {
            let text = format!("s3://scans/{key}");
            let uri: S3Uri = text.parse().expect(key);
            assert_eq!((uri.bucket(), uri.key(), uri.to_string()), ("scans", key, text.clone()));
        }
        let longest = format!("s3://scans/{}", "ü".repeat(512));
        assert_eq!(longest.parse::<S3Uri>().expect("1,024 bytes").key().len(), 1_024);
    }

    #[test]
    fn refuses_what_is_not_an_object_and_says_what_to_do() {
        let (elsewhere, bucket) = ("nothing is read from elsewhere", "a bucket's name has 3 to 63 lower-case letters");
        let (parts, control) = ("which means different objects to different stores; rename the object", "a control character");
        for (text, reason) in [
            ("", elsewhere),
            ("scan.png", elsewhere),
            ("http://scans/x", elsewhere),
            ("https://scans.s3.amazonaws.com/x?X-Amz-Signature=1", elsewhere),
            ("file:///etc/passwd", elsewhere),
            ("/etc/passwd", elsewhere),
            ("s3a://scans/x", elsewhere),
            ("S3://scans/x", elsewhere),
            (" s3://scans/x", elsewhere),
            ("s3:/scans/x", elsewhere),
            ("s3:///x", bucket),
            ("s3://A/x", bucket),
            ("s3://ab/x", bucket),
            ("s3://user@scans/x", bucket),
            ("s3://user:secret@scans/x", bucket),
            ("s3://scans:9000/x", bucket),
            ("s3://scans?versionId=1/x", bucket),
            ("s3://sc%61ns/x", bucket),
            ("s3://.../x", bucket),
            ("s3://a..b/x", bucket),
            ("s3://.scans/x", bucket),
            ("s3://scans-/x", bucket),
            ("s3://", "the key is missing"),
            ("s3://scans", "the key is missing"),
            ("s3://scans?versionId=1", "the key is missing"),
            ("s3://scans/", "the key is missing"),
            ("s3://scans//x", parts),
            ("s3://scans/a//x", parts),
            ("s3://scans/a/", parts),
            ("s3://scans/../x", parts),
            ("s3://scans/a/..", parts),
            ("s3://scans/./x", parts),
            ("s3://scans/a/./x", parts),
            ("s3://scans/\n", control),
            ("s3://scans/a\0b", control),
            ("s3://scans/a\u{7f}", control),
            ("s3://scans/a\u{85}b", control),
            ("s3://scans/a\u{ffff}", control),
        ] {
            let error = text.parse::<S3Uri>().expect_err(text).to_string();
            assert!(error.contains(reason) && error.ends_with("expected s3://bucket/key"), "{text}: {error}");
        }
        let error = format!("s3://scans/{}x", "ü".repeat(512)).parse::<S3Uri>().expect_err("1,025 bytes").to_string();
        assert!(error.contains("a key has at most 1024 bytes"), "{error}");
    }
}
