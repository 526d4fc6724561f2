//! Objects in S3 and in stores that speak S3: read with a limit into memory or into a file, write, list with a limit, check a bucket. Every request has a time limit and a
//! few retries of its own; what still fails says whether another attempt later may succeed.
//!
//! Keys can name patients, so this crate logs nothing. An [`ObjectsError`]'s text holds the object's place, for the job's
//! owner; log it at debug level only.

mod client;
mod config;
mod download;
mod errors;

pub use client::{Fetched, Objects};
pub use config::ObjectsConfig;
pub use download::{Download, DownloadError};
pub use errors::ObjectsError;
