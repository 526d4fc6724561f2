use std::time::{Duration, Instant};

use super::{Pace, TaskError, Tasks};
use crate::workloads::Workloads;

/// Postgres is asked whether it answers, and the open jobs are counted, so often;
const EVERY: Duration = Duration::from_secs(5);
/// but counting takes no more than this part of the time: with millions of jobs it is a matter of seconds,
const SHARE: u32 = 20;
/// and is seldomer than this for no number of them.
const SELDOMEST: Duration = Duration::from_mins(1);

/// Says whether Postgres answers. Not by the census: that may fail where Postgres is well, and just busy.
pub async fn watch_postgres(tasks: Tasks) {
    let mut pace = Pace::new("postgres", EVERY);
    loop {
        let outcome = tasks.ledger.ping().await;
        tasks.health.set("postgres", outcome.as_ref().map_err(ToString::to_string).copied());
        pace.rest_after(outcome.map_err(TaskError::from)).await;
    }
}

/// Measures what waits and runs, for the metrics and for whoever scales the pools.
pub async fn run(tasks: Tasks, workloads: Workloads) {
    let mut pace = Pace::new("census", EVERY);
    loop {
        let started = Instant::now();
        let outcome = pass(&tasks, &workloads).await;
        pace.period = (started.elapsed() * SHARE).clamp(EVERY, SELDOMEST);
        pace.rest_after(outcome).await;
    }
}

async fn pass(tasks: &Tasks, workloads: &Workloads) -> Result<(), TaskError> {
    let measured = tasks.ledger.workloads().await?;
    for workload in &measured {
        tasks.metrics.set_workload(workload);
    }
    workloads.set(measured);
    Ok(())
}
