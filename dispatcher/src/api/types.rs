//! What goes over the wire, for the server and the client alike: a field changed here changes for both or for neither.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// What is said of a batch beside its manifest.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BatchQuery {
    /// The pool of every line that names none; may be left out where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Your own name for the batch: up to 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Jobs of a higher priority are taken before all others of their pool: -100 to 100, 0 if left out.
    #[serde(default)]
    pub priority: i16,
}

/// Which jobs of a batch.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobsQuery {
    /// Only lines after this one: the answer's `next_after`.
    #[serde(default)]
    pub after: u64,
    /// At most so many, 1 to 1000; 100 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A batch that was taken in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SubmittedBatch {
    /// Its id.
    pub id: Uuid,
    /// How many jobs it has.
    pub jobs: u64,
}

/// How many jobs of a batch are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// Waiting.
    pub queued: u64,
    /// With a worker.
    pub running: u64,
    /// Done.
    pub succeeded: u64,
    /// Ended by an error.
    pub failed: u64,
    /// Taken back.
    pub cancelled: u64,
    /// Kept away from the workers after two of them were lost.
    pub quarantined: u64,
}

impl Counts {
    /// Jobs in a terminal state.
    pub fn finished(&self) -> u64 {
        self.succeeded + self.unsuccessful()
    }

    /// Jobs in a terminal state without a result.
    pub fn unsuccessful(&self) -> u64 {
        self.failed + self.cancelled + self.quarantined
    }

    /// All jobs.
    pub fn total(&self) -> u64 {
        self.queued + self.running + self.finished()
    }
}

/// A batch and how far it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Batch {
    /// Its id.
    pub id: Uuid,
    /// The user's own name for it.
    pub name: Option<String>,
    /// The pool of every job that names none itself.
    pub pool: String,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its last job came to a terminal state.
    pub finished_at: Option<Timestamp>,
    /// Its jobs by state.
    pub counts: Counts,
}

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
    /// The objects.
    pub artifacts: Vec<Artifact>,
    /// Intersection over union of the chosen mask with the similarity's mask J.
    pub iou: f64,
    /// The fine-tuning step the mask was taken from, from 1; 0 where it is the initial mask J itself.
    pub best_step: i32,
    /// How long the attempt took.
    pub seconds: f64,
}

/// How a job is segmented.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Parameters {
    /// Fine-tuning steps on the one image.
    pub steps: u32,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// The method's other choices, by name.
    pub recipe: String,
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
    /// x and y in pixels from the upper left corner, then 1 for foreground or 0 for background.
    pub points: Vec<[f64; 3]>,
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

/// A set of workers that run the same checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// SHA-256 of the checkpoint all its workers run; null before the first one came.
    pub checkpoint_sha256: Option<String>,
    /// Jobs waiting, those in their back-off included.
    pub queued: u64,
    /// Jobs with a worker.
    pub running: u64,
}

/// Every pool.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Pools {
    /// By name.
    pub pools: Vec<Pool>,
}

/// A line of a manifest that is no request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub error: String,
}

/// Every answer that is not a success.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong, and what to do.
    pub error: String,
    /// How many lines of the manifest are bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad_lines: Option<u64>,
    /// The first thousand of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<BadLine>,
    /// The pools there are, where the one asked for is not one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
}
