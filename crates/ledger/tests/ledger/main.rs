//! The ledger against a real Postgres; each test starts its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod claims;
mod connection;
mod counts;
mod faults;
mod fixture;
mod outbox;
mod outcomes;
mod reaper;
mod submit;
