use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// From how many days on a token may be refused, at most: a hundred years. What is to have no end is made without.
pub const MAX_TOKEN_DAYS: u32 = 36_500;

/// What a token may do; each may all that those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum TokenScope {
    /// See batches, jobs, results and pools.
    Read,
    /// Submit, cancel and retry.
    Submit,
    /// Make, list and revoke the project's tokens.
    Admin,
}

/// A token that is to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// For people: whose it is, and where it is used. 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    pub name: String,
    /// What it may do.
    pub scope: TokenScope,
    /// From how many days on it is refused, 1 to 36500; never where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 36500)]
    pub expires_in_days: Option<u32>,
}

impl NewToken {
    /// The same, for a project.
    pub fn of(self, project: String) -> ledger::NewToken {
        let lifetime = self.expires_in_days.map(|days| Duration::from_hours(24) * days);
        ledger::NewToken { project, name: self.name, scope: self.scope.into(), lifetime }
    }
}

/// A token that was made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MadeToken {
    /// What it is revoked by; no secret.
    pub id: Uuid,
    /// Its text, which is shown here and never again.
    pub token: String,
}

/// What is known of a token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// What it is revoked by; no secret.
    pub id: Uuid,
    /// For people: whose it is, and where it is used.
    pub name: String,
    /// What it may do.
    pub scope: TokenScope,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused; null where that is never.
    pub expires_at: Option<Timestamp>,
    /// Since when it is refused; null where it is not.
    pub revoked_at: Option<Timestamp>,
    /// When it was used last, to the minute; null where it never was.
    pub last_used_at: Option<Timestamp>,
}

/// A project's tokens.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// The newest first.
    pub tokens: Vec<Token>,
}
