//! One job's way, from the claim to the last word in the ledger.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use images::ImageLimits;
use ledger::{ClaimedJob, ErrorClass, Finalised, JobFailure, JobState, Lease, Ledger, LedgerError};
use objects::Objects;
use segmenter::Compute;
use telemetry::{Health, Outage};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tracing::{Span, field::Empty};
use uuid::Uuid;

use crate::{
    cli::MasksRoot,
    deletion_cost::HeldJobs,
    errors::JobError,
    lease::{HeldLease, Timing},
    metrics::{Metrics, Stage},
    model::Model,
    store::StoreState,
    work::Worked,
};

/// What all jobs of this worker share.
pub struct Worker {
    /// The jobs.
    pub ledger: Ledger,
    /// The images and the masks.
    pub objects: Objects,
    /// The one model.
    pub model: Model,
    /// What is counted.
    pub metrics: Metrics,
    /// Leave to decode: one image of the largest size at a time takes memory enough.
    pub decoding: Arc<Semaphore>,
    /// The model's turn.
    pub computing: Arc<Semaphore>,
    /// Whether results can be stored.
    pub store: StoreState,
    /// Ids of jobs and batches that were cancelled.
    pub cancelled: broadcast::Sender<Uuid>,
    /// How many jobs it has.
    pub held_jobs: HeldJobs,
    /// Cancelled when jobs that still run must be given back.
    pub stop_jobs: CancellationToken,
    /// Cancelled when a thread does not come back from a job.
    pub stuck: CancellationToken,
    /// This worker's name in the ledger, the logs and the receipts.
    pub name: String,
    /// Whose jobs it does.
    pub pool: String,
    /// Where results go.
    pub masks: MasksRoot,
    /// What an image and a truth may cost.
    pub limits: ImageLimits,
    /// How long a job may take, without its wait for the model.
    pub max_job: Duration,
    /// SHA-256 of the checkpoint's file.
    pub checkpoint_sha256: String,
    /// Where and how the model runs.
    pub compute: Compute,
    /// How leases are kept.
    pub timing: Timing,
    /// Whether this worker can work, for /readyz.
    pub health: Health,
    /// Postgres, when jobs cannot be claimed.
    pub outage: Mutex<Outage>,
}

/// What is done with a job between its claim and the last word on it. A load test puts a job that costs nothing in its place.
pub trait Work: Send + Sync + 'static {
    /// What came of the job, or why nothing did. Cancelling `stop` ends it early.
    fn work(&self, job: &ClaimedJob, stop: &CancellationToken) -> impl Future<Output = Result<Worked, JobError>> + Send;
}

impl Work for Worker {
    fn work(&self, job: &ClaimedJob, stop: &CancellationToken) -> impl Future<Output = Result<Worked, JobError>> + Send {
        self.work(job, stop)
    }
}

/// What asking for work came to.
pub enum Claim {
    /// A job, and when it was asked for.
    Job(Box<ClaimedJob>, tokio::time::Instant),
    /// Nothing is due.
    Nothing,
    /// The worker was told to stop before Postgres answered.
    Stopped,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its result was accepted.
    Succeeded,
    /// Its error was accepted: another attempt follows, or none.
    Failed(ErrorClass),
    /// The job belongs to somebody else, or may: nothing was written to the ledger.
    LeaseLost,
}

impl Outcome {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Succeeded,
        Self::Failed(ErrorClass::Transient),
        Self::Failed(ErrorClass::Permanent),
        Self::Failed(ErrorClass::Shutdown),
        Self::LeaseLost,
    ];

    /// In a word, for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed(ErrorClass::Shutdown) => "released",
            Self::Failed(_) => "failed",
            Self::LeaseLost => "lease_lost",
        }
    }

    /// The class of the error; `none` where there was none.
    pub fn class_label(self) -> &'static str {
        match self {
            Self::Succeeded | Self::LeaseLost => "none",
            Self::Failed(class) => class.label(),
        }
    }

    /// What the job has become by it; none where it is not ours to say.
    fn state(self, job: &ClaimedJob) -> Option<JobState> {
        match self {
            Self::Succeeded => Some(JobState::Succeeded),
            Self::Failed(ErrorClass::Shutdown) => Some(JobState::Queued),
            Self::Failed(ErrorClass::Transient) if job.attempt < job.max_attempts => Some(JobState::Queued),
            Self::Failed(ErrorClass::Transient | ErrorClass::Permanent) => Some(JobState::Failed),
            Self::LeaseLost => None,
        }
    }
}

impl Worker {
    /// Asks for the pool's next job, until Postgres answers; not while its result could not be stored.
    pub async fn claim(&self, shutdown: &CancellationToken) -> Claim {
        // Not cancelled in the middle of a call: a claim that has reached Postgres is ours to answer for.
        while !shutdown.is_cancelled() {
            if shutdown.run_until_cancelled(self.store_answers()).await.is_none() {
                break;
            }
            let asked_at = tokio::time::Instant::now();
            match self.ledger.claim(&self.pool, &self.name, self.timing.lease).await {
                Ok(claimed) => {
                    self.outage().works();
                    self.health.set("postgres", Ok(()));
                    let Some(job) = claimed else { return Claim::Nothing };
                    self.metrics.record_claim(asked_at.elapsed().as_secs_f64());
                    return Claim::Job(Box::new(job), asked_at);
                }
                // It is failed already, and logged; there may be others.
                Err(LedgerError::Unreadable { .. }) => self.metrics.record_unreadable(),
                Err(error) => {
                    let wait = self.outage().failed(&error);
                    self.health.set("postgres", Err(error.to_string()));
                    shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
                }
            }
        }
        Claim::Stopped
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        // A panic between lock and unlock leaves at worst a log line too many.
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What every log line about the job bears, and its part of the trace that its batch came in with.
    pub fn span(&self, job: &ClaimedJob) -> Span {
        let Lease { job_id, batch_id, epoch, .. } = job.lease;
        // Of the highest level, so that its ids are in the lines of every level.
        let span = tracing::error_span!("job", job.id = %job_id, batch.id = %batch_id, trace.id = Empty);
        telemetry::join_trace(&span, job.traceparent.as_deref());
        let attributes = [("pool", self.pool.clone()), ("worker", self.name.clone()), ("epoch", epoch.to_string())];
        span.in_scope(|| telemetry::annotate(attributes));
        span
    }

    /// Does the claimed job and has the last word on it, to be called in its span. `asked_at` is when the claim was sent.
    pub async fn process(&self, work: &impl Work, job: ClaimedJob, asked_at: tokio::time::Instant) -> Outcome {
        let _held = (self.held_jobs.hold(), self.metrics.model_time.held());
        let started = Instant::now();
        let (attempt, epoch) = (job.attempt, job.lease.epoch);
        tracing::info!(state = "running", attempt, epoch, worker = self.name, pool = self.pool, "job claimed");

        let cancelled = self.cancelled.subscribe();
        let lease = HeldLease::hold(self.ledger.clone(), job.lease.clone(), asked_at, self.timing, &self.stop_jobs, cancelled);
        let mut worked = tokio::select! {
            biased;
            () = lease.interrupted().cancelled() => Err(JobError::Shutdown),
            worked = work.work(&job, lease.interrupted()) => worked,
        };
        let was_lost = lease.interrupted().is_cancelled() && !self.stop_jobs.is_cancelled();
        let outcome = if was_lost { Outcome::LeaseLost } else { self.record(&lease, &mut worked).await };
        let error = worked.as_ref().err().filter(|_| outcome != Outcome::LeaseLost);
        self.metrics.record_job(outcome, error, started.elapsed().as_secs_f64());
        match &worked {
            Ok(Worked { lend: Some(key), .. }) if outcome == Outcome::Succeeded => self.lend(&lease.lease, key).await,
            Err(error) if error.is_of_the_store() => self.store.doubt(),
            _ => {}
        }
        if outcome == Outcome::LeaseLost && lease.is_expired() {
            lease.release_later(self.ledger.clone());
        }

        let duration_ms = started.elapsed().as_millis() as u64;
        let (label, class) = (outcome.label(), outcome.class_label());
        // Where it failed and not why: the message may name the object. It is in the ledger.
        let cause = error.map(JobError::cause);
        let state = outcome.state(&job).map(JobState::label);
        tracing::info!(state, attempt, epoch, duration_ms, outcome = label, class, cause, "job ended");
        telemetry::annotate([("outcome", label.into()), ("class", class.into())]);
        if let Some(cause) = cause.filter(|_| matches!(outcome, Outcome::Failed(ErrorClass::Transient | ErrorClass::Permanent))) {
            telemetry::mark_failed(cause);
        }
        if let Err(error) = &worked {
            tracing::debug!(error = %error, "why the job has no result");
        }
        outcome
    }

    /// The last word on the job: its result, its error, or that it is free again. Postgres may be away for a while: the word is
    /// kept as long as the lease could still be ours, and then dropped.
    async fn record(&self, lease: &HeldLease, worked: &mut Result<Worked, JobError>) -> Outcome {
        let started = Instant::now();
        let mut outage = Outage::new("recording a job's outcome");
        loop {
            let (recorded, outcome) = match &*worked {
                Ok(Worked { result, .. }) => (self.ledger.finalise(&lease.lease, result).await, Outcome::Succeeded),
                Err(error) => match error.class() {
                    class @ ErrorClass::Shutdown => (self.ledger.release(&lease.lease).await, Outcome::Failed(class)),
                    class => {
                        let failure = JobFailure { class, message: error.to_string() };
                        (self.ledger.fail(&lease.lease, &failure).await, Outcome::Failed(class))
                    }
                },
            };
            match recorded {
                Ok(Finalised::Accepted) => {
                    outage.works();
                    self.record_stages(&[(Stage::Finalise, started.elapsed().as_secs_f64())]);
                    return outcome;
                }
                Ok(Finalised::LeaseLost) => {
                    let epoch = lease.lease.epoch;
                    tracing::info!(epoch, "the ledger refused the outcome: it has one, or the job is another's");
                    return Outcome::LeaseLost;
                }
                // Without this the job would be done again and again, until it counted as one that kills its workers.
                Err(error) if worked.is_ok() && !error.is_transient() => *worked = Err(JobError::Record(error)),
                Err(error) => tokio::time::sleep(outage.failed(error)).await,
            }
            if lease.is_expired() {
                return Outcome::LeaseLost;
            }
        }
    }
}
