use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ledger::Workload;

/// What is older says nothing about now.
const TOO_OLD: Duration = Duration::from_mins(3);

/// The census's last measure of every pool, for requests that come more often than counting is good for. Clones share it.
#[derive(Clone, Default)]
pub struct Workloads(Arc<Mutex<Option<Measure>>>);

struct Measure {
    at: Instant,
    pools: Vec<Workload>,
}

impl Workloads {
    /// The pools were just measured.
    pub fn set(&self, pools: Vec<Workload>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Measure { at: Instant::now(), pools });
    }

    /// The last measure, unless there is none yet or Postgres has been away for too long since.
    pub fn get(&self) -> Option<Vec<Workload>> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|measure| measure.at.elapsed() < TOO_OLD).map(|measure| measure.pools.clone())
    }
}
