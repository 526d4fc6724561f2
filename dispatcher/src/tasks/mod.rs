//! What the dispatcher does beside answering requests. Every task may run in several dispatchers at once.

mod ageing;
mod census;
mod reaper;
mod reconciler;
mod relay;

use std::{sync::Arc, time::Duration};

use broker::{BrokerError, Publisher};
use ledger::Ledger;
use telemetry::{Health, Outage};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, workloads::Workloads};

/// The most tokens one queue is given at a time. Workers need no more between two looks of the reconciler, which brings the
/// others when they are wanted and adds none to a queue with as many; so a batch of millions costs the broker next to nothing
/// and a purged queue is full again at once.
const MAX_TOKENS: u32 = 10_000;

/// What the tasks share.
#[derive(Clone)]
pub struct Tasks {
    /// The jobs.
    pub ledger: Ledger,
    /// The broker.
    pub rabbitmq: broker::Server,
    /// Wakes the relay.
    pub outbox_filled: Arc<Notify>,
    /// What is counted.
    pub metrics: Metrics,
    /// Says how Postgres and the broker are.
    pub health: Health,
    /// Ends every task.
    pub shutdown: CancellationToken,
}

/// How often the tasks act, or after what.
#[derive(Debug, Clone, Copy)]
pub struct Periods {
    /// From one look for lost workers to the next.
    pub reap: Duration,
    /// From one comparison of jobs due and tokens queued to the next.
    pub reconcile: Duration,
    /// How long a priority stands still before its head is raised.
    pub age: Duration,
}

impl Tasks {
    /// Starts every task; they end with `shutdown` and no sooner.
    pub fn spawn(self, every: Periods, workloads: Workloads) -> JoinSet<Option<()>> {
        let shutdown = self.shutdown.clone();
        let mut running = JoinSet::new();
        // A pass cut short leaves nothing half done: its transaction is rolled back, and tokens sent twice are harmless.
        running.spawn(shutdown.clone().run_until_cancelled_owned(relay::run(self.clone())));
        running.spawn(shutdown.clone().run_until_cancelled_owned(reaper::run(self.clone(), every.reap)));
        running.spawn(shutdown.clone().run_until_cancelled_owned(reconciler::run(self.clone(), every.reconcile)));
        running.spawn(shutdown.clone().run_until_cancelled_owned(ageing::run(self.clone(), every.age)));
        running.spawn(shutdown.clone().run_until_cancelled_owned(census::watch_postgres(self.clone())));
        running.spawn(shutdown.run_until_cancelled_owned(census::run(self, workloads)));
        running
    }
}

/// When a task's next pass begins.
struct Pace {
    period: Duration,
    outage: Outage,
}

impl Pace {
    fn new(part: &'static str, period: Duration) -> Self {
        Self { period, outage: Outage::new(part) }
    }

    /// Waits for the period's end after a good pass, for a back-off after one that failed.
    async fn rest_after(&mut self, outcome: Result<(), TaskError>) {
        let rest = match outcome {
            Ok(()) => {
                self.outage.works();
                self.period
            }
            Err(error) => self.outage.failed(error),
        };
        tokio::time::sleep(rest).await;
    }
}

/// The connection to the broker, made if there is none yet. One that is lost comes back by itself.
async fn connected<'a>(publisher: &'a mut Option<Publisher>, tasks: &Tasks) -> Result<&'a mut Publisher, BrokerError> {
    match publisher {
        Some(publisher) => Ok(publisher),
        None => Ok(publisher.insert(Publisher::connect(tasks.rabbitmq.clone()).await?)),
    }
}

/// Why a pass failed. Both say themselves what, where and what to do.
#[derive(Debug, thiserror::Error)]
enum TaskError {
    #[error(transparent)]
    Ledger(#[from] ledger::LedgerError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}
