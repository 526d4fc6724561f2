//! Whatever happens to a batch's jobs, in whatever order, its counts are theirs and the schema's constraints hold.

use crate::fixture::{Fixture, LONG, result};
use ledger::{BatchStatus, ClaimedJob, Counts, ErrorClass, JobFailure, JobState, MAX_ATTEMPTS};

/// A small generator of numbers that only looks like chance: a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

#[tokio::test]
async fn the_counts_are_the_sum_of_the_jobs_after_every_step() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let batch = fixture.submit(12).await.id;
    fixture.submit(3).await;
    let mut dice = Dice(7);
    // Old leases are kept and used again: they must change nothing.
    let mut leases: Vec<ClaimedJob> = Vec::new();
    let mut steps = 0;
    loop {
        let status = ledger.batch(batch).await.unwrap().expect("known");
        check(&status, &fixture).await;
        if status.counts.open() == 0 {
            break;
        }
        steps += 1;
        assert!(steps < 2_000, "the batch never ends: {:?}", status.counts);
        let any = (!leases.is_empty()).then(|| dice.throw(leases.len())).map(|index| &leases[index]);
        let failure = |class| JobFailure { class, message: "by chance".into() };
        match (dice.throw(16), any) {
            (0..6, _) | (_, None) => {
                fixture.end_back_offs().await;
                leases.extend(ledger.claim("gpu", "worker", LONG).await.unwrap());
            }
            (6..9, Some(job)) => drop(ledger.fail(&job.lease, &failure(ErrorClass::Transient)).await.unwrap()),
            (9, Some(job)) => drop(ledger.fail(&job.lease, &failure(ErrorClass::Permanent)).await.unwrap()),
            (10..12, Some(job)) => drop(ledger.release(&job.lease).await.unwrap()),
            (12..14, Some(job)) => drop(ledger.finalise(&job.lease, &result(job)).await.unwrap()),
            (14, Some(job)) => drop(ledger.heartbeat(&job.lease, LONG).await.unwrap()),
            _ => {
                fixture.expire_leases().await;
                ledger.reap().await.unwrap();
            }
        }
    }
    assert!(steps > 30, "{steps} steps");
}

async fn check(status: &BatchStatus, fixture: &Fixture) {
    let jobs = fixture.ledger.jobs(status.id, 0, 100).await.unwrap();
    let count = |state| u64::try_from(jobs.iter().filter(|job| job.state == state).count()).unwrap();
    let sum = Counts {
        queued: count(JobState::Queued),
        running: count(JobState::Running),
        succeeded: count(JobState::Succeeded),
        failed: count(JobState::Failed),
        cancelled: count(JobState::Cancelled),
        quarantined: count(JobState::Quarantined),
    };
    assert_eq!(status.counts, sum);
    assert_eq!(sum.total(), 12);
    assert_eq!(status.finished_at.is_some(), sum.open() == 0);
    for job in &jobs {
        assert!(job.attempt <= MAX_ATTEMPTS && i64::from(job.attempt) <= job.epoch);
        assert_eq!(job.result.is_some(), job.state == JobState::Succeeded);
        assert_eq!(job.finished_at.is_some(), job.state.is_terminal());
        let outcomes = fixture.outcomes(job.id).await;
        assert_eq!(i64::try_from(outcomes.len()).unwrap(), job.epoch);
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "open").count(), usize::from(job.state == JobState::Running));
    }
    let orphans = "SELECT count(*) FROM leases FULL JOIN jobs ON jobs.id = job_id AND jobs.epoch = leases.epoch
        WHERE (job_id IS NULL) <> (state IS DISTINCT FROM 'running')";
    assert_eq!(fixture.count(orphans).await, 0, "a lease for each running job, and no other");
}
