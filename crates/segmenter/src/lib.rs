//! Dots on an image in, a mask out: SAM's self-similarity gives a first mask, and a hundred steps of fine-tuning SAM's image encoder
//! on that one image give the final one.
//!
//! The method is Shaharabany and Wolf, "Zero-Shot Medical Image Segmentation Based on Sparse Prompt Using Finetuned SAM" (MIDL 2024).
//! [`Segmenter::segment`] is the whole of it; [`request::Recipe`] names the choices the paper leaves open.
//!
//! Everything here is synchronous and local: no network, no queue, no runtime. A [`Segmenter`] owns its model and is used by one
//! thread at a time.

mod adam;
mod checkpoint;
mod cuda;
mod errors;
mod finetune;
mod image;
mod recipe;
pub mod sam;
mod scores;
mod segmenter;
mod similarity;
mod upsample;

pub use checkpoint::{Checkpoint, CheckpointError, sha256};
pub use errors::{SegmentError, SegmenterError};
pub use image::{DecodedImage, ImageError, ImageLimits, decode_image};
pub use scores::{dice, iou};
pub use segmenter::{Device, Seconds, Segmentation, Segmenter, StepReport, set_threads};

/// This crate's version, for receipts.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
