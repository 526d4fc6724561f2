//! What the worker counts. One `record_*` function an event; no job, batch or image is ever a label.

use ledger::ErrorClass;
use prometheus::{CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts};
use segmenter::{GpuMemory, Segmentation};
use telemetry::Catalogue;

use crate::{artifacts, errors::JobError, job::Outcome, model_time::ModelTime};

/// A part of a job's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Asking Postgres for a job and getting one.
    Claim,
    /// The image out of the object store.
    Fetch,
    /// Bytes to pixels.
    Decode,
    /// Waiting for the model.
    Queue,
    /// The first forward pass and the initial mask.
    Embed,
    /// The steps.
    Finetune,
    /// The answer to the image's size.
    Upsample,
    /// All methods of an evaluation.
    Evaluate,
    /// The pictures to PNG.
    Encode,
    /// The files into the object store.
    Upload,
    /// The result into Postgres.
    Finalise,
}

impl Stage {
    const ALL: [Self; 11] = [
        Self::Claim,
        Self::Fetch,
        Self::Decode,
        Self::Queue,
        Self::Embed,
        Self::Finetune,
        Self::Upsample,
        Self::Evaluate,
        Self::Encode,
        Self::Upload,
        Self::Finalise,
    ];

    /// In a word, for metrics and traces.
    pub fn label(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Fetch => "fetch",
            Self::Decode => "decode",
            Self::Queue => "queue",
            Self::Embed => "embed",
            Self::Finetune => "finetune",
            Self::Upsample => "upsample",
            Self::Evaluate => "evaluate",
            Self::Encode => "encode",
            Self::Upload => "upload",
            Self::Finalise => "finalise",
        }
    }
}

/// A job whose request this version cannot read: its cause and class.
const UNREADABLE: [&str; 2] = ["request", "permanent"];

/// The worker's metrics; clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    stage_seconds: HistogramVec,
    claims: IntCounter,
    jobs: IntCounterVec,
    errors: IntCounterVec,
    wasted_seconds: CounterVec,
    leases_lost: IntCounter,
    steps: IntCounter,
    masks: IntCounter,
    empty_masks: IntCounter,
    iou: Histogram,
    confidence: Histogram,
    results_reused: IntCounter,
    tokens_without_work: IntCounter,
    /// Where the model's time goes.
    pub model_time: ModelTime,
    gpu_memory_used: IntGauge,
    gpu_memory_total: IntGauge,
}

impl Metrics {
    /// All metrics of a worker that holds at most `places` jobs, registered, and every known label at zero, so that a first failure shows as
    /// an increase.
    pub fn new(catalogue: &mut Catalogue, places: usize) -> prometheus::Result<Self> {
        let twentieths: Vec<f64> = (1..=20).map(|twentieth| f64::from(twentieth) / 20.0).collect();
        let histogram = |name: &str, help: &str| HistogramOpts::new(format!("dotmask_worker_{name}"), help);
        let named = |name: &str, help: &str| Opts::new(format!("dotmask_worker_{name}"), help);
        let stage_seconds = histogram("stage_seconds", "Wall-clock time of a job's stages").buckets(telemetry::SECONDS.into());
        let iou = histogram("iou", "Intersection over union of each mask with its initial mask").buckets(twentieths.clone());
        let confidence = histogram("confidence", "Confidence of each mask, from 0 to 1").buckets(twentieths);
        let mut counter = |name: &str, help: &str| catalogue.add(IntCounter::with_opts(named(name, help)));
        let metrics = Self {
            claims: counter("claims_total", "Jobs claimed")?,
            leases_lost: counter("leases_lost_total", "Attempts stopped because another may hold the job, or nobody any more")?,
            steps: counter("steps_total", "Fine-tuning steps done")?,
            masks: counter("masks_total", "Masks made")?,
            empty_masks: counter("empty_masks_total", "Masks without any foreground")?,
            results_reused: counter("results_reused_total", "Results taken over from another job instead of computed")?,
            tokens_without_work: counter("tokens_without_work_total", "Tokens for which no job was due")?,
            jobs: catalogue.add(IntCounterVec::new(
                named("jobs_total", "Attempts that ended here, by outcome and by the class of their error"),
                &["outcome", "class"],
            ))?,
            errors: catalogue.add(IntCounterVec::new(
                named(
                    "errors_total",
                    "Attempts that ended in an error, by its cause and its class; those that are transient are retried",
                ),
                &["cause", "class"],
            ))?,
            wasted_seconds: catalogue.add(CounterVec::new(
                named("wasted_seconds_total", "Time of attempts that ended without a result, by outcome"),
                &["outcome"],
            ))?,
            stage_seconds: catalogue.add(HistogramVec::new(stage_seconds, &["stage"]))?,
            iou: catalogue.add(Histogram::with_opts(iou))?,
            confidence: catalogue.add(Histogram::with_opts(confidence))?,
            model_time: catalogue.add(ModelTime::new(places))?,
            gpu_memory_used: catalogue.add(IntGauge::with_opts(named(
                "gpu_memory_used_bytes",
                "GPU memory in use by all processes after the last image, 0 on cpu",
            )))?,
            gpu_memory_total: catalogue
                .add(IntGauge::with_opts(named("gpu_memory_total_bytes", "GPU memory that there is, 0 on cpu")))?,
        };
        for stage in Stage::ALL {
            metrics.stage_seconds.with_label_values(&[stage.label()]);
        }
        for outcome in Outcome::ALL {
            metrics.jobs.with_label_values(&[outcome.label(), outcome.class_label()]);
            if outcome != Outcome::Succeeded {
                metrics.wasted_seconds.with_label_values(&[outcome.label()]);
            }
        }
        for (cause, class) in JobError::CAUSES {
            metrics.errors.with_label_values(&[cause, class.label()]);
        }
        metrics.errors.with_label_values(&UNREADABLE);
        Ok(metrics)
    }

    /// A stage took so long.
    pub fn record_stage(&self, stage: Stage, seconds: f64) {
        self.stage_seconds.with_label_values(&[stage.label()]).observe(seconds);
    }

    /// A job was claimed.
    pub fn record_claim(&self, seconds: f64) {
        self.claims.inc();
        self.record_stage(Stage::Claim, seconds);
    }

    /// A job was claimed and failed at once, because this version cannot read its request.
    pub fn record_unreadable(&self) {
        self.claims.inc();
        let outcome = Outcome::Failed(ErrorClass::Permanent);
        self.jobs.with_label_values(&[outcome.label(), outcome.class_label()]).inc();
        self.errors.with_label_values(&UNREADABLE).inc();
    }

    /// An attempt ended after so long; its error, where that decided the outcome.
    pub fn record_job(&self, outcome: Outcome, error: Option<&JobError>, seconds: f64) {
        self.jobs.with_label_values(&[outcome.label(), outcome.class_label()]).inc();
        if outcome == Outcome::LeaseLost {
            self.leases_lost.inc();
        }
        if outcome != Outcome::Succeeded {
            self.wasted_seconds.with_label_values(&[outcome.label()]).inc_by(seconds);
        }
        if let Some(error) = error {
            self.errors.with_label_values(&[error.cause(), outcome.class_label()]).inc();
        }
    }

    /// A step was done.
    pub fn record_step(&self) {
        self.steps.inc();
    }

    /// An object was segmented.
    pub fn record_segmentation(&self, segmentation: &Segmentation) {
        let seconds = segmentation.seconds;
        self.record_stage(Stage::Embed, seconds.embed);
        self.record_stage(Stage::Finetune, seconds.finetune);
        self.record_stage(Stage::Upsample, seconds.upsample);
        self.masks.inc();
        self.iou.observe(segmentation.iou);
        self.confidence.observe(segmentation.confidence);
        if artifacts::is_empty(&segmentation.mask) {
            self.empty_masks.inc();
        }
    }

    /// A result was taken over.
    pub fn record_reused(&self) {
        self.results_reused.inc();
    }

    /// A token came and no job was due.
    pub fn record_token_without_work(&self) {
        self.tokens_without_work.inc();
    }

    /// What the GPU's memory was at after an image.
    pub fn record_gpu_memory(&self, memory: GpuMemory) {
        self.gpu_memory_used.set(memory.used_bytes.cast_signed());
        self.gpu_memory_total.set(memory.total_bytes.cast_signed());
    }
}
