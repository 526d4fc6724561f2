//! What was done to which image with which model: enough to do it again and to trust it.

use request::{Parameters, Points};
use segmenter::{DecodedImage, Seconds, Segmentation};
use serde::Serialize;
use uuid::Uuid;

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The content of `receipt.json`. It names no object, no user and nothing out of the image's own metadata.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {
    /// The program's version.
    pub version: &'static str,
    /// The image it was made of.
    pub image: ImageFacts,
    /// SHA-256 of the checkpoint's file.
    pub checkpoint_sha256: String,
    /// `cpu` or `cuda`.
    pub device: String,
    /// Steps, learning rate and recipe.
    pub parameters: Parameters,
    /// The dots, `[x, y, label]` in the image's pixels.
    pub points: Points,
    /// What the method found.
    #[serde(flatten)]
    pub figures: Figures,
    /// Wall-clock time by stage. The upload of this file is not in it, nor what comes after.
    pub seconds: StageSeconds,
    /// Which job it was; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobIdentity>,
}

/// The figures of one run of the method.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Each step's loss.
    pub losses: Vec<f64>,
    /// Each step's IoU with the initial mask.
    pub ious: Vec<f64>,
    /// The step whose prediction is the mask, from 1; 0 where the mask is the initial mask.
    pub best_step: u32,
    /// That step's IoU with the initial mask.
    pub iou: f64,
    /// What the user should know about this result.
    pub warnings: Vec<String>,
}

impl From<&Segmentation> for Figures {
    fn from(segmentation: &Segmentation) -> Self {
        let Segmentation { losses, ious, best_step, iou, warnings, .. } = segmentation;
        Self { losses: losses.clone(), ious: ious.clone(), best_step: *best_step, iou: *iou, warnings: warnings.clone() }
    }
}

/// The image as it was read.
#[derive(Debug, Clone, Serialize)]
pub struct ImageFacts {
    /// SHA-256 of the file's bytes.
    pub sha256: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `png`, `jpeg` or `tiff`.
    pub format: &'static str,
}

impl From<&DecodedImage> for ImageFacts {
    fn from(DecodedImage { rgb, sha256, format }: &DecodedImage) -> Self {
        Self { sha256: sha256.clone(), width: rgb.width(), height: rgb.height(), format }
    }
}

/// One attempt at one job.
#[derive(Debug, Clone, Serialize)]
pub struct JobIdentity {
    /// The job.
    pub id: Uuid,
    /// Its batch.
    pub batch_id: Uuid,
    /// The claim's fencing number.
    pub epoch: i64,
    /// Who did it.
    pub worker: String,
}

/// Seconds by stage; a stage that did not take place is absent.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct StageSeconds {
    /// The image out of the object store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch: Option<f64>,
    /// Bytes to pixels.
    pub decode: f64,
    /// Waiting for the model, which does one image at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<f64>,
    /// The first forward pass and the initial mask.
    pub embed: f64,
    /// The steps.
    pub finetune: f64,
    /// The answer to the image's size.
    pub upsample: f64,
    /// The pictures to PNG.
    pub encode: f64,
}

impl From<Seconds> for StageSeconds {
    fn from(Seconds { embed, finetune, upsample }: Seconds) -> Self {
        Self { embed, finetune, upsample, ..Self::default() }
    }
}

impl StageSeconds {
    /// All stages together.
    pub fn total(&self) -> f64 {
        let Self { fetch, decode, queue, embed, finetune, upsample, encode } = self;
        fetch.unwrap_or_default() + decode + queue.unwrap_or_default() + embed + finetune + upsample + encode
    }
}
