//! How fast the system around the model is: real servers, a real dispatcher, and workers whose jobs cost nothing.

mod usage;

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use servers::Program;
use sqlx::{Connection as _, PgConnection, Row as _};
use tempfile::NamedTempFile;
pub use usage::{cpu_seconds, forget_peak, peak_bytes, resident_bytes};
use uuid::Uuid;

use crate::{
    System,
    system::{BUCKET, POOL},
};

/// How often a program's memory, or what is left to do, is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What a submission took.
#[derive(Debug, Clone, Copy)]
pub struct Submission {
    /// The batch.
    pub batch: Uuid,
    /// Of the manifest.
    pub bytes: u64,
    /// From the command's start to its end.
    pub seconds: f64,
    /// The most that `dispatcher submit` had in memory.
    pub client_peak_bytes: u64,
    /// The same of `dispatcher serve`.
    pub server_peak_bytes: u64,
}

/// Writes a manifest of so many lines, each of one object with two points, and submits it with `dispatcher submit`.
pub async fn submit(system: &System, dispatcher: &Program, lines: u64) -> anyhow::Result<Submission> {
    let mut manifest = BufWriter::new(NamedTempFile::new()?);
    for line in 0..lines {
        let (x, y) = (line % 1_000, line / 1_000 % 1_000);
        writeln!(
            manifest,
            r#"{{"image": "s3://{BUCKET}/slide-{line}.png", "points": [[{x}, {y}, 1], [4.5, 4, 0]], "id": "slide-{line}"}}"#
        )?;
    }
    let manifest = manifest.into_inner()?;
    let bytes = manifest.as_file().metadata()?.len();
    let mut environment = system.environment();
    environment.push(("DOTMASK_SERVER".into(), format!("http://{}", system.dispatcher_address())));
    let mut command = Program::client("dispatcher", &environment)?;
    command.arg("submit").arg(manifest.path()).args(["--pool", POOL]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    forget_peak(dispatcher.pid())?;

    let started = Instant::now();
    let mut client = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let mut client_peak_bytes = 0;
    while client.try_wait()?.is_none() {
        // Gone in between is gone for good.
        client_peak_bytes = client.id().and_then(|pid| peak_bytes(pid).ok()).unwrap_or(0).max(client_peak_bytes);
        let _ = tokio::time::timeout(LOOK, client.wait()).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let output = client.wait_with_output().await?;
    ensure!(output.status.success(), "submit: {}", String::from_utf8_lossy(&output.stderr));
    let batch = String::from_utf8(output.stdout)?.trim().parse()?;
    let server_peak_bytes = peak_bytes(dispatcher.pid())?;
    Ok(Submission { batch, bytes, seconds, client_peak_bytes, server_peak_bytes })
}

/// Workers whose jobs cost nothing.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// How many.
    pub workers: u16,
    /// In how many processes.
    pub processes: u16,
    /// Jobs that each holds.
    pub prefetch: u16,
    /// Further flags of `noop-worker`.
    pub flags: Vec<String>,
}

impl Fleet {
    /// Starts them.
    pub fn start(&self, system: &System) -> anyhow::Result<Vec<Program>> {
        let start = |process: u16| {
            let workers = self.workers / self.processes + u16::from(process < self.workers % self.processes);
            let [workers, prefetch] = [workers, self.prefetch].map(|number| number.to_string());
            let flags = self.flags.iter().map(String::as_str);
            let arguments: Vec<&str> =
                ["--pool", POOL, "--workers", &workers, "--prefetch", &prefetch].into_iter().chain(flags).collect();
            let log = system.log(&format!("noop-worker-{process}"));
            // Its lines are written and not read.
            let mut environment = system.environment();
            environment.push(("DOTMASK_LOG".into(), "info".into()));
            Ok(Program::start("noop-worker", &arguments, &environment, &log)?)
        };
        (0..self.processes).map(start).collect()
    }
}

/// What doing all the jobs took.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    /// Jobs that succeeded.
    pub jobs: i64,
    /// From the first claim to the last result, by the database's clock.
    pub seconds: f64,
    /// Of everything, and CPU-seconds of Postgres, of RabbitMQ, of the dispatcher and of the workers.
    pub cpu: [f64; 4],
    /// The most connections that Postgres had from dotmask's programs.
    pub connections: i64,
}

/// Lets the fleet do all that is queued.
pub async fn drain(system: &System, dispatcher: &Program, fleet: &Fleet, limit: Duration) -> anyhow::Result<Drained> {
    let mut database = PgConnection::connect(&system.stack.postgres.url()).await?;
    let workers = fleet.start(system)?;
    let cpu = || {
        let rabbitmq = system.stack.rabbitmq.pids();
        [
            system.stack.postgres.pid().map_or(0.0, cpu_seconds),
            rabbitmq.into_iter().map(cpu_seconds).sum(),
            cpu_seconds(dispatcher.pid()),
            workers.iter().map(|worker| cpu_seconds(worker.pid())).sum(),
        ]
    };
    let deadline = Instant::now() + limit;
    let (before, mut connections, mut is_done) = (cpu(), 0, false);
    while !is_done {
        ensure!(Instant::now() < deadline, "not done within {} s; logs:\n{}", limit.as_secs(), system.logs());
        tokio::time::sleep(LOOK).await;
        let row = sqlx::query(
            "SELECT
                (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dotmask') AS connections,
                NOT EXISTS (SELECT FROM jobs WHERE state = 'queued') AND NOT EXISTS (SELECT FROM leases) AS is_done",
        );
        let row = row.fetch_one(&mut database).await?;
        connections = row.get::<i64, _>("connections").max(connections);
        is_done = row.get("is_done");
    }
    let after = cpu();
    let row = sqlx::query(
        "SELECT count(*) AS jobs, extract(epoch FROM max(finished_at) - min(started_at))::float8 AS seconds
         FROM jobs WHERE state = 'succeeded'",
    );
    let row = row.fetch_one(&mut database).await?;
    for worker in workers {
        worker.stop().await?;
    }
    let cpu = std::array::from_fn(|part| after[part] - before[part]);
    Ok(Drained { jobs: row.get("jobs"), seconds: row.get("seconds"), cpu, connections })
}

/// Times from the moment a request of one job is sent to the moment its job is begun by a worker that was idle, in seconds, sorted.
pub async fn latencies(system: &System, probes: u32) -> anyhow::Result<Vec<f64>> {
    let mut database = PgConnection::connect(&system.stack.postgres.url()).await?;
    // Whoever was first has chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let url = format!("http://{}/v1/batches?pool={POOL}", system.dispatcher_address());
    let line = format!(r#"{{"image": "s3://{BUCKET}/a.png", "points": [[24, 24, 1], [4, 4, 0]]}}"#);
    let mut seconds = Vec::new();
    for _ in 0..probes {
        let sent_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let answer = client.post(&url).body(line.clone()).send().await?.error_for_status()?.bytes().await?;
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        let batch: Uuid = answer["id"].as_str().context("a batch has an id")?.parse()?;
        let begun_at: f64 = loop {
            let begun = sqlx::query_scalar(
                "SELECT extract(epoch FROM begun_at)::float8 FROM attempts JOIN jobs ON jobs.id = job_id
                 WHERE batch_id = $1 AND state = 'succeeded'",
            );
            if let Some(begun_at) = begun.bind(batch).fetch_optional(&mut database).await? {
                break begun_at;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        seconds.push(begun_at - sent_at);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

/// The value below which that share of sorted values lies.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// What a queue of this length costs whoever asks.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Of the database, in bytes.
    pub database_bytes: i64,
    /// The median of claims, one at a time.
    pub claim_seconds: f64,
    /// The census of all pools.
    pub census_seconds: f64,
    /// A batch's counts.
    pub counts_seconds: f64,
}

/// Measures it, and gives back what it claims.
pub async fn depth(system: &System, batch: Uuid) -> anyhow::Result<Depth> {
    let mut claims = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        let job = system.ledger.claim(POOL, "load", Duration::from_mins(1)).await?.context("there is a job")?;
        claims.push(started.elapsed().as_secs_f64());
        let _ = system.ledger.release(&job.lease).await?;
    }
    claims.sort_by(f64::total_cmp);
    let started = Instant::now();
    system.ledger.workloads().await?;
    let census_seconds = started.elapsed().as_secs_f64();
    let started = Instant::now();
    system.ledger.batch(batch).await?.context("the batch is there")?;
    let counts_seconds = started.elapsed().as_secs_f64();
    let database_bytes = system.value("SELECT pg_database_size('dotmask')").await?;
    Ok(Depth { database_bytes, claim_seconds: percentile(&claims, 0.5), census_seconds, counts_seconds })
}

/// Forgets all batches, and gives their space back.
pub async fn forget_all(system: &System) -> anyhow::Result<()> {
    let mut database = PgConnection::connect(&system.stack.postgres.url()).await?;
    sqlx::query("TRUNCATE batches, jobs, outbox, queue_heads CASCADE").execute(&mut database).await?;
    system.purge_tokens().await
}

/// A file of so many bytes is written, flushed and thrown away: how long the disk takes for it, the median of many.
pub fn flush_seconds(system: &System) -> anyhow::Result<f64> {
    let path = system.log("flush");
    let mut file = File::create(&path)?;
    let mut seconds = Vec::new();
    for _ in 0..200 {
        file.write_all(&[0; 8192])?;
        let started = Instant::now();
        file.sync_data()?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    fs::remove_file(path)?;
    seconds.sort_by(f64::total_cmp);
    Ok(percentile(&seconds, 0.5))
}
