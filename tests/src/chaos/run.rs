//! One run from the start of the servers to the report.

use std::{collections::HashMap, fs, time::Duration};

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Options,
    cluster::Cluster,
    facts::Facts,
    faults::Thrown,
    load::{Clients, put_images},
    plan::plan,
    report::{Report, Work},
    schedule::Scheduled,
    verdict::judge,
};

/// How long the jobs may take that are open when the last fault is over.
const SETTLE_LIMIT: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(500);

/// Runs it all. An error says that the run itself could not be made; whether an invariant broke is in the report.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let schedule = options.schedule();
    fs::create_dir_all(&options.folder)?;
    let lines: Vec<String> = schedule.iter().map(Scheduled::to_string).collect();
    fs::write(options.folder.join("schedule.txt"), lines.join("\n") + "\n")?;

    let cluster = Cluster::start(&options.folder, options.garage.as_deref()).await?;
    let store = cluster.store.client();
    let images: HashMap<String, Vec<u8>> = put_images(&store).await?.into_iter().collect();
    // More than faults that look into Postgres at a time.
    let truth =
        PgPoolOptions::new().max_connections(8).acquire_timeout(Duration::from_secs(5)).connect_lazy(&cluster.database_url)?;
    cluster.start_programs().await?;
    // RabbitMQ 3.10 killed soon after a queue's very first declaration may lose it: an old queue is hit, not a new one.
    cluster.rabbitmq.lock().await.restart().await?;
    cluster.wait_until_ready().await?;

    let began = Instant::now();
    let clients = Clients::new(cluster.dispatchers.iter().map(|seat| seat.address.clone()).collect())?;
    let planned = plan(options.seed, options.jobs, options.duration);
    let both = async {
        tokio::try_join!(throw_all(&cluster, schedule, &truth, began), async {
            clients.submit_all(planned, began).await.context("a client was not served")
        })
    };
    let (thrown, submissions) = alive(&cluster, both).await?;
    let faults_seconds = began.elapsed().as_secs_f64();

    // Images that abort their worker may still wait: who is not ready is about to be.
    let back_offs_ended = alive(&cluster, settle(&truth)).await?;
    let settle_seconds = began.elapsed().as_secs_f64() - faults_seconds;
    let mut facts = Facts::read(&truth, &store, &clients, &submissions).await?;
    cluster.stop_programs().await?;
    let worker_logs = cluster.worker_logs();
    // All other ends were kills.
    let stuck = worker_logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains("could not give back all jobs"));
    facts.stuck = stuck.map(str::to_owned).collect();

    let tokens_purged = thrown.iter().map(|thrown| u64::from(thrown.tokens_purged)).sum();
    let findings = judge(&facts, &submissions, &images, tokens_purged);
    let work = Work {
        faults_seconds,
        settle_seconds,
        back_offs_ended,
        store: cluster.store.name(),
        workers_ended: cluster.workers_ended_by_themselves(),
        dispatchers_ended: cluster.dispatchers_ended_by_themselves(),
        worker_logs,
    };
    let report = Report::new(options, &work, &thrown, &submissions, &facts, findings);
    fs::write(options.folder.join("report.md"), report.to_string())?;
    Ok(report)
}

/// Does this while programs that end by themselves are started again.
async fn alive<T>(cluster: &Cluster, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        ended = cluster.keep_alive() => { ended?; bail!("nobody looks after the programs any more") }
    }
}

/// Throws each fault at its time, whether those before it are over or not.
async fn throw_all(cluster: &Cluster, schedule: Vec<Scheduled>, truth: &PgPool, began: Instant) -> anyhow::Result<Vec<Thrown>> {
    let faults = schedule.into_iter().map(async |scheduled| {
        sleep_until(began + scheduled.at).await;
        eprintln!("{scheduled}");
        cluster.throw(scheduled.fault, truth).await.with_context(|| format!("cannot throw:{scheduled}"))
    });
    try_join_all(faults).await
}

/// Waits until every job has ended, or for so long that something must be wrong: that is the verdict's to say. Nobody has to wait for
/// the back-offs of jobs that fail each time: they are ended early, and how many is returned.
async fn settle(truth: &PgPool) -> anyhow::Result<u64> {
    let deadline = Instant::now() + SETTLE_LIMIT;
    let mut back_offs_ended = 0;
    loop {
        let ended =
            sqlx::query("UPDATE jobs SET run_at = now() WHERE state = 'queued' AND run_at > now()").execute(truth).await?;
        back_offs_ended += ended.rows_affected();
        let is_open = "SELECT EXISTS (SELECT FROM jobs WHERE state IN ('queued', 'running')) OR EXISTS (SELECT FROM outbox)";
        let is_open: bool = sqlx::query_scalar(is_open).fetch_one(truth).await?;
        if !is_open || Instant::now() > deadline {
            return Ok(back_offs_ended);
        }
        sleep(POLL).await;
    }
}
