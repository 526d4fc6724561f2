use std::time::Duration;

use super::{MAX_TOKENS, Pace, TaskError, Tasks, connected};
use broker::Publisher;

/// Looks at the outbox so often when nobody says that it was filled: workers of other processes fill it too.
const POLL: Duration = Duration::from_secs(1);
/// Outbox rows a transaction.
const ROWS: i64 = 100;

/// Moves tokens from the outbox to the broker. Rows are deleted when every one of their tokens is confirmed, so a crash in
/// between sends tokens twice and never loses one.
pub async fn run(tasks: Tasks) {
    let mut publisher = None;
    let mut pace = Pace::new("relay", POLL);
    loop {
        let outcome = pass(&tasks, &mut publisher).await;
        tokio::select! {
            () = pace.rest_after(outcome) => {}
            () = tasks.outbox_filled.notified() => {}
        }
    }
}

async fn pass(tasks: &Tasks, publisher: &mut Option<Publisher>) -> Result<(), TaskError> {
    while let Some(outbox) = tasks.ledger.take_outbox(ROWS).await? {
        let publisher = connected(publisher, tasks).await?;
        for (pool, tokens) in outbox.tokens() {
            let tokens = tokens.min(MAX_TOKENS);
            publisher.publish(&pool, tokens).await?;
            tasks.metrics.record_published(&pool, tokens);
        }
        outbox.delete().await?;
    }
    Ok(())
}
