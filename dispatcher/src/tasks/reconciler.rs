use std::{collections::HashMap, time::Duration};

use super::{MAX_TOKENS, Pace, TaskError, Tasks, connected};
use broker::{BrokerError, Publisher};

/// Compares the jobs that are due with the tokens that wait, and adds what is missing: after a purge, for retries whose time
/// has come, for tokens lost or spent for nothing. Two dispatchers that do so at once add too many, which is harmless.
pub async fn run(tasks: Tasks, every: Duration) {
    let mut publisher = None;
    let mut pace = Pace::new("reconciler", every);
    loop {
        pace.rest_after(pass(&tasks, &mut publisher).await).await;
    }
}

async fn pass(tasks: &Tasks, publisher: &mut Option<Publisher>) -> Result<(), TaskError> {
    let pools = tasks.ledger.pool_names().await?;
    let due: HashMap<String, u64> = tasks.ledger.due_by_pool(MAX_TOKENS).await?.into_iter().collect();
    let outcome = fill(tasks, publisher, &pools, &due).await;
    tasks.health.set("rabbitmq", outcome.as_ref().map_err(ToString::to_string).copied());
    Ok(outcome?)
}

async fn fill(
    tasks: &Tasks,
    publisher: &mut Option<Publisher>,
    pools: &[String],
    due: &HashMap<String, u64>,
) -> Result<(), BrokerError> {
    let publisher = connected(publisher, tasks).await?;
    for pool in pools {
        let ready = publisher.ready(pool).await?;
        tasks.metrics.set_ready_tokens(pool, ready);
        let wanted = due.get(pool).map_or(0, |&jobs| u32::try_from(jobs).unwrap_or(MAX_TOKENS).min(MAX_TOKENS));
        let missing = wanted.saturating_sub(ready);
        if missing > 0 {
            publisher.publish(pool, missing).await?;
            tasks.metrics.record_reconciled(pool, missing);
            tracing::info!(pool, tokens = missing, "tokens added: more jobs were due than tokens waited");
        }
    }
    Ok(())
}
