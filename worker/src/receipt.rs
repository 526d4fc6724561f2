//! What was done to which image with which model: enough to do it again and to trust it.

use images::DecodedImage;
use ledger::Score;
use request::{Object, Parameters, Points, View};
use segmenter::{Seconds, Segmentation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The content of `receipt.json`. It names no object of the store, no user and nothing out of the image's own metadata.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {
    /// The program's version.
    pub version: &'static str,
    /// The image it was made of.
    pub image: ImageFacts,
    /// What of the file was the picture: slice and window, where they were asked for.
    pub view: View,
    /// SHA-256 of the checkpoint's file.
    pub checkpoint_sha256: String,
    /// `cpu` or `cuda`, and the precision where it is not fp32: `cuda bf16`.
    pub device: String,
    /// Whether activations were `kept` for the backward pass, or `recomputed` to save memory, which changes no mask; absent where no mask was
    /// computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activations: Option<&'static str>,
    /// Steps, learning rate, recipe and choices.
    pub parameters: Parameters,
    /// What was segmented; absent for an evaluation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<SegmentedObject>,
    /// What was compared; absent where masks were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluated>,
    /// Whose masks these are, where they were taken over and not computed: the figures are that job's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reused_from: Option<ReusedFrom>,
    /// Wall-clock time by stage. The upload of this file is not in it, nor what comes after.
    pub seconds: StageSeconds,
    /// Which job it was; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobIdentity>,
}

/// An object and its mask.
#[derive(Debug, Clone, Serialize)]
pub struct SegmentedObject {
    /// The user's own name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The dots, `[x, y, label]` in the image's pixels.
    pub points: Points,
    /// What the method found.
    #[serde(flatten)]
    pub figures: Figures,
}

impl SegmentedObject {
    /// An object as it was asked for, and what came of it.
    pub fn new(object: &Object, segmentation: &Segmentation) -> Self {
        Self { id: object.id.clone(), points: object.points.clone(), figures: segmentation.into() }
    }
}

/// A comparison of methods with a truth.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluated {
    /// SHA-256 of the truth's file.
    pub truth_sha256: String,
    /// What the object store called this content of the truth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth_etag: Option<String>,
    /// Which of its labels; absent for all but 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<u32>,
    /// What the points were drawn by; absent where they were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The points, where they were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points: Option<Points>,
    /// A row for each repeat and method.
    pub rows: Vec<Score>,
}

/// The figures of one run of the method.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figures {
    /// Each step's loss.
    pub losses: Vec<f64>,
    /// Each step's IoU with the initial mask.
    pub ious: Vec<f64>,
    /// The step whose prediction is the mask, from 1; 0 where the mask is the initial mask.
    pub best_step: u32,
    /// That step's IoU with the initial mask.
    pub iou: f64,
    /// The share of the dots on whose side the mask is.
    pub agreement: f64,
    /// How far a reviewer may trust the mask, 0 to 1.
    pub confidence: f64,
    /// What the user should know about this result.
    pub warnings: Vec<String>,
}

impl From<&Segmentation> for Figures {
    fn from(segmentation: &Segmentation) -> Self {
        let Segmentation { best_step, iou, agreement, confidence, .. } = *segmentation;
        let Segmentation { losses, ious, warnings, .. } = segmentation.clone();
        Self { losses, ious, best_step, iou, agreement, confidence, warnings }
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
    /// `png`, `jpeg`, `tiff`, `bmp`, `nifti` or `dicom`.
    pub format: &'static str,
    /// What the object store called this content of the object; absent where it came from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

impl From<&DecodedImage> for ImageFacts {
    fn from(DecodedImage { rgb, sha256, format }: &DecodedImage) -> Self {
        Self { sha256: sha256.clone(), width: rgb.width(), height: rgb.height(), format, etag: None }
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

/// The job that computed masks which another one has taken over.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ReusedFrom {
    /// The job.
    pub job: Uuid,
    /// The claim of it that made them.
    pub epoch: i64,
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
    /// The first forward pass and the initial masks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed: Option<f64>,
    /// The steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finetune: Option<f64>,
    /// The answers to the image's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upsample: Option<f64>,
    /// All methods of an evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluate: Option<f64>,
    /// The pictures to PNG.
    pub encode: f64,
}

impl StageSeconds {
    /// What the model took for all objects of an image.
    pub fn of_model(segmentations: &[Segmentation]) -> Self {
        let sum = |of: fn(&Seconds) -> f64| Some(segmentations.iter().map(|segmentation| of(&segmentation.seconds)).sum());
        let (embed, finetune) = (sum(|seconds| seconds.embed), sum(|seconds| seconds.finetune));
        Self { embed, finetune, upsample: sum(|seconds| seconds.upsample), ..Self::default() }
    }

    /// All stages together.
    pub fn total(&self) -> f64 {
        let Self { fetch, decode, queue, embed, finetune, upsample, evaluate, encode } = *self;
        let model: f64 = [fetch, queue, embed, finetune, upsample, evaluate].into_iter().flatten().sum();
        decode + encode + model
    }
}
