//! One job's way, from the claim to the last word in the ledger.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use futures_util::future::try_join_all;
use ledger::{Artifact, ClaimedJob, ErrorClass, Finalised, JobFailure, JobResult, Lease, Ledger};
use objects::Objects;
use segmenter::{DecodedImage, Device, ImageLimits, SegmentError, Segmentation, decode_image, sha256};
use telemetry::{Health, Outage};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    artifacts::{self, ArtifactFile},
    cli::MasksRoot,
    errors::{JobError, panic_message},
    lease::{HeldLease, Timing},
    metrics::{Metrics, Stage},
    model::{Answer, Model, Work},
    receipt::{ImageFacts, JobIdentity, Receipt, StageSeconds, VERSION},
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
    /// Cancelled when jobs that still run must be given back.
    pub stop_jobs: CancellationToken,
    /// This worker's name in the ledger, the logs and the receipts.
    pub name: String,
    /// Whose jobs it does.
    pub pool: String,
    /// Where results go.
    pub masks: MasksRoot,
    /// SHA-256 of the checkpoint's file.
    pub checkpoint_sha256: String,
    /// Where the model runs.
    pub device: Device,
    /// How leases are kept.
    pub timing: Timing,
    /// Whether this worker can work, for /readyz.
    pub health: Health,
    /// Postgres, when jobs cannot be claimed.
    pub outage: Mutex<Outage>,
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
            Self::Failed(ErrorClass::Transient) => "transient",
            Self::Failed(ErrorClass::Permanent) => "permanent",
            Self::Failed(ErrorClass::Shutdown) => "shutdown",
        }
    }
}

impl Worker {
    /// Asks for the pool's next job, until Postgres answers.
    pub async fn claim(&self, shutdown: &CancellationToken) -> Claim {
        // Not cancelled in the middle of a call: a claim that has reached Postgres is ours to answer for.
        while !shutdown.is_cancelled() {
            let asked_at = tokio::time::Instant::now();
            match self.ledger.claim(&self.pool, &self.name, self.timing.lease).await {
                Ok(claimed) => {
                    self.outage().works();
                    self.health.set("postgres", Ok(()));
                    let Some(job) = claimed else { return Claim::Nothing };
                    self.metrics.record_stage(Stage::Claim, asked_at.elapsed().as_secs_f64());
                    return Claim::Job(Box::new(job), asked_at);
                }
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

    /// Does the claimed job and has the last word on it. `asked_at` is when the claim was sent.
    pub async fn process(&self, job: ClaimedJob, asked_at: tokio::time::Instant) -> Outcome {
        let started = Instant::now();
        let (job_id, batch_id) = (job.lease.job_id, job.lease.batch_id);
        let (attempt, epoch) = (job.attempt, job.lease.epoch);
        tracing::info!(job.id = %job_id, batch.id = %batch_id, attempt, epoch, worker = self.name, pool = self.pool, "job claimed");

        let lease = HeldLease::hold(self.ledger.clone(), job.lease.clone(), asked_at, self.timing, &self.stop_jobs);
        let mut worked = tokio::select! {
            biased;
            () = lease.interrupted().cancelled() => Err(JobError::Shutdown),
            worked = self.work(&job, lease.interrupted()) => worked,
        };
        let was_lost = lease.interrupted().is_cancelled() && !self.stop_jobs.is_cancelled();
        let outcome = if was_lost { Outcome::LeaseLost } else { self.record(&lease, &mut worked).await };
        self.metrics.record_job(outcome);
        if outcome == Outcome::LeaseLost && lease.is_expired() {
            lease.release_later(self.ledger.clone());
        }

        let duration_ms = started.elapsed().as_millis() as u64;
        let (label, class) = (outcome.label(), outcome.class_label());
        // Where it failed and not why: the message may name the object. It is in the ledger.
        let stage = worked.as_ref().err().filter(|_| outcome != Outcome::LeaseLost).map(JobError::stage);
        tracing::info!(job.id = %job_id, batch.id = %batch_id, attempt, epoch, duration_ms, outcome = label, class, stage, "job ended");
        if let Err(error) = &worked {
            tracing::debug!(job.id = %job_id, error = %error, "why the job has no result");
        }
        outcome
    }

    /// The work itself, which writes nothing to the ledger.
    async fn work(&self, job: &ClaimedJob, stop: &CancellationToken) -> Result<JobResult, JobError> {
        let started = Instant::now();
        let limits = ImageLimits::default();

        // 1. Fetch the image.
        let (bytes, fetch) = timed(self.objects.get(&job.image, limits.bytes as u64)).await;
        let bytes = bytes.map_err(JobError::Fetch)?;
        self.metrics.record_stage(Stage::Fetch, fetch);

        // 2. Decode it. Points outside it are found here, before the job waits for the model.
        let turn = Arc::clone(&self.decoding).acquire_owned().await.expect("nobody closes it");
        let decoding = off_runtime("decode", move || {
            // Goes with the work, which nothing stops where the job is given up meanwhile.
            let _turn = turn;
            decode_image(&bytes, &limits)
        });
        let (image, decode) = timed(decoding).await;
        let DecodedImage { rgb, sha256, format } = image??;
        self.metrics.record_stage(Stage::Decode, decode);
        job.points.check_inside(rgb.width(), rgb.height()).map_err(SegmentError::from)?;
        let facts = ImageFacts { sha256, width: rgb.width(), height: rgb.height(), format };
        let image = Arc::new(rgb);

        // 3. Segment it, one image at a time.
        let work = Work {
            image: Arc::clone(&image),
            points: job.points.clone(),
            parameters: job.parameters.clone(),
            stop: stop.clone(),
        };
        let Answer { segmentation, queue_seconds } = self.model.segment(work).await?;
        self.metrics.record_stage(Stage::Queue, queue_seconds);
        self.metrics.record_segmentation(&segmentation);

        // 4. Encode the files.
        let (iou, best_step) = (segmentation.iou, segmentation.best_step);
        let seconds = StageSeconds { fetch: Some(fetch), decode, queue: Some(queue_seconds), ..segmentation.seconds.into() };
        let mut receipt = self.receipt(job, facts, &segmentation, seconds);
        let (files, encode) = timed(off_runtime("encode", move || artifacts::encode(&image, &segmentation, &mut receipt))).await;
        let files = files?.map_err(|error| JobError::Encode { reason: format!("{error:#}") })?;
        self.metrics.record_stage(Stage::Encode, encode);

        // 5. Upload them. Only when all are there is the result offered to the ledger.
        let (artifacts, upload) = timed(try_join_all(files.map(|file| self.upload(job, file)))).await;
        let artifacts = artifacts?;
        self.metrics.record_stage(Stage::Upload, upload);
        Ok(JobResult { artifacts, iou, best_step: best_step as i32, seconds: started.elapsed().as_secs_f64() })
    }

    /// The last word on the job: its result, its error, or that it is free again. Postgres may be away for a while: the word is
    /// kept as long as the lease could still be ours, and then dropped.
    async fn record(&self, lease: &HeldLease, worked: &mut Result<JobResult, JobError>) -> Outcome {
        let started = Instant::now();
        let mut outage = Outage::new("recording a job's outcome");
        loop {
            let (recorded, outcome) = match &*worked {
                Ok(result) => (self.ledger.finalise(&lease.lease, result).await, Outcome::Succeeded),
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
                    self.metrics.record_stage(Stage::Finalise, started.elapsed().as_secs_f64());
                    return outcome;
                }
                Ok(Finalised::LeaseLost) => return Outcome::LeaseLost,
                // Without this the job would be done again and again, until it counted as one that kills its workers.
                Err(error) if worked.is_ok() && !error.is_transient() => *worked = Err(JobError::Record(error)),
                Err(error) => tokio::time::sleep(outage.failed(error)).await,
            }
            if lease.is_expired() {
                return Outcome::LeaseLost;
            }
        }
    }

    fn receipt(&self, job: &ClaimedJob, image: ImageFacts, segmentation: &Segmentation, seconds: StageSeconds) -> Receipt {
        let Lease { job_id, batch_id, epoch, .. } = job.lease;
        Receipt {
            version: VERSION,
            image,
            checkpoint_sha256: self.checkpoint_sha256.clone(),
            device: self.device.to_string(),
            parameters: job.parameters.clone(),
            points: job.points.clone(),
            figures: segmentation.into(),
            seconds,
            job: Some(JobIdentity { id: job_id, batch_id, epoch, worker: self.name.clone() }),
        }
    }

    async fn upload(&self, job: &ClaimedJob, file: ArtifactFile) -> Result<Artifact, JobError> {
        let uri = self.masks.place(&job.lease, file.name());
        let (kind, content_type) = (file.kind, file.content_type());
        let bytes = Bytes::from(file.bytes);
        let (sha256, size) = (sha256(&bytes), bytes.len() as u64);
        self.objects.put(&uri, bytes, content_type).await.map_err(JobError::Store)?;
        Ok(Artifact { kind, uri, sha256, bytes: size })
    }
}

async fn timed<T>(future: impl Future<Output = T>) -> (T, f64) {
    let started = Instant::now();
    let output = future.await;
    (output, started.elapsed().as_secs_f64())
}

/// For work that would hold up an async thread.
async fn off_runtime<T: Send + 'static>(stage: &'static str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JobError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        // Never cancelled: only a panic ends it early.
        let reason = error.try_into_panic().map_or_else(|error| error.to_string(), |panic| panic_message(panic.as_ref()));
        JobError::Crashed { stage, reason }
    })
}
