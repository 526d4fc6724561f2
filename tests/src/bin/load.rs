//! `load`: how fast the system around the model is. For docs/BENCHMARKS.md.

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::{Parser, Subcommand};
use serde_json::json;
use tests::{
    System,
    load::{Drained, Fleet, Submission, depth, drain, flush_seconds, forget_all, latencies, percentile, submit},
    repository,
};

/// Puts load on a system of its own and prints what it did with it. Its servers are private, and gone at the end.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Submission, claims and results, and the time from submission to the start of the work.
    Rates {
        #[command(flatten)]
        load: Load,
        /// How many single jobs are submitted to an idle worker.
        #[arg(long, default_value_t = 300)]
        probes: u32,
    },
    /// The same queue with other fleets.
    Fleets {
        #[command(flatten)]
        load: Load,
        /// How many workers, one fleet after the other.
        #[arg(long, value_delimiter = ',', default_value = "1,2,4,16")]
        fleets: Vec<u16>,
        /// How many connections Postgres takes.
        #[arg(long, default_value_t = 200)]
        max_connections: u16,
    },
    /// The same of Celery on RabbitMQ and of Procrastinate on PostgreSQL, on the same servers.
    Peers {
        /// The Python that has what `tests/peers/requirements.txt` names.
        #[arg(long)]
        python: PathBuf,
        /// How many jobs.
        #[arg(long, default_value_t = 20_000)]
        jobs: u64,
        /// How many single jobs are submitted to an idle worker.
        #[arg(long, default_value_t = 300)]
        probes: u32,
    },
    /// What more jobs cost.
    Growth {
        /// How many jobs, one queue after the other.
        #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
        jobs: Vec<u64>,
    },
}

#[derive(clap::Args)]
struct Load {
    /// How many jobs.
    #[arg(long, default_value_t = 100_000)]
    jobs: u64,
    /// How many workers.
    #[arg(long, default_value_t = 4)]
    workers: u16,
    /// In how many processes.
    #[arg(long, default_value_t = 4)]
    processes: u16,
    /// Jobs that each worker holds.
    #[arg(long, default_value_t = 64)]
    prefetch: u16,
    /// Flags of `noop-worker`, after `--`.
    #[arg(last = true)]
    flags: Vec<String>,
}

const LIMIT: Duration = Duration::from_mins(10);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { what } = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut system = System::start().await?;
    if let What::Fleets { max_connections, .. } = &what {
        system.stack.postgres.set(&format!("max_connections={max_connections}"));
        system.stack.postgres.restart().await?;
    }
    let dispatcher = system.start_dispatcher_as_shipped().await?;
    println!("{}", json!({"what": "disk", "fdatasync_ms": flush_seconds(&system)? * 1e3}));
    match what {
        What::Rates { load, probes } => {
            let submitted = submit(&system, &dispatcher, load.jobs).await?;
            println!("{}", submission(load.jobs, &submitted));
            let fleet = load.fleet(load.workers);
            println!("{}", drained(&fleet, &drain(&system, &dispatcher, &fleet, LIMIT).await?));
            let idle = Fleet { workers: 1, processes: 1, prefetch: 2, flags: Vec::new() };
            let worker = idle.start(&system)?;
            let times = latencies(&system, probes).await?;
            drop(worker);
            let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| percentile(&times, share) * 1e3);
            println!(
                "{}",
                json!({"what": "start", "probes": probes, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": max})
            );
        }
        What::Fleets { load, fleets, .. } => {
            for (fleet, workers) in fleets.into_iter().enumerate() {
                if fleet > 0 {
                    forget_all(&system).await?;
                }
                submit(&system, &dispatcher, load.jobs).await?;
                let fleet = load.fleet(workers);
                println!("{}", drained(&fleet, &drain(&system, &dispatcher, &fleet, LIMIT).await?));
            }
        }
        What::Peers { python, jobs, probes } => {
            let database = system.stack.postgres.create_database("peers").await?;
            for peer in ["celery_peer.py", "procrastinate_peer.py"] {
                let status = tokio::process::Command::new(&python)
                    .arg(repository().join("tests/peers").join(peer))
                    .args(["--jobs", &jobs.to_string(), "--probes", &probes.to_string()])
                    .envs(system.environment())
                    .env("PEER_DATABASE_URL", &database)
                    .env("PYTHONDONTWRITEBYTECODE", "1")
                    .kill_on_drop(true)
                    .status()
                    .await?;
                ensure!(status.success(), "{peer}: {status}");
            }
        }
        What::Growth { jobs } => {
            for (queue, jobs) in jobs.into_iter().enumerate() {
                if queue > 0 {
                    forget_all(&system).await?;
                }
                let submitted = submit(&system, &dispatcher, jobs).await?;
                println!("{}", submission(jobs, &submitted));
                let depth = depth(&system, submitted.batch).await?;
                println!(
                    "{}",
                    json!({
                        "what": "depth", "jobs": jobs, "database_mib": depth.database_bytes >> 20, "claim_ms": depth.claim_seconds * 1e3,
                        "census_ms": depth.census_seconds * 1e3, "counts_ms": depth.counts_seconds * 1e3
                    })
                );
            }
        }
    }
    Ok(())
}

impl Load {
    fn fleet(&self, workers: u16) -> Fleet {
        Fleet { workers, processes: self.processes.min(workers), prefetch: self.prefetch, flags: self.flags.clone() }
    }
}

fn submission(jobs: u64, submitted: &Submission) -> serde_json::Value {
    json!({
        "what": "submit", "jobs": jobs, "bytes_a_line": submitted.bytes / jobs, "seconds": submitted.seconds,
        "jobs_per_second": jobs as f64 / submitted.seconds, "client_peak_mib": submitted.client_peak_bytes >> 20,
        "dispatcher_peak_mib": submitted.server_peak_bytes >> 20
    })
}

fn drained(fleet: &Fleet, drained: &Drained) -> serde_json::Value {
    let [postgres, rabbitmq, dispatcher, workers] = drained.cpu.map(|seconds| seconds * 1e6 / drained.jobs as f64);
    json!({
        "what": "drain", "workers": fleet.workers, "processes": fleet.processes, "prefetch": fleet.prefetch, "jobs": drained.jobs,
        "seconds": drained.seconds, "jobs_per_second": drained.jobs as f64 / drained.seconds, "connections": drained.connections,
        "cpu_us_a_job": {"postgres": postgres, "rabbitmq": rabbitmq, "dispatcher": dispatcher, "workers": workers}
    })
}
