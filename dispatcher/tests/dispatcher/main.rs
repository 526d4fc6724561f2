//! The dispatcher's program against real servers; each test starts its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod api;
mod change;
mod client;
mod evaluations;
mod injected;
mod manifests;
mod outages;
mod support;
mod tokens;
