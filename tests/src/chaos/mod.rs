//! The whole system under faults: thousands of short jobs through real processes and servers, which are killed, stopped, cut off and
//! restarted meanwhile; then a verdict on every invariant, by what Postgres and the object store say alone.

mod cluster;
mod dice;
mod facts;
mod faults;
mod load;
mod plan;
mod recovery;
mod report;
mod run;
mod schedule;
mod store;
mod verdict;

use std::{path::PathBuf, time::Duration};

pub use report::Report;
pub use run::run;
pub use schedule::{Kind, Scheduled, schedule};

/// How many dispatchers there are.
pub const DISPATCHERS: usize = 2;
/// How many workers there are.
pub const WORKERS: usize = 4;
/// How long a worker's job stays its own without a heartbeat.
pub const LEASE: Duration = Duration::from_secs(4);

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides the faults and the load.
    pub seed: u64,
    /// How many jobs are submitted.
    pub jobs: usize,
    /// How many faults are thrown.
    pub faults: usize,
    /// For how long, from the first submission. The queue is worked off afterwards.
    pub duration: Duration,
    /// Garage's program, where it is to be the object store.
    pub garage: Option<PathBuf>,
    /// Where everything goes: the schedule, the logs, the report.
    pub folder: PathBuf,
}

impl Options {
    /// The faults this run throws.
    pub fn schedule(&self) -> Vec<Scheduled> {
        schedule(self.seed, self.faults, self.duration)
    }
}
