//! The ledger against a real Postgres; each test starts its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ageing;
mod cancelling;
mod claims;
mod connection;
mod faults;
mod fixture;
mod housekeeping;
mod life;
mod outbox;
mod outcomes;
mod projects;
mod reaper;
mod retrying;
mod reuse;
mod roles;
mod submit;
mod tls;
mod together;
mod tokens;
mod workload;
