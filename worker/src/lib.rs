//! The worker: segments images, for a person at a terminal (`segment`) or out of the queue (`run`), compares methods (`evaluate`), and
//! measures what an image costs (`bench`).
//!
//! A library, so that tests can put another [`engine::Engine`] in the model's place; the binary is `main.rs`.

mod artifacts;
mod bench;
mod cancellations;
mod checkpoint;
pub mod cli;
pub mod commands;
mod deletion_cost;
pub mod engine;
mod errors;
mod evaluate;
mod job;
mod lease;
mod metrics;
mod model;
mod model_time;
mod pull;
mod receipt;
mod reuse;
mod store;
mod work;

pub use errors::Failure;
