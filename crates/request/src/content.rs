use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The SHA-256 of a file's bytes, by which it is known again: 64 hexadecimal digits, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentSha256(String);

/// Why a text is no SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a SHA-256 in 64 hexadecimal digits, as sha256sum prints it")]
pub struct ContentSha256Error;

impl ContentSha256 {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContentSha256 {
    type Err = ContentSha256Error;

    fn from_str(text: &str) -> Result<Self, ContentSha256Error> {
        let is_sha256 = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_sha256 { Ok(Self(text.to_ascii_lowercase())) } else { Err(ContentSha256Error) }
    }
}

impl TryFrom<String> for ContentSha256 {
    type Error = ContentSha256Error;

    fn try_from(text: String) -> Result<Self, ContentSha256Error> {
        text.parse()
    }
}

impl From<ContentSha256> for String {
    fn from(sha256: ContentSha256) -> Self {
        sha256.0
    }
}

impl fmt::Display for ContentSha256 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
