use std::time::Duration;

use super::{Pace, TaskError, Tasks};

/// Looks so often in the time a priority may stand still.
const LOOKS: u32 = 12;

/// Raises jobs whose priority stands still because higher ones have work.
pub async fn run(tasks: Tasks, after: Duration) {
    let mut pace = Pace::new("ageing", after / LOOKS);
    loop {
        pace.rest_after(pass(&tasks, after).await).await;
    }
}

async fn pass(tasks: &Tasks, after: Duration) -> Result<(), TaskError> {
    for aged in tasks.ledger.age(after).await? {
        tasks.metrics.record_aged(&aged.pool, aged.jobs.unsigned_abs());
        let (pool, from, to) = (aged.pool, aged.from_priority, aged.to_priority);
        tracing::info!(pool, jobs = aged.jobs, from, to, "jobs raised: their priority stood still");
    }
    Ok(())
}
