use std::time::{Duration, Instant};

use super::{Pace, TaskError, Tasks};

/// The open jobs are counted so often,
const EVERY: Duration = Duration::from_secs(5);
/// and no more than this part of the time: with millions of jobs counting takes a while.
const SHARE: u32 = 20;

/// Measures what waits and runs for the metrics, and by that says whether Postgres answers.
pub async fn run(tasks: Tasks) {
    let mut pace = Pace::new("postgres", EVERY);
    loop {
        let started = Instant::now();
        let outcome = pass(&tasks).await;
        pace.period = EVERY.max(started.elapsed() * SHARE);
        pace.rest_after(outcome).await;
    }
}

async fn pass(tasks: &Tasks) -> Result<(), TaskError> {
    let workloads = tasks.ledger.workloads(None).await;
    tasks.health.set("postgres", workloads.as_ref().map(|_| ()).map_err(ToString::to_string));
    for workload in workloads? {
        tasks.metrics.set_workload(&workload);
    }
    Ok(())
}
