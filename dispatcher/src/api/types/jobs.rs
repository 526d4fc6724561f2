use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Where a job is in its life; the last four are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// A worker has it.
    Running,
    /// Its result was accepted.
    Succeeded,
    /// A permanent error, or as many attempts as it may have.
    Failed,
    /// Its batch was cancelled.
    Cancelled,
    /// Two workers were lost while they had it.
    Quarantined,
}

/// Why a job has no result.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobError {
    /// transient (every attempt met it) or permanent (no attempt can succeed).
    pub class: String,
    /// What, where, what to do.
    pub message: String,
}

/// An object of a result.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Artifact {
    /// mask, `initial_mask`, overlay or receipt.
    pub kind: String,
    /// Which of the job's objects it shows, from 1; 0 where it is of the whole image.
    pub object: u32,
    /// Where it is: `s3://bucket/key`.
    pub uri: String,
    /// SHA-256 of its bytes, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// What a successful job made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobResult {
    /// The files.
    pub artifacts: Vec<Artifact>,
    /// An evaluation's rows. Empty in a list of jobs: `/v1/batches/{id}/scores` lists them.
    pub scores: Vec<Score>,
    /// How long the attempt took.
    pub seconds: f64,
}

/// What is known of an object's mask.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Mask {
    /// Intersection over union of the mask with the similarity's mask J.
    pub iou: f64,
    /// The fine-tuning step the mask was taken from, from 1; 0 where it is the initial mask J itself.
    pub best_step: i32,
    /// How far it may be trusted, 0 to 1.
    pub confidence: f64,
    /// What should be known about it.
    pub warnings: Vec<String>,
}

/// A thing on the image, and its mask once there is one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobObject {
    /// The manifest's own name for it.
    pub id: Option<String>,
    /// x and y in pixels from the upper left corner, then 1 for foreground or 0 for background.
    pub points: Vec<[f64; 3]>,
    /// Its mask's figures (succeeded jobs).
    pub mask: Option<Mask>,
}

/// A comparison with a known truth.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Evaluation {
    /// Where the truth is: `s3://bucket/key`.
    pub truth: String,
    /// Its SHA-256, where only that content is taken.
    pub truth_sha256: Option<String>,
    /// Which of its labels; null for all but 0.
    pub label: Option<u32>,
    /// The block of the table it belongs to.
    pub group: Option<String>,
    /// The methods compared.
    pub methods: Vec<String>,
    /// The points, where they were given.
    pub points: Option<Vec<[f64; 3]>>,
    /// How many points are drawn, positive/negative, where they are drawn.
    pub setting: Option<String>,
    /// How often they are drawn.
    pub repeats: Option<u32>,
    /// What they are drawn by.
    pub seed: Option<u64>,
}

/// What a method's mask is worth beside the truth, or why there is none.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Score {
    /// How many points the method was given: positive/negative.
    pub setting: String,
    /// Which repeat of the drawing, from 0.
    pub repeat: u32,
    /// `sam_points`, `sam_mask`, `initial_mask`, `super_clustering`, untuned or finetuned.
    pub method: String,
    /// With the truth, at the image's size.
    pub dice: Option<f64>,
    /// With the truth, at the image's size.
    pub iou: Option<f64>,
    /// The fine-tuning step the mask was taken from.
    pub best_step: Option<i32>,
    /// How long the method took.
    pub seconds: Option<f64>,
    /// Of the mask with the initial mask.
    pub iou_with_initial: Option<f64>,
    /// The share of the points on whose side the mask is.
    pub agreement: Option<f64>,
    /// How far the mask may be trusted, 0 to 1.
    pub confidence: Option<f64>,
    /// As the paper's published code computes it, where the recipe is that code's.
    pub published_dice: Option<f64>,
    /// As the paper's published code computes it, where the recipe is that code's.
    pub published_iou: Option<f64>,
    /// Why there is nothing to score.
    pub skipped: Option<String>,
}

/// The rows of one evaluation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ScoredJob {
    /// The job.
    pub job_id: Uuid,
    /// Its line in the manifest, from 1.
    pub line: u64,
    /// The manifest's own id for it.
    pub user_id: Option<String>,
    /// The block of the table it belongs to.
    pub group: Option<String>,
    /// By repeat and method.
    pub scores: Vec<Score>,
}

/// Some of a batch's evaluations that have ended, by line.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Scores {
    /// The evaluations.
    pub jobs: Vec<ScoredJob>,
    /// What to ask for next with `after`; null when there are no more.
    pub next_after: Option<u64>,
}

/// How a job is segmented.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Parameters {
    /// Fine-tuning steps on the one image.
    pub steps: u32,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// The name of a set of the method's other choices.
    pub recipe: String,
    /// Each of them, by its name.
    #[schema(value_type = Object)]
    pub choices: serde_json::Value,
}

/// One image of a batch.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its id.
    pub id: Uuid,
    /// Its batch.
    pub batch_id: Uuid,
    /// Its line in the manifest, from 1.
    pub line: u64,
    /// The manifest's own id for it.
    pub user_id: Option<String>,
    /// Which workers may have it.
    pub pool: String,
    /// Where it is: `s3://bucket/key`.
    pub image: String,
    /// Its SHA-256, where only that content is taken.
    pub image_sha256: Option<String>,
    /// Which slice of a volume, from 0.
    pub slice: Option<u32>,
    /// Which values are shown: their centre and width.
    pub window: Option<[f64; 2]>,
    /// What is segmented; empty for an evaluation.
    pub objects: Vec<JobObject>,
    /// What is compared, where it is an evaluation.
    pub evaluation: Option<Evaluation>,
    /// How to segment.
    pub parameters: Parameters,
    /// Where it is in its life.
    pub state: JobState,
    /// How many attempts were begun and charged.
    pub attempt: i32,
    /// How many it may have.
    pub max_attempts: i32,
    /// Why it has no result (failed and quarantined jobs).
    pub error: Option<JobError>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When the latest attempt began.
    pub started_at: Option<Timestamp>,
    /// When it came to its terminal state.
    pub finished_at: Option<Timestamp>,
    /// What it made (succeeded jobs).
    pub result: Option<JobResult>,
}

/// Some jobs of a batch, by line.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Jobs {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// What to ask for next with `after`; null when there are no more.
    pub next_after: Option<u64>,
}
