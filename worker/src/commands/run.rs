//! `worker run`: a pool's jobs, one after the other, until told to stop.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context;
use ledger::{Ledger, LedgerError};
use objects::{Objects, ObjectsConfig};
use segmenter::set_threads;
use telemetry::{Catalogue, Health, Outage, Service, Traces, retry_until_ready};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    cancellations::cancellations,
    cli::{RunArgs, Servers},
    deletion_cost::HeldJobs,
    engine::Engine,
    errors::Failure,
    job::Worker,
    lease::Timing,
    metrics::Metrics,
    model::{Model, ModelThread},
    pull::pull,
    receipt::VERSION,
    store::StoreState,
};

/// How long a request for metrics may take when the process ends.
const HTTP_PATIENCE: Duration = Duration::from_secs(1);

/// Works until SIGTERM or SIGINT. A second one ends the process at once.
pub fn run<E: Engine>(config: RunArgs) -> Result<(), Failure> {
    let servers = config.check().map_err(Failure::bad_input)?;
    // Fails only where a provider is installed already, and that one will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let service = Service { name: env!("CARGO_CRATE_NAME"), sampled_by: Some("job.id") };
    let traces = telemetry::start(service, config.log_format).map_err(Failure::bad_input)?;
    if let Some(threads) = config.compute.threads {
        set_threads(threads.into());
    }

    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let outcome = runtime.block_on(serve::<E>(config, servers, traces));
    runtime.shutdown_background();
    outcome
}

async fn serve<E: Engine>(config: RunArgs, servers: Servers, traces: Traces) -> Result<(), Failure> {
    let shutdown = telemetry::termination().context("cannot listen for signals")?;
    exit_at_the_second_signal(shutdown.clone()).context("cannot listen for signals")?;
    let (metrics, health, catalogue) = catalogue(&config.pool, config.prefetch.into()).context("cannot register the metrics")?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr().context("cannot listen")?;
    tracing::info!(address = %address, "metrics and health");
    let ended = CancellationToken::new();
    let http = tokio::spawn(telemetry::serve(
        listener,
        telemetry::routes(catalogue.registry(), health.clone()),
        ended.clone(),
        HTTP_PATIENCE,
    ));

    let store = ObjectsConfig {
        endpoint: config.s3_endpoint.clone(),
        region: config.s3_region.clone(),
        path_style: config.s3_path_style,
        authorities: servers.authorities.clone(),
        ..ObjectsConfig::default()
    };
    servers.postgres.warn_of_plain();
    servers.rabbitmq.warn_of_plain();
    store.warn_of_plain();
    let objects = Objects::connect(&store).await;
    let prepared = shutdown.run_until_cancelled(prepare::<E>(&config, &objects, &metrics, &health)).await;
    // No job waits for a word of this worker, and gigabytes may be read or moved to the device for long.
    let Some(prepared) = prepared else {
        tracing::info!("stopped before the model was there");
        leave(0)
    };
    let (prepared, thread) = prepared?;
    let outcome = work(config, servers, prepared, objects, metrics, health, &shutdown).await;
    ended.cancel();
    // The server answers nothing that matters any more.
    let (model_has_ended, _, ()) = tokio::join!(thread.ended(), http, traces.end());
    if !model_has_ended {
        let code = outcome.as_ref().map_or_else(Failure::report, |()| 0);
        leave(code.into());
    }
    outcome
}

/// A model, ready for images.
struct Prepared {
    model: Model,
    checkpoint_sha256: String,
}

/// Gets the checkpoint and builds the model of it.
async fn prepare<E: Engine>(
    config: &RunArgs,
    objects: &Objects,
    metrics: &Metrics,
    health: &Health,
) -> Result<(Prepared, ModelThread), Failure> {
    let source = config.checkpoint.source().map_err(Failure::bad_input)?;
    let checkpoint = source.load(objects, health).await?;
    let checkpoint_sha256 = checkpoint.sha256().to_owned();
    health.set("model", Err("building the model".into()));
    let started = Model::start::<E>(checkpoint, config.compute.compute(), metrics.clone()).await;
    let (model, thread) = started.map_err(Failure::bad_input)?;
    health.set("model", Ok(()));
    Ok((Prepared { model, checkpoint_sha256 }, thread))
}

/// All that is counted here.
fn catalogue(pool: &str, prefetch: usize) -> prometheus::Result<(Metrics, Health, Catalogue)> {
    let mut catalogue = Catalogue::new(VERSION, &[("pool", pool)])?;
    let health = Health::new(&["model", "postgres", "rabbitmq", "s3"], &mut catalogue)?;
    let metrics = Metrics::new(&mut catalogue, prefetch)?;
    Ok((metrics, health, catalogue))
}

/// Prints every metric of [`run`].
pub fn list_metrics() -> Result<(), Failure> {
    let (_, _, catalogue) = catalogue("none", 1).context("cannot register the metrics")?;
    print!("{}", catalogue.markdown());
    Ok(())
}

/// All that needs the model; it has let go of it when it returns.
async fn work(
    config: RunArgs,
    servers: Servers,
    Prepared { model, checkpoint_sha256 }: Prepared,
    objects: Objects,
    metrics: Metrics,
    health: Health,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let Some(ledger) = connect_ledger(&config, &servers.postgres, &checkpoint_sha256, &health, shutdown).await? else {
        return Ok(());
    };
    if !store_is_ready(&config, &objects, &health, shutdown).await {
        return Ok(());
    }

    let worker = Arc::new(Worker {
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
        name: worker_name(),
        pool: config.pool.clone(),
        masks: config.masks,
        limits: config.limits.limits(),
        max_job: config.max_job_seconds,
        checkpoint_sha256,
        compute: config.compute.compute(),
        timing: Timing { lease: config.lease_seconds, heartbeat: config.heartbeat_seconds },
        health,
        outage: Mutex::new(Outage::new("postgres")),
    });
    let Worker { name, pool, checkpoint_sha256, compute, .. } = &*worker;
    tracing::info!(worker = name, pool, checkpoint.sha256 = checkpoint_sha256, device = %compute, "ready for work");
    if let Some(pod) = config.pod.pod().map_err(Failure::bad_input)? {
        tokio::spawn(pod.keep_deletion_cost(worker.held_jobs.watch()));
    }
    let tokens = broker::consume(servers.rabbitmq, config.pool, config.prefetch, shutdown.clone());
    let outcome = pull(&worker, &worker, tokens, config.prefetch.into(), config.drain_seconds, shutdown).await;
    tracing::info!(worker = name, "stopped");
    Ok(outcome?)
}

/// Waits for Postgres, for the dispatcher's tables and for the pool to be declared. An error is what no waiting mends; `None`
/// says that the worker was told to stop first.
async fn connect_ledger(
    config: &RunArgs,
    server: &ledger::Server,
    checkpoint_sha256: &str,
    health: &Health,
    shutdown: &CancellationToken,
) -> Result<Option<Ledger>, Failure> {
    // Each job may want one for its heartbeat and one for its last word; one more for claims, and one that listens.
    let connections = 2 * u32::from(config.prefetch) + 2;
    let connect = async || -> Result<Ledger, LedgerError> {
        let ledger = Ledger::connect_to(server, connections).await?;
        ledger.bind_checkpoint(&config.pool, checkpoint_sha256).await?;
        Ok(ledger)
    };
    let may_come_later = |error: &LedgerError| {
        error.is_transient() || matches!(error, LedgerError::NotMigrated { .. } | LedgerError::UnknownPool { .. })
    };
    let connected = retry_until_ready("postgres", shutdown, may_come_later, async || {
        connect().await.inspect_err(|error| health.set("postgres", Err(error.to_string())))
    });
    let ledger = connected.await.transpose().map_err(Failure::bad_input)?;
    health.set("postgres", Ok(()));
    Ok(ledger)
}

/// Waits for the object store and the masks' bucket; false says that the worker was told to stop first.
async fn store_is_ready(config: &RunArgs, objects: &Objects, health: &Health, shutdown: &CancellationToken) -> bool {
    let check = async || objects.check(config.masks.bucket()).await.inspect_err(|error| health.set("s3", Err(error.to_string())));
    // A bucket can be made and a policy mended while the worker waits.
    let Some(checked) = retry_until_ready("s3", shutdown, |_| true, check).await else { return false };
    health.set("s3", checked.map_err(|error| error.to_string()));
    true
}

/// Names the machine for people; the process and a few random letters tell apart workers that share its name.
fn worker_name() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "worker" } else { host.trim() };
    let random = Uuid::new_v4().simple().to_string();
    format!("{host}-{}-{}", std::process::id(), &random[..6])
}

fn exit_at_the_second_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        shutdown.cancelled().await;
        // The first one was for this listener as well.
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::warn!("told to stop a second time: leaving at once");
        leave(1);
    });
    Ok(())
}

/// Ends the process without running the destructors of libtorch, which crash under a model that is still computing.
#[expect(unsafe_code, reason = "the standard library has no exit that skips C++'s static destructors")]
fn leave(code: i32) -> ! {
    // SAFETY: ends the process; nothing runs afterwards that could see broken state.
    unsafe { nix::libc::_exit(code) }
}
