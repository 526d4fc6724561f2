//! Dots on an image in, a mask out: SAM's self-similarity gives a first mask, and a hundred steps of fine-tuning SAM's image encoder
//! on that one image give the final one.
//!
//! The method is Shaharabany and Wolf, "Zero-Shot Medical Image Segmentation Based on Sparse Prompt Using Finetuned SAM" (MIDL 2024).
//! [`Segmenter::segment`] is the whole of it; [`request::Choices`] names what the paper leaves open, and [`Segmenter::answer`] gives the
//! methods it is compared with as well.
//!
//! Everything here is synchronous and local: no network, no queue, no runtime. A [`Segmenter`] owns its model and is used by one
//! thread at a time.

mod adam;
mod checkpoint;
mod compute;
mod confidence;
mod cuda;
mod embedded;
mod errors;
mod finetune;
mod grid;
mod loss;
mod memory;
mod native;
mod region;
pub mod sam;
mod sam_answers;
mod segmentation;
mod segmenter;
mod similarity;
mod stages;
mod super_clustering;
mod upsample;
mod warnings;

pub use checkpoint::{Checkpoint, CheckpointError, sha256};
pub use compute::{Activations, Compute, Device, Precision};
pub use cuda::{GpuMemory, GpuPeak, first_cuda_device, gpu_memory, peak_gpu_memory, reset_peak_gpu_memory};
pub use embedded::Embedded;
pub use errors::{SegmentError, SegmenterError};
pub use finetune::Step;
pub use sam::Kept;
pub use segmentation::{Seconds, Segmentation};
pub use segmenter::{Segmenter, set_threads, threads};
pub use stages::Stage;

/// This crate's version, for receipts.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
