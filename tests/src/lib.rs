//! dotmask as its users run it: private servers, and the binaries as processes that can be killed. What came of a batch is judged
//! by reading Postgres and the object store alone.

pub mod chaos;
mod collector;
mod images;
pub mod load;
pub mod observed;
pub mod pipelined;
pub mod quick;
mod quick_worker;
mod raw_amqp;
mod system;
mod verdict;
mod written;

pub use collector::{Collector, ExportedSpan};
pub use images::{jpeg_of_blobs, labels_of_blobs, png_of_blobs, png_that_begins_with, tiff16_of_blobs};
pub use quick_worker::{ModelTime, QuickWorker, line};
pub use raw_amqp::send_nested_headers;
pub use system::{BUCKET, POOL, Release, System, WorkerSettings, log_lines, repository};
pub use verdict::{check_every_job_has_one_result, check_quick_masks};
pub use written::Written;
