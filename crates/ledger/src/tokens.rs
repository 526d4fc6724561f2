use std::time::Duration;

use jiff::Timestamp;
use request::AllowList;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{Ledger, LedgerError, Result, errors::Answer as _, projects::read_allow_list, time::Time};

/// What a token's text begins with, so that people and scanners for leaked secrets know one when they see it.
const PREFIX: &str = "dotmask_";

/// What a token may do; each scope may all that those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(type_name = "token_scope", rename_all = "snake_case")]
pub enum Scope {
    /// See the project's batches, jobs and results, and the pools.
    Read,
    /// Submit, cancel and retry.
    Submit,
    /// Make, list and revoke the project's tokens.
    Admin,
}

impl Scope {
    /// In a word, for answers and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
        }
    }
}

/// A token that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Whose batches it opens.
    pub project: String,
    /// For people: whose it is, and where it is used.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// How long it is good for; without end if none.
    pub lifetime: Option<Duration>,
}

/// What the ledger knows of a token; not its text, which it does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenStatus {
    /// Its id, which is no secret.
    pub id: Uuid,
    /// Whose batches it opens.
    pub project: String,
    /// For people: whose it is, and where it is used.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// Since when it is refused.
    pub revoked_at: Option<Timestamp>,
    /// To the minute.
    pub last_used_at: Option<Timestamp>,
}

/// Who asks, by the token that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The project.
    pub project: String,
    /// What the project's requests may read.
    pub reads: AllowList,
    /// What the caller may do.
    pub scope: Scope,
    /// The token; none where the caller was let in without one.
    pub token: Option<Uuid>,
}

impl Ledger {
    /// Makes a token. Its text is given here and never again: only its SHA-256 is kept.
    pub async fn create_token(&self, token: &NewToken) -> Result<(Uuid, String)> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| LedgerError::NoRandomness { reason: error.to_string() })?;
        let text = format!("{PREFIX}{}", hex::encode(secret));
        let (id, sha256) = (Uuid::now_v7(), Sha256::digest(&text));
        let made = sqlx::query!(
            "INSERT INTO tokens (id, project, name, scope, sha256, expires_at)
             SELECT $1, projects.name, $3, $4, $5, now() + make_interval(secs => $6) FROM projects WHERE projects.name = $2",
            id,
            token.project,
            token.name,
            token.scope as Scope,
            sha256.as_slice(),
            token.lifetime.map(|lifetime| lifetime.as_secs_f64())
        );
        match made.execute(&self.pool).answer("make a token").await?.rows_affected() {
            0 => Err(LedgerError::UnknownProject { name: token.project.chars().take(80).collect() }),
            _ => Ok((id, text)),
        }
    }

    /// The tokens of a project, or of all, the newest first; those that are refused by now as well.
    pub async fn tokens(&self, project: Option<&str>) -> Result<Vec<TokenStatus>> {
        let rows = sqlx::query!(
            r#"
            SELECT
                id, project, name, scope AS "scope: Scope",
                created_at AS "created_at: Time", expires_at AS "expires_at: Time",
                revoked_at AS "revoked_at: Time", last_used_at AS "last_used_at: Time"
            FROM tokens
            WHERE project = $1 OR $1 IS NULL
            ORDER BY id DESC
            "#,
            project
        );
        let rows = rows.fetch_all(&self.pool).answer("list the tokens").await?;
        Ok(rows
            .into_iter()
            .map(|row| TokenStatus {
                id: row.id,
                project: row.project,
                name: row.name,
                scope: row.scope,
                created_at: row.created_at.0,
                expires_at: row.expires_at.map(|time| time.0),
                revoked_at: row.revoked_at.map(|time| time.0),
                last_used_at: row.last_used_at.map(|time| time.0),
            })
            .collect())
    }

    /// Has a token refused from now on; false where the project, or any if none is named, has no such token. May be repeated.
    pub async fn revoke_token(&self, project: Option<&str>, id: Uuid) -> Result<bool> {
        let revoked = sqlx::query!(
            "UPDATE tokens SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 AND (project = $2 OR $2 IS NULL)",
            id,
            project
        );
        Ok(revoked.execute(&self.pool).answer("revoke a token").await?.rows_affected() == 1)
    }

    /// Whose token this is; none where it is none, or expired, or revoked.
    pub async fn authenticate(&self, token: &str) -> Result<Option<Caller>> {
        let sha256 = Sha256::digest(token);
        let row = sqlx::query!(
            r#"
            WITH good AS (
                SELECT id, project, scope, last_used_at FROM tokens
                WHERE sha256 = $1 AND revoked_at IS NULL AND (expires_at > now() OR expires_at IS NULL)
            ), noted AS (
                -- Once a minute: a script that asks all day long costs no write for each of its questions.
                UPDATE tokens SET last_used_at = now() FROM good
                WHERE tokens.id = good.id AND (good.last_used_at < now() - interval '1 minute' OR good.last_used_at IS NULL)
            )
            SELECT id, project, scope AS "scope: Scope", reads
            FROM good
            JOIN projects ON projects.name = project
            "#,
            sha256.as_slice()
        );
        let Some(row) = row.fetch_optional(&self.pool).answer("look up a token").await? else { return Ok(None) };
        let reads = read_allow_list(&row.reads)?;
        Ok(Some(Caller { project: row.project, reads, scope: row.scope, token: Some(row.id) }))
    }

    /// A project's caller without a token, who may do all; none where there is no such project.
    pub async fn caller_without_token(&self, project: &str) -> Result<Option<Caller>> {
        let reads = sqlx::query_scalar!("SELECT reads FROM projects WHERE name = $1", project);
        let Some(reads) = reads.fetch_optional(&self.pool).answer("look up a project").await? else { return Ok(None) };
        let reads = read_allow_list(&reads)?;
        Ok(Some(Caller { project: project.into(), reads, scope: Scope::Admin, token: None }))
    }
}
