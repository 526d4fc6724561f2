use jiff::Timestamp;
use uuid::Uuid;

use crate::DEFAULT_PROJECT;

/// What is said once for all jobs of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBatch {
    /// Whose it is.
    pub project: String,
    /// The user's own name for it.
    pub name: Option<String>,
    /// The pool of every job that names none itself.
    pub pool: String,
    /// Jobs of a higher priority are claimed before all others of their pool; 0 is the usual one.
    pub priority: i16,
    /// The submission's own mark: a second one with the same mark is not a second batch.
    pub idempotency_key: Option<String>,
    /// Whether its jobs may take over finished results of the same image, points, checkpoint and parameters, and lend theirs.
    pub reuse: bool,
    /// The span that its jobs continue, as W3C's `traceparent` of version 00.
    pub traceparent: Option<String>,
}

impl Default for NewBatch {
    /// Of the default project, and no pool.
    fn default() -> Self {
        Self {
            project: DEFAULT_PROJECT.into(),
            name: None,
            pool: String::new(),
            priority: 0,
            idempotency_key: None,
            reuse: false,
            traceparent: None,
        }
    }
}

/// A batch that is in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubmittedBatch {
    /// Its id.
    pub id: Uuid,
    /// How many jobs it has.
    pub jobs: u64,
    /// False where the same submission came before: this is that batch, and nothing was added.
    pub is_new: bool,
}

/// How many jobs of a batch are in each state. Counted, never stored: it cannot drift from the jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting.
    pub queued: u64,
    /// With a worker.
    pub running: u64,
    /// Done.
    pub succeeded: u64,
    /// Ended by an error.
    pub failed: u64,
    /// Taken back by the user.
    pub cancelled: u64,
    /// Kept away from the workers after two of them were lost.
    pub quarantined: u64,
}

impl Counts {
    /// All jobs.
    pub fn total(&self) -> u64 {
        self.open() + self.succeeded + self.failed + self.cancelled + self.quarantined
    }

    /// Jobs that are not in a terminal state.
    pub fn open(&self) -> u64 {
        self.queued + self.running
    }
}

/// What the ledger knows of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchStatus {
    /// The batch.
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

/// What the ledger knows of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// The checkpoint all its workers run; none before the first worker came.
    pub checkpoint_sha256: Option<String>,
    /// Jobs waiting, those in their back-off included.
    pub queued: u64,
    /// Jobs with a worker.
    pub running: u64,
}

/// Jobs that were passed over for so long that they are next now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgedJobs {
    /// Their pool.
    pub pool: String,
    /// The priority that nothing was served of.
    pub from_priority: i16,
    /// The highest priority that waits in the pool, which they have now.
    pub to_priority: i16,
    /// How many.
    pub jobs: i64,
}

/// What waits and runs in a pool, and what it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The pool's name.
    pub pool: String,
    /// Jobs waiting, those in their back-off included.
    pub queued: i64,
    /// Jobs with a worker.
    pub running: i64,
    /// Workers that have at least one job.
    pub busy_workers: i64,
    /// Leases that are over and that no reaper has taken away yet.
    pub expired_leases: i64,
    /// How long ago the job that is claimed next was submitted; none when nothing is due.
    pub next_job_age_seconds: Option<f64>,
    /// How long ago the oldest of the jobs that wait was submitted; none when nothing waits.
    pub oldest_job_age_seconds: Option<f64>,
    /// Tokens in the outbox: not with the broker yet.
    pub outbox_tokens: i64,
    /// How long the oldest of them have been there; none when there are none.
    pub outbox_age_seconds: Option<f64>,
    /// What a job takes a worker on average, of up to 50 results of each of the 20 newest batches that were submitted to the pool and have any;
    /// none when there are none.
    pub mean_job_seconds: Option<f64>,
}

/// What a job is taken to need in a pool that has no results yet. The paper has 40 s with ViT-B on an A5000, newer GPUs less.
const UNKNOWN_JOB_SECONDS: f64 = 30.0;

impl Workload {
    /// What a job takes a worker, measured or assumed.
    pub fn job_seconds(&self) -> f64 {
        self.mean_job_seconds.unwrap_or(UNKNOWN_JOB_SECONDS)
    }

    /// How long one worker alone would need for all that waits and runs. Of a running job all of it is counted: how far it is, nobody knows.
    pub fn open_work_seconds(&self) -> f64 {
        (self.queued + self.running) as f64 * self.job_seconds()
    }
}
