//! What the worker counts. One `record_*` function an event; no job, batch or image is ever a label.

use std::time::Duration;

use prometheus::{Counter, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, core::Collector};
use segmenter::Segmentation;

use crate::{artifacts, job::Outcome};

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

/// The worker's metrics; clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    stage_seconds: HistogramVec,
    jobs: IntCounterVec,
    leases_lost: IntCounter,
    steps: IntCounter,
    iou: Histogram,
    empty_masks: IntCounter,
    results_reused: IntCounter,
    tokens_without_work: IntCounter,
    model_busy_seconds: Counter,
}

impl Metrics {
    /// All metrics, registered, and every known label at zero, so that a first failure shows as an increase.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let stage_seconds = HistogramOpts::new("dotmask_worker_stage_seconds", "Wall-clock time of a job's stages")
            .buckets(telemetry::SECONDS.into());
        let iou = HistogramOpts::new("dotmask_worker_iou", "Intersection over union of each mask with its initial mask")
            .buckets((1..=20).map(|twentieth| f64::from(twentieth) / 20.0).collect());
        let metrics = Self {
            stage_seconds: HistogramVec::new(stage_seconds, &["stage"])?,
            jobs: IntCounterVec::new(
                Opts::new("dotmask_worker_jobs_total", "Attempts that ended here, by outcome and by the class of their error"),
                &["outcome", "class"],
            )?,
            leases_lost: IntCounter::new(
                "dotmask_worker_leases_lost_total",
                "Attempts stopped because another may hold the job",
            )?,
            steps: IntCounter::new("dotmask_worker_steps_total", "Fine-tuning steps done")?,
            iou: Histogram::with_opts(iou)?,
            empty_masks: IntCounter::new("dotmask_worker_empty_masks_total", "Masks without any foreground")?,
            results_reused: IntCounter::new(
                "dotmask_worker_results_reused_total",
                "Results taken over from another job instead of computed",
            )?,
            tokens_without_work: IntCounter::new("dotmask_worker_tokens_without_work_total", "Tokens for which no job was due")?,
            model_busy_seconds: Counter::new("dotmask_worker_model_busy_seconds_total", "Time the model spent on images")?,
        };
        for stage in Stage::ALL {
            metrics.stage_seconds.with_label_values(&[stage.label()]);
        }
        for outcome in Outcome::ALL {
            metrics.jobs.with_label_values(&[outcome.label(), outcome.class_label()]);
        }
        for collector in [
            Box::new(metrics.stage_seconds.clone()) as Box<dyn Collector>,
            Box::new(metrics.jobs.clone()),
            Box::new(metrics.leases_lost.clone()),
            Box::new(metrics.steps.clone()),
            Box::new(metrics.iou.clone()),
            Box::new(metrics.empty_masks.clone()),
            Box::new(metrics.results_reused.clone()),
            Box::new(metrics.tokens_without_work.clone()),
            Box::new(metrics.model_busy_seconds.clone()),
        ] {
            registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// A stage took so long.
    pub fn record_stage(&self, stage: Stage, seconds: f64) {
        self.stage_seconds.with_label_values(&[stage.label()]).observe(seconds);
    }

    /// An attempt ended.
    pub fn record_job(&self, outcome: Outcome) {
        self.jobs.with_label_values(&[outcome.label(), outcome.class_label()]).inc();
        if outcome == Outcome::LeaseLost {
            self.leases_lost.inc();
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
        self.iou.observe(segmentation.iou);
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

    /// The model was at work, successfully or not.
    pub fn record_model_busy(&self, duration: Duration) {
        self.model_busy_seconds.inc_by(duration.as_secs_f64());
    }
}
