//! Logs, traces, metrics, health and the patience of both binaries: one way for each.
//!
//! Nothing here knows what a job is. A binary calls [`start`], makes a [`Catalogue`] and a [`Health`], serves [`routes`] with
//! [`serve`], stops when [`termination`] says so, and meets a server that is away with [`retry_until_ready`] or an [`Outage`].

mod errors;
mod health;
mod http;
mod logs;
mod metrics;
mod outage;
mod printable;
mod traces;

pub use errors::TelemetryError;
pub use health::Health;
pub use http::{routes, serve, termination};
pub use logs::LogFormat;
pub use metrics::{Catalogue, SECONDS};
pub use outage::{Backoff, Outage, retry_until_ready};
pub use printable::Printable;
pub use traces::{Service, Traces, annotate, children_ended, join_trace, mark_failed, start, traceparent, traceparent_to_send};
