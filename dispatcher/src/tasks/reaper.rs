use std::time::Duration;

use super::{Pace, TaskError, Tasks};
use ledger::JobState;

/// Takes jobs back from workers whose lease has expired.
pub async fn run(tasks: Tasks, every: Duration) {
    let mut pace = Pace::new("reaper", every);
    loop {
        pace.rest_after(pass(&tasks).await).await;
    }
}

async fn pass(tasks: &Tasks) -> Result<(), TaskError> {
    let reaped = tasks.ledger.reap().await?;
    for job in &reaped {
        tasks.metrics.record_reaped(job);
        let became = match job.state {
            JobState::Quarantined => "quarantined: two workers were lost while they had it",
            JobState::Failed => "failed: that was its last attempt",
            _ => "queued again",
        };
        tracing::warn!(job.id = %job.job_id, batch.id = %job.batch_id, pool = job.pool, worker = job.worker, epoch = job.epoch, state = job.state.label(), became, "worker lost");
    }
    if !reaped.is_empty() {
        tasks.outbox_filled.notify_one();
    }
    Ok(())
}
