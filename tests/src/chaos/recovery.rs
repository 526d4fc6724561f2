//! How long it took to recover from each kind of fault.

use std::collections::BTreeMap;

use super::{
    facts::{Attempt, Facts, Job},
    faults::Thrown,
    load::seconds,
    schedule::Kind,
};

/// Times in seconds, of which the median and the greatest are shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Times(Vec<f64>);

impl Times {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The one in the middle, and the greatest; none where there is none.
    pub fn median_and_greatest(&self) -> Option<(f64, f64)> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
    }
}

/// The times of one kind of fault.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// How many were thrown.
    pub thrown: usize,
    /// From a fault's end to the next accepted result, where jobs were waiting.
    pub next_result: Times,
    /// From the moment a worker was hit to the next claim of a job it held.
    pub next_claim: Times,
}

/// Each kind that was thrown.
pub fn recoveries(thrown: &[Thrown], facts: &Facts) -> BTreeMap<Kind, Recovery> {
    let succeeded = |attempt: &&Attempt| attempt.outcome.as_deref() == Some("succeeded");
    let mut accepted: Vec<f64> =
        facts.attempts.values().flatten().filter(succeeded).filter_map(|attempt| attempt.finished_at).collect();
    accepted.sort_by(f64::total_cmp);
    let mut recoveries: BTreeMap<Kind, Recovery> = BTreeMap::new();
    for fault in thrown {
        let recovery = recoveries.entry(fault.kind).or_default();
        recovery.thrown += 1;
        let over = seconds(fault.over);
        if facts.jobs.iter().any(|job| waits(job, over)) {
            let next = accepted.get(accepted.partition_point(|at| *at <= over));
            recovery.next_result.0.extend(next.map(|at| at - over));
        }
        if let Some(worker) = &fault.lost_worker {
            let hit = seconds(fault.hit);
            let held = |attempt: &Attempt| {
                attempt.worker.contains(worker.as_str())
                    && attempt.started_at <= hit
                    && attempt.finished_at.is_some_and(|finished| finished > hit)
                    && attempt.outcome.as_deref() == Some("lost")
            };
            let claims = facts.attempts.values().flat_map(|attempts| attempts.windows(2));
            let claims = claims.filter(|attempts| held(&attempts[0])).map(|attempts| attempts[1].started_at - hit);
            recovery.next_claim.0.extend(claims);
        }
    }
    recoveries
}

/// Whether a job that was to succeed was open.
fn waits(job: &Job, at: f64) -> bool {
    job.state == "succeeded" && job.created_at <= at && job.finished_at.is_some_and(|finished| finished > at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(Times(vec![3.0, 1.0, 2.0]).median_and_greatest(), Some((2.0, 3.0)));
        assert_eq!(Times::default().median_and_greatest(), None);
    }
}
