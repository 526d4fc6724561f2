//! `dispatcher serve`, `dispatcher migrate` and `dispatcher metrics`.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context;
use ledger::{Ledger, LedgerError};
use telemetry::{Catalogue, Health};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Exit,
    api::{self, Api},
    cli::{MigrateArgs, ServeArgs},
    metrics::Metrics,
    tasks::{Periods, Tasks},
    workloads::Workloads,
};

/// Requests under way when the process is told to stop have so long to finish; what is left of traces has another second.
const DRAIN: Duration = Duration::from_secs(9);

/// Serves until SIGTERM or SIGINT.
pub async fn run(args: ServeArgs) -> anyhow::Result<Exit> {
    args.check()?;
    let (postgres, rabbitmq) = (args.postgres.server()?, args.rabbitmq.server(&args.postgres.trust)?);
    postgres.warn_of_plain();
    rabbitmq.warn_of_plain();
    let shutdown = telemetry::termination()?;
    let (metrics, health, catalogue) = catalogue()?;
    let api = Api {
        ledger: Arc::new(OnceLock::new()),
        uploads: Arc::new(Semaphore::new(args.postgres_connections as usize / 2)),
        limits: args.limits.limits(),
        without_tokens: args.without_tokens,
        outbox_filled: Arc::new(Notify::new()),
        workloads: Workloads::default(),
        metrics: metrics.clone(),
    };

    let (listener, metrics_listener) = (listen(args.listen).await?, listen(args.metrics_listen).await?);
    tracing::info!(
        address = %listener.local_addr()?,
        metrics.address = %metrics_listener.local_addr()?,
        "listening"
    );
    if args.without_tokens {
        tracing::warn!("no token is asked for: every program of this machine may submit, see, cancel and retry");
    }
    let observed = telemetry::routes(catalogue.registry(), health.clone()).merge(api::workloads(api.workloads.clone()));
    let (api_server, observed_server) = (
        telemetry::serve(listener, api::service(api.clone()), shutdown.clone(), DRAIN),
        telemetry::serve(metrics_listener, observed, shutdown.clone(), DRAIN),
    );
    let background = async {
        // The server must not outlive a part that cannot start.
        let outcome = supply(args, postgres, rabbitmq, api, metrics, health, shutdown.clone()).await;
        shutdown.cancel();
        outcome
    };
    let (api_ended, observed_ended, background) = tokio::join!(api_server, observed_server, background);
    background?;
    api_ended.and(observed_ended).context("an HTTP server ended")?;
    tracing::info!("stopped");
    Ok(Exit::Done)
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// All that is counted here.
fn catalogue() -> prometheus::Result<(Metrics, Health, Catalogue)> {
    let mut catalogue = Catalogue::new(env!("CARGO_PKG_VERSION"), &[])?;
    let health = Health::new(&["postgres", "rabbitmq"], &mut catalogue)?;
    let metrics = Metrics::new(&mut catalogue)?;
    Ok((metrics, health, catalogue))
}

/// Prints every metric of `serve`.
pub fn list_metrics() -> anyhow::Result<Exit> {
    let (_, _, catalogue) = catalogue()?;
    print!("{}", catalogue.markdown());
    Ok(Exit::Done)
}

/// Reaches Postgres, however long that takes, and runs the tasks until `shutdown`.
async fn supply(
    args: ServeArgs,
    postgres: ledger::Server,
    rabbitmq: broker::Server,
    api: Api,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let prepared = telemetry::retry_until_ready("postgres", &shutdown, may_come, async || {
        let prepared = Box::pin(prepare(&args, &postgres)).await;
        health.set("postgres", prepared.as_ref().map(|_| ()).map_err(ToString::to_string));
        prepared
    });
    let Some(ledger) = prepared.await.transpose()? else { return Ok(()) };
    let ledger = api.ledger.get_or_init(|| ledger).clone();
    tracing::info!(pools = args.pools.join(","), "ready to take batches in");
    let tasks = Tasks { ledger, rabbitmq, outbox_filled: api.outbox_filled, metrics, health, shutdown };
    let every = Periods { reap: args.reap_seconds, reconcile: args.reconcile_seconds, age: args.ageing_seconds };
    tasks.spawn(every, api.workloads).join_all().await;
    Ok(())
}

async fn prepare(args: &ServeArgs, server: &ledger::Server) -> Result<Ledger, LedgerError> {
    let ledger = Ledger::connect_to(server, args.postgres_connections).await?;
    if args.migrate {
        ledger.migrate().await?;
    }
    for pool in &args.pools {
        ledger.declare_pool(pool).await?;
    }
    Ok(ledger)
}

/// Whether waiting may help: Postgres may start later, and another process may be about to migrate.
fn may_come(error: &LedgerError) -> bool {
    error.is_transient() || matches!(error, LedgerError::NotMigrated { .. })
}

/// Brings the database up to date.
pub async fn migrate(args: MigrateArgs) -> anyhow::Result<Exit> {
    let server = args.postgres.server()?;
    server.warn_of_plain();
    let shutdown = telemetry::termination()?;
    let migrated = telemetry::retry_until_ready("postgres", &shutdown, may_come, async || {
        Box::pin(async {
            let ledger = Ledger::connect_to(&server, 2).await?;
            ledger.migrate().await?;
            match &args.worker_role {
                Some(role) => ledger.grant_worker(role).await,
                None => Ok(()),
            }
        })
        .await
    });
    let patience = args.wait_seconds.unwrap_or(Duration::MAX);
    match tokio::time::timeout(patience, Box::pin(migrated)).await {
        Ok(Some(outcome)) => outcome?,
        Ok(None) => return Ok(Exit::Failed),
        Err(_) => {
            tracing::error!(wait_seconds = patience.as_secs_f64(), "giving up: Postgres could not be used in that time");
            return Ok(Exit::Unreachable);
        }
    }
    tracing::info!("the database is up to date");
    Ok(Exit::Done)
}
