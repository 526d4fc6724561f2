//! News of cancelled jobs, so that a cancelled job stops at its next step and not at its next heartbeat.

use ledger::{Cancellations, Ledger, LedgerError};
use telemetry::Outage;
use tokio::{sync::broadcast, time::sleep};
use uuid::Uuid;

/// Ids that may wait for a lease to look at them; one that misses some looks at its lease.
const WAITING: usize = 64;

/// Where the ids of cancelled jobs and batches are heard from now on. While Postgres cannot be heard, a cancelled job stops at its
/// next heartbeat.
pub fn cancellations(ledger: Ledger) -> broadcast::Sender<Uuid> {
    let (sender, _) = broadcast::channel(WAITING);
    tokio::spawn(listen(ledger, sender.clone()));
    sender
}

async fn listen(ledger: Ledger, sender: broadcast::Sender<Uuid>) {
    let mut outage = Outage::new("listening for cancelled jobs");
    loop {
        let error = match ledger.cancellations().await {
            Ok(cancellations) => {
                outage.works();
                forward(cancellations, &sender).await
            }
            Err(error) => error,
        };
        sleep(outage.failed(error)).await;
    }
}

/// Until the connection is lost for good.
async fn forward(mut cancellations: Cancellations, sender: &broadcast::Sender<Uuid>) -> LedgerError {
    loop {
        match cancellations.next().await {
            // Without a lease there is nobody to hear it.
            Ok(id) => drop(sender.send(id)),
            Err(error) => return error,
        }
    }
}
