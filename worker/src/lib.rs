//! The worker: segments images, for a person at a terminal (`segment`) or out of the queue (`run`), compares methods (`evaluate`), and
//! measures what an image costs (`bench`).
//!
//! A library, so that tests can put another [`engine::Engine`] in the model's place, and a load test another [`job::Work`] in the whole
//! job's; the binary is `main.rs`.

mod artifacts;
mod attempt;
mod bench;
pub mod cancellations;
mod checkpoint;
pub mod cli;
pub mod commands;
pub mod deletion_cost;
pub mod engine;
pub mod errors;
mod evaluate;
pub mod job;
pub mod lease;
pub mod metrics;
pub mod model;
mod model_time;
pub mod pull;
#[doc(hidden)]
pub mod readers;
mod receipt;
mod reuse;
pub mod store;
pub mod work;

pub use errors::Failure;
