//! TLS to the servers: whom we trust, what a failure means, and where there is none.
//!
//! The connections themselves are made by the drivers of each server, all of them with rustls.

mod authorities;
mod failure;
mod plain;

pub use authorities::{Authorities, AuthoritiesError};
pub use failure::explain;
pub use plain::{is_loopback, is_plain_http, warn_of_plain};
