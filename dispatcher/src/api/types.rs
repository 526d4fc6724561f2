//! What goes over the wire, for the server and the client alike: a field changed here changes for both or for neither.

mod jobs;
mod tokens;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

pub use self::jobs::{
    Artifact, Evaluation, Job, JobError, JobObject, JobResult, JobState, Jobs, Mask, Parameters, Score, ScoredJob, Scores,
};
pub use self::tokens::{MAX_TOKEN_DAYS, MadeToken, NewToken, Token, TokenScope, Tokens};

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
    #[param(min_length = 1, max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    pub name: Option<String>,
    /// Jobs of a higher priority are taken before all others of their pool: -100 to 100, 0 if left out.
    #[serde(default)]
    #[param(minimum = -100, maximum = 100)]
    pub priority: i16,
    /// Whether its jobs may take over finished results of the same image, points, parameters and checkpoint from other such batches,
    /// in place of computing them again.
    // Not said where it is not wanted: a dispatcher of the version before does not know it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reuse: bool,
}

/// Which jobs of a batch are tried again.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RetryQuery {
    /// Those as well that took two workers down.
    #[serde(default)]
    pub quarantined: bool,
}

/// What a command has changed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// How many jobs; 0 where none was in a state that it applies to.
    pub jobs: u64,
}

/// Which jobs of a batch.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobsQuery {
    /// Only lines after this one: the answer's `next_after`.
    #[serde(default)]
    pub after: u64,
    /// At most so many, 1 to 1000 (200 of scores); 100 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1_000)]
    pub limit: Option<u32>,
}

/// A batch that was taken in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SubmittedBatch {
    /// Its id.
    pub id: Uuid,
    /// How many jobs it has.
    pub jobs: u64,
    /// False where the same submission came before: this is that batch, and nothing was added.
    // A dispatcher of the version before does not say it, and knows no other.
    #[serde(default = "yes")]
    pub is_new: bool,
}

fn yes() -> bool {
    true
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

    /// Jobs that wait or are with a worker.
    pub fn open(&self) -> u64 {
        self.queued + self.running
    }

    /// All jobs.
    pub fn total(&self) -> u64 {
        self.open() + self.finished()
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

/// What waits and runs in a pool, and what it takes: what an autoscaler needs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Workload {
    /// The pool's name.
    pub name: String,
    /// Jobs waiting, those in their back-off included.
    pub queued: i64,
    /// Jobs with a worker.
    pub running: i64,
    /// Workers that have at least one job.
    pub busy_workers: i64,
    /// What a job takes a worker, in seconds: the mean of the pool's newest results; 30 where there are none.
    pub job_seconds: f64,
    /// How long one worker alone would need for all that waits and runs, in seconds, rounded up.
    pub open_work_seconds: i64,
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
