//! What must hold at every moment, read from the tables alone. I1, that every job ends, is the model's `finish`; I4, that a purge
//! loses no job, its `reconcile`: there are then as many tokens as jobs are due.

use ledger::{Counts, JobState, MAX_ATTEMPTS};

use super::model::Model;
use crate::fixture::Fixture;

/// Each counts rows that must not be.
const VIOLATIONS: [(&str, &str); 7] = [
    (
        "I2: a result of a job that did not succeed, or a success without one",
        "
        SELECT count(*) FROM jobs FULL JOIN results ON job_id = jobs.id
        WHERE (state = 'succeeded') IS DISTINCT FROM (job_id IS NOT NULL)",
    ),
    (
        "I3: a result of another claim than the last",
        "
        SELECT count(*) FROM results JOIN jobs ON jobs.id = job_id WHERE results.epoch <> jobs.epoch",
    ),
    (
        "I3: claims that are not counted one by one",
        "
        SELECT count(*) FROM jobs WHERE epoch <> (SELECT count(*) FROM attempts WHERE job_id = jobs.id)
            OR epoch <> (SELECT coalesce(max(epoch), 0) FROM attempts WHERE job_id = jobs.id)",
    ),
    (
        "I5: a cancelled job that has a result",
        "
        SELECT count(*) FROM jobs JOIN results ON job_id = jobs.id WHERE state = 'cancelled'",
    ),
    (
        "an attempt that is open though the job does not run, or ended though it does",
        "
        SELECT count(*) FROM attempts JOIN jobs ON jobs.id = job_id
        WHERE (outcome IS NULL) <> (state = 'running' AND attempts.epoch = jobs.epoch)",
    ),
    (
        "a running job without its lease, or a lease without its running job",
        "
        SELECT count(*) FROM leases FULL JOIN jobs ON jobs.id = job_id AND jobs.epoch = leases.epoch
        WHERE (job_id IS NULL) <> (state IS DISTINCT FROM 'running')",
    ),
    (
        "a job that ended without a time, or a time without an end",
        "
        SELECT count(*) FROM jobs WHERE (finished_at IS NULL) <> (state IN ('queued', 'running'))",
    ),
];

pub async fn check(fixture: &Fixture, model: &Model) -> Result<(), String> {
    for (what, statement) in VIOLATIONS {
        let rows = fixture.count(statement).await;
        if rows != 0 {
            return Err(format!("{what}: {rows}"));
        }
    }
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM batches ORDER BY id").fetch_all(&fixture.sql).await.unwrap();
    if !ids.iter().eq(model.batches.keys()) {
        return Err(format!("I1: the batches are {ids:?}, accepted were {:?}", model.batches));
    }
    for (&batch, &size) in &model.batches {
        let jobs = fixture.ledger.jobs(batch, 0, 100).await.unwrap();
        if jobs.len() as u64 != size {
            return Err(format!("I1: batch {batch} has {} jobs of {size}", jobs.len()));
        }
        for job in &jobs {
            let expected = &model.jobs[&job.id];
            let found = (job.state, job.epoch, job.attempt, job.result.is_some());
            if found != (expected.state, expected.epoch, expected.attempt, expected.accepted.is_some()) {
                return Err(format!("job {} is {found:?}, expected {expected:?}", job.id));
            }
            if !(0..=MAX_ATTEMPTS).contains(&job.attempt) || i64::from(job.attempt) > job.epoch {
                return Err(format!("I7: job {} has {} attempts", job.id, job.attempt));
            }
        }
        let count = |state| jobs.iter().filter(|job| job.state == state).count() as u64;
        let sum = Counts {
            queued: count(JobState::Queued),
            running: count(JobState::Running),
            succeeded: count(JobState::Succeeded),
            failed: count(JobState::Failed),
            cancelled: count(JobState::Cancelled),
            quarantined: count(JobState::Quarantined),
        };
        let status = fixture.ledger.batch(batch).await.unwrap().ok_or("the batch is not there")?;
        if status.counts != sum || status.finished_at.is_some() != (sum.open() == 0) {
            return Err(format!("I6: batch {batch} counts {:?}, its jobs are {sum:?}", status.counts));
        }
    }
    Ok(())
}
