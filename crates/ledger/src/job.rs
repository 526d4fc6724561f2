use jiff::Timestamp;
use request::{AllowList, Method, S3Uri, SegmentationRequest, Setting};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where a job is in its life. The last four are terminal: no worker and no loop leaves them; a user may have failed and
/// quarantined jobs tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "job_state", rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a worker; claimable once its `run_at` has come.
    Queued,
    /// A worker holds its lease.
    Running,
    /// Its result was accepted.
    Succeeded,
    /// A permanent error, or as many attempts as it may have.
    Failed,
    /// It or its batch was cancelled.
    Cancelled,
    /// Two workers were lost while they held it: it is kept away from the others.
    Quarantined,
}

impl JobState {
    /// Whether nothing changes any more by itself.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// In a word, for logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Quarantined => "quarantined",
        }
    }
}

/// What kind of error ended an attempt; the class alone decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "error_class", rename_all = "snake_case")]
pub enum ErrorClass {
    /// Another attempt may succeed: the network, a store, a full GPU.
    Transient,
    /// No attempt can succeed: no such image, dots outside of it.
    Permanent,
    /// The worker was told to stop; the job is as good as before.
    Shutdown,
}

impl ErrorClass {
    /// In a word, for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Why an attempt, or a job, failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFailure {
    /// Decides between another attempt and the end.
    pub class: ErrorClass,
    /// For the user: what, where, what to do.
    pub message: String,
}

/// What an object of a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "artifact_kind", rename_all = "snake_case")]
pub enum ArtifactKind {
    /// The mask at the image's size.
    Mask,
    /// The mask before the fine-tuning.
    InitialMask,
    /// The image with dots and contour, for people.
    Overlay,
    /// How the mask came about: parameters, losses, versions.
    Receipt,
}

/// An object that belongs to a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// What it is; a result has at most one of a kind for each object.
    pub kind: ArtifactKind,
    /// Which of the request's objects it shows, from 1; 0 where it is of the whole image.
    pub object: u32,
    /// Where it is.
    pub uri: S3Uri,
    /// SHA-256 of its bytes, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// What is known of an object's mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mask {
    /// Which of the request's objects it is of, from 1.
    pub object: u32,
    /// Intersection over union of the answer with the initial mask, before both are brought to the image's size.
    pub iou: f64,
    /// The fine-tuning step the mask was taken from, from 1; 0 where the answer is the initial mask itself.
    pub best_step: i32,
    /// How far a reviewer may trust it, 0 to 1.
    pub confidence: f64,
    /// What the user should know about it.
    pub warnings: Vec<String>,
}

/// What a method's mask is worth beside the truth, or why there is none: one row of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// How many points the method was given.
    pub setting: Setting,
    /// Which repeat of the drawing, from 0.
    pub repeat: u32,
    /// Which method.
    pub method: Method,
    /// Of the mask with the truth, at the image's size.
    pub dice: Option<f64>,
    /// Of the mask with the truth, at the image's size.
    pub iou: Option<f64>,
    /// The fine-tuning step the mask was taken from; 0 for the other methods.
    pub best_step: Option<i32>,
    /// How long the method took.
    pub seconds: Option<f64>,
    /// Of the mask with the initial mask.
    pub iou_with_initial: Option<f64>,
    /// The share of the points on whose side the mask is.
    pub agreement: Option<f64>,
    /// How far a reviewer may trust the mask, 0 to 1.
    pub confidence: Option<f64>,
    /// Dice as the paper's published code computes it, where the recipe is that code's.
    pub published_dice: Option<f64>,
    /// IoU as the paper's published code computes it, where the recipe is that code's.
    pub published_iou: Option<f64>,
    /// Why there is nothing to score.
    pub skipped: Option<String>,
}

/// What a successful attempt made. The objects are in S3 before the result is offered to the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct JobResult {
    /// The objects in S3.
    pub artifacts: Vec<Artifact>,
    /// One for each object of the request; none for an evaluation.
    pub masks: Vec<Mask>,
    /// An evaluation's rows. [`crate::Ledger::jobs`] leaves them out.
    pub scores: Vec<Score>,
    /// What the attempt took the worker, without its wait for the model, which others' jobs had meanwhile.
    pub seconds: f64,
}

/// SHA-256 of all that decides a result.
pub type ReuseKey = [u8; 32];

/// A finished result that another job may take over, and the claim that made it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReusableResult {
    /// The job that made it.
    pub job_id: Uuid,
    /// Under which of its claims.
    pub epoch: i64,
    /// What it made; without scores.
    pub result: JobResult,
}

/// The right to work on a job, fenced by its epoch: once the job is claimed again, this one is worth nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub job_id: Uuid,
    /// The batch it belongs to.
    pub batch_id: Uuid,
    /// The fencing token: grows by one with each claim of this job.
    pub epoch: i64,
    /// Who holds it.
    pub worker: String,
}

/// A job as a worker gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedJob {
    /// Needed for every later word about this job.
    pub lease: Lease,
    /// Which attempt this is, from 1.
    pub attempt: i32,
    /// How many it may have.
    pub max_attempts: i32,
    /// What to do.
    pub request: SegmentationRequest,
    /// Whose it is.
    pub project: String,
    /// What the project's requests may read.
    pub reads: AllowList,
    /// Whether it may take over a finished result, and lend its own.
    pub reuse: bool,
    /// The span that its batch came in with, as W3C's `traceparent`; none of a batch that came by a version without.
    pub traceparent: Option<String>,
}

/// The rows of one evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredJob {
    /// The job.
    pub id: Uuid,
    /// Its line in the manifest, from 1.
    pub line: u64,
    /// What was asked for.
    pub request: SegmentationRequest,
    /// By repeat and method.
    pub scores: Vec<Score>,
}

/// Whether the ledger took a worker's last word on a job.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalised {
    /// The word counts.
    Accepted,
    /// The lease had expired and was taken away, the job was cancelled, or another worker has it: nothing was changed.
    LeaseLost,
}

/// What the ledger knows of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStatus {
    /// The job.
    pub id: Uuid,
    /// Its batch.
    pub batch_id: Uuid,
    /// Its line in the manifest, from 1.
    pub line: u64,
    /// Which workers may have it.
    pub pool: String,
    /// What was asked for.
    pub request: SegmentationRequest,
    /// Where it is in its life.
    pub state: JobState,
    /// How many attempts were begun and charged.
    pub attempt: i32,
    /// How many it may have.
    pub max_attempts: i32,
    /// How often it was claimed.
    pub epoch: i64,
    /// Why it ended without a result (failed and quarantined jobs).
    pub error: Option<JobFailure>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When the latest attempt began.
    pub started_at: Option<Timestamp>,
    /// When it came to its terminal state.
    pub finished_at: Option<Timestamp>,
    /// What it made (succeeded jobs).
    pub result: Option<JobResult>,
}

/// What the reaper did with a job whose lease had expired.
#[derive(Debug, Clone, PartialEq)]
pub struct ReapedJob {
    /// The job.
    pub job_id: Uuid,
    /// Its batch.
    pub batch_id: Uuid,
    /// Its pool.
    pub pool: String,
    /// Who was lost.
    pub worker: String,
    /// The claim that was taken away.
    pub epoch: i64,
    /// `Queued`, `Quarantined`, or `Failed` when that was its last attempt.
    pub state: JobState,
    /// From the claim to now.
    pub seconds: f64,
}
