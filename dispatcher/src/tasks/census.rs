use std::time::Duration;

use super::{Pace, TaskError, Tasks};

/// The open jobs are counted so often.
const EVERY: Duration = Duration::from_secs(5);

/// Counts open jobs and what waits for the metrics, and by that says whether Postgres answers.
pub async fn run(tasks: Tasks) {
    let mut pace = Pace::new("postgres", EVERY);
    loop {
        pace.rest_after(pass(&tasks).await).await;
    }
}

async fn pass(tasks: &Tasks) -> Result<(), TaskError> {
    let pools = tasks.ledger.pools().await;
    tasks.health.set("postgres", pools.as_ref().map(|_| ()).map_err(ToString::to_string));
    for pool in pools? {
        tasks.metrics.set_open_jobs(&pool.name, pool.queued, pool.running);
    }
    for backlog in tasks.ledger.backlog().await? {
        tasks.metrics.set_backlog(&backlog);
    }
    Ok(())
}
