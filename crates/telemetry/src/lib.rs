//! Logs, metrics, health and the patience of both binaries: one way for each.
//!
//! Nothing here knows what a job is. A binary calls [`init_logs`], makes a [`Catalogue`] and a [`Health`], serves [`routes`] with
//! [`serve`], stops when [`termination`] says so, and meets a server that is away with [`retry_until_ready`] or an [`Outage`].

mod health;
mod http;
mod logs;
mod metrics;
mod outage;

pub use health::Health;
pub use http::{routes, serve, termination};
pub use logs::{LogFormat, LogsError, init_logs};
pub use metrics::{Catalogue, SECONDS};
pub use outage::{Backoff, Outage, retry_until_ready};
