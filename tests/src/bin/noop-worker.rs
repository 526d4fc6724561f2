//! `noop-worker`: as many workers as wanted in one process, each with its own connections, that do every job of their pool the whole way, from the
//! token to the last word in the ledger, but for the job itself, which costs nothing. For the load test.

use std::{
    fs,
    io::Write as _,
    ops::ControlFlow,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use evaluation::Row;
use image::{GrayImage, RgbImage};
use images::ImageLimits;
use ledger::{Artifact, ArtifactKind, ClaimedJob, JobResult, Ledger, Mask};
use objects::{Objects, ObjectsConfig};
use request::{Parameters, Points};
use segmenter::{Checkpoint, Compute, SegmentError, Segmentation};
use telemetry::{Catalogue, Health, LogFormat, Outage, Service};
use tls::Authorities;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use worker::{
    cancellations::cancellations,
    cli::{MasksRoot, UrlArgs},
    deletion_cost::HeldJobs,
    engine::{Engine, Plan},
    errors::JobError,
    job::{Work, Worker},
    lease::Timing,
    metrics::Metrics,
    model::Model,
    pull::pull,
    store::StoreState,
    work::Worked,
};

/// Works until SIGTERM.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// Where Postgres and RabbitMQ are.
    #[command(flatten)]
    urls: UrlArgs,
    /// The pool whose jobs to do.
    #[arg(long)]
    pool: String,
    /// How many workers to be.
    #[arg(long, default_value_t = 1)]
    workers: u16,
    /// Jobs that each holds at once.
    #[arg(long, default_value_t = 2)]
    prefetch: u16,
    /// How long each job pretends to compute, in seconds; the model computes one at a time.
    #[arg(long, default_value = "0", value_parser = seconds)]
    seconds: Duration,
    /// Connections to Postgres that each may hold, if not as many as `worker run` would.
    #[arg(long)]
    connections: Option<u32>,
    /// Record what a job of one object leaves: four files and a mask. Nothing is stored in S3.
    #[arg(long)]
    record_files: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| "expected seconds".into())
}

/// In the model's place; nobody asks it for anything.
struct NoModel;

impl Engine for NoModel {
    fn build(_: &Checkpoint, _: Compute) -> anyhow::Result<Self> {
        Ok(Self)
    }

    fn segment(
        &mut self,
        _: &RgbImage,
        _: &[Points],
        _: &Parameters,
        _: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Segmentation>, SegmentError> {
        unreachable!("a job that costs nothing asks no model")
    }

    fn evaluate(
        &mut self,
        _: &RgbImage,
        _: &GrayImage,
        _: &Plan<'_>,
        _: &mut dyn FnMut(Row) -> ControlFlow<()>,
        _: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<(), SegmentError> {
        unreachable!("a job that costs nothing asks no model")
    }
}

/// A job that costs nothing but the note that it begins.
struct NoOp {
    ledger: Ledger,
    masks: MasksRoot,
    model: Semaphore,
    seconds: Duration,
    record_files: bool,
}

impl Work for NoOp {
    async fn work(&self, job: &ClaimedJob, _: &CancellationToken) -> Result<Worked, JobError> {
        let turn = if self.seconds.is_zero() { None } else { self.model.acquire().await.ok() };
        // As `worker run` does, a failure is not the job's.
        let _ = self.ledger.begin(&job.lease).await;
        if turn.is_some() {
            tokio::time::sleep(self.seconds).await;
        }
        let mut result =
            JobResult { artifacts: Vec::new(), masks: Vec::new(), scores: Vec::new(), seconds: self.seconds.as_secs_f64() };
        if self.record_files {
            let file = |kind, object, name| Artifact {
                kind,
                object,
                uri: self.masks.place(&job.project, &job.lease, name),
                sha256: "0".repeat(64),
                bytes: 0,
            };
            result.artifacts = vec![
                file(ArtifactKind::Mask, 1, "mask.png"),
                file(ArtifactKind::InitialMask, 1, "initial_mask.png"),
                file(ArtifactKind::Overlay, 0, "overlay.png"),
                file(ArtifactKind::Receipt, 0, "receipt.json"),
            ];
            result.masks = vec![Mask { object: 1, iou: 0.9, best_step: 100, confidence: 0.9, warnings: Vec::new() }];
        }
        Ok(Worked { result, lend: None })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let _traces = telemetry::start(Service { name: "noop_worker", sampled_by: None }, LogFormat::Json)?;
    let shutdown = telemetry::termination()?;
    let mut catalogue = Catalogue::new("0", &[("pool", &arguments.pool)])?;
    let health = Health::new(&["model", "postgres", "rabbitmq", "s3"], &mut catalogue)?;
    let metrics = Metrics::new(&mut catalogue, arguments.prefetch.into())?;
    let objects = Objects::connect(&ObjectsConfig::default()).await;

    let mut workers = tokio::task::JoinSet::new();
    for number in 0..arguments.workers {
        let (arguments, shutdown) = (arguments.clone(), shutdown.clone());
        let (metrics, health, objects) = (metrics.clone(), health.clone(), objects.clone());
        workers.spawn(async move { run(number, arguments, objects, metrics, health, shutdown).await });
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn run(
    number: u16,
    arguments: Arguments,
    objects: Objects,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Arguments { urls, pool, prefetch, seconds, connections, record_files, .. } = arguments;
    let checkpoint = smallest_checkpoint()?;
    let checkpoint_sha256 = checkpoint.sha256().to_owned();
    let (model, _thread) = Model::start::<NoModel>(checkpoint, Compute::default(), metrics.clone()).await?;
    let servers = urls.servers(Authorities::default())?;
    let ledger = Ledger::connect_to(&servers.postgres, connections.unwrap_or(2 * u32::from(prefetch) + 2)).await?;
    ledger.bind_checkpoint(&pool, &checkpoint_sha256).await?;
    let masks: MasksRoot = "s3://scans/masks".parse()?;
    let work = NoOp { ledger: ledger.clone(), masks: masks.clone(), model: Semaphore::new(1), seconds, record_files };
    let worker = Worker {
        cancelled: cancellations(ledger.clone()),
        ledger,
        objects,
        model,
        metrics,
        decoding: Arc::new(Semaphore::new(1)),
        computing: Arc::new(Semaphore::new(1)),
        store: StoreState::new(),
        held_jobs: HeldJobs::new(),
        stop_jobs: CancellationToken::new(),
        stuck: CancellationToken::new(),
        name: format!("noop-{}-{number}", std::process::id()),
        pool: pool.clone(),
        masks,
        limits: ImageLimits::default(),
        max_job: Duration::from_hours(1),
        checkpoint_sha256,
        compute: Compute::default(),
        timing: Timing { lease: Duration::from_secs(20), heartbeat: Duration::from_secs(5) },
        health,
        outage: Mutex::new(Outage::new("postgres")),
    };
    let tokens = broker::consume(servers.rabbitmq, pool, prefetch, shutdown.clone());
    pull(&Arc::new(worker), &Arc::new(work), tokens, prefetch.into(), Duration::from_secs(5), &shutdown).await
}

/// One tensor of one number.
fn smallest_checkpoint() -> anyhow::Result<Checkpoint> {
    let header = br#"{"nothing":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut file = tempfile::Builder::new().suffix(".safetensors").tempfile()?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header)?;
    file.write_all(&0_f32.to_le_bytes())?;
    let path = fs::canonicalize(file.path())?;
    Checkpoint::read(&path).context("the smallest checkpoint")
}
