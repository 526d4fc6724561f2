//! `capacity`: what jobs cost the servers, measured on real ones with quick workers in the models' place. For docs/BENCHMARKS.md.

use std::time::{Duration, Instant};

use clap::Parser;
use tests::{QuickWorker, System, line, load::resident_bytes, png_of_blobs};

/// Submits jobs, lets quick workers do them, and prints what that took of Postgres.
#[derive(Parser)]
struct Arguments {
    /// How many jobs.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    jobs: u32,
    /// How many workers; each holds 2 x prefetch + 2 connections at most.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
}

const SIZE: &str = "SELECT pg_database_size('dotmask')::float8";
const LOG: &str = "SELECT (pg_current_wal_lsn() - '0/0')::float8";
const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'dotmask' AND pid <> pg_backend_pid()";
const DONE: &str = "SELECT count(*) FROM results";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { jobs, workers } = Arguments::parse();
    let system = System::start().await?;
    let dispatcher = system.start_dispatcher_as_shipped().await?;
    system.put_image("a.png", &png_of_blobs(32, 32, 1))?;
    let lines: Vec<String> = (0..jobs).map(|_| line("a.png", 1)).collect();
    let per_job = |from: f64, to: f64| (to - from) / f64::from(jobs);

    let (size, log, started) = (system.value::<f64>(SIZE).await?, system.value::<f64>(LOG).await?, Instant::now());
    system.submit(&lines).await?;
    let (submit_seconds, queued_size, queued_log) =
        (started.elapsed().as_secs_f64(), system.value::<f64>(SIZE).await?, system.value::<f64>(LOG).await?);

    let mut pool = Vec::new();
    for _ in 0..workers {
        pool.push(QuickWorker::start(&system, &["--prefetch", "8"])?);
    }
    system.until("the first result", async || Ok(system.value::<i64>(DONE).await? > 0)).await?;
    let (started, already) = (Instant::now(), system.value::<i64>(DONE).await?);
    let mut connections = 0;
    loop {
        connections = connections.max(system.value::<i64>(CONNECTIONS).await?);
        if system.value::<i64>(DONE).await? == i64::from(jobs) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let rate = (i64::from(jobs) - already) as f64 / started.elapsed().as_secs_f64();
    let (done_size, done_log) = (system.value::<f64>(SIZE).await?, system.value::<f64>(LOG).await?);

    println!("{jobs} jobs of one object, {workers} quick workers with prefetch 8, 1 dispatcher");
    println!("submitted                        {:>8.0} jobs/s", f64::from(jobs) / submit_seconds);
    println!("claimed, stored and finalised    {rate:>8.0} jobs/s");
    println!("database, a job queued           {:>8.0} bytes", per_job(size, queued_size));
    println!("database, a job done             {:>8.0} bytes", per_job(size, done_size));
    println!("write-ahead log, a job queued    {:>8.0} bytes", per_job(log, queued_log));
    println!("write-ahead log, a job's life    {:>8.0} bytes", per_job(log, done_log));
    println!("connections, at most             {connections:>8}");
    println!("dispatcher's memory              {:>8} MiB", resident_bytes(dispatcher.pid())? >> 20);
    Ok(())
}
