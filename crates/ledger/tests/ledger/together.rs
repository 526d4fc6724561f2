//! Calls that one statement serves: each has its own answer.

use std::collections::BTreeSet;

use crate::fixture::{Fixture, LONG, result};
use ledger::{ClaimedJob, Finalised, JobResult, JobState, Ledger, LedgerError};
use tokio::task::JoinSet;

/// All at once, in the order of what they came to.
async fn finalise_all(ledger: &Ledger, offers: Vec<(ClaimedJob, JobResult)>) -> Vec<Result<Finalised, LedgerError>> {
    let offers = offers.into_iter().map(|(job, result)| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.finalise(&job.lease, &result).await })
    });
    let mut answers = Vec::new();
    for offer in offers.collect::<Vec<_>>() {
        answers.push(offer.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn claims_made_together_are_of_the_first_jobs_each_once() {
    let fixture = Fixture::start().await;
    let batch = fixture.submit(120).await.id;
    let mut claims = JoinSet::new();
    for _ in 0..100 {
        let ledger = fixture.ledger.clone();
        claims.spawn(async move { ledger.claim("gpu", "worker", LONG).await.unwrap() });
    }
    let claimed: Vec<_> = claims.join_all().await.into_iter().flatten().collect();
    let ids: BTreeSet<_> = claimed.iter().map(|job| job.lease.job_id).collect();
    let first: BTreeSet<_> = fixture.ledger.jobs(batch, 0, 100).await.unwrap().into_iter().map(|job| job.id).collect();
    assert_eq!(ids, first);
    assert!(claimed.iter().all(|job| (job.attempt, job.lease.epoch) == (1, 1)));
    assert!(fixture.count("SELECT count(DISTINCT started_at) FROM attempts").await < 100, "several went together");
    for job in &claimed {
        assert!(fixture.ledger.heartbeat(&job.lease, LONG).await.unwrap());
    }
    // More ask than there are jobs.
    let mut claims = JoinSet::new();
    for _ in 0..50 {
        let ledger = fixture.ledger.clone();
        claims.spawn(async move { ledger.claim("gpu", "worker", LONG).await.unwrap() });
    }
    assert_eq!(claims.join_all().await.into_iter().flatten().count(), 20);
}

#[tokio::test]
async fn of_results_offered_together_each_has_its_own_answer() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    fixture.submit(12).await;
    let mut jobs = Vec::new();
    for _ in 0..12 {
        jobs.push(fixture.claim().await);
    }
    let [first, cancelled, released, unstorable, twice, ..] = jobs.as_slice() else { panic!("twelve jobs") };
    assert!(ledger.cancel_job(cancelled.lease.job_id).await.unwrap());
    assert_eq!(ledger.release(&released.lease).await.unwrap(), Finalised::Accepted);
    let again = fixture.claim().await;
    assert_eq!((again.lease.job_id, again.lease.epoch), (released.lease.job_id, 2));

    let offer = |job: &ClaimedJob| (job.clone(), result(job));
    // The stale one's with the current one's, which is accepted.
    let answers = finalise_all(ledger, [first, cancelled, released, twice, &again].map(offer).into()).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let (accepted, lost) = (Finalised::Accepted, Finalised::LeaseLost);
    assert_eq!(answers, [accepted, lost, lost, accepted, accepted]);

    // One that cannot be stored is an error for its own worker. Who says the same again hears the same again.
    let mut offers: Vec<_> = jobs[5..].iter().chain([twice, unstorable]).map(offer).collect();
    offers[8].1.artifacts[0].sha256 = "no hash".into();
    let mut answers = finalise_all(ledger, offers).await;
    let error = answers.pop().expect("nine").expect_err("cannot be stored");
    assert!(!error.is_transient(), "{error}");
    assert!(answers.into_iter().all(|answer| answer.unwrap() == accepted));
    assert_eq!(fixture.state(cancelled.lease.job_id).await, JobState::Cancelled);
    assert_eq!(fixture.state(unstorable.lease.job_id).await, JobState::Running);
    for job in [first, twice, &again] {
        let stored = ledger.job(job.lease.job_id).await.unwrap().expect("known").result.expect("its result");
        assert_eq!(stored, result(job), "its own rows and nobody else's");
    }
    assert_eq!(fixture.count("SELECT count(*) FROM results").await, 10);
    assert_eq!(fixture.count("SELECT count(*) FROM artifacts").await, 30);
    assert_eq!(fixture.count("SELECT count(*) FROM masks").await, 20);
    assert_eq!(fixture.count("SELECT count(*) FROM leases").await, 1);
}

#[tokio::test]
async fn of_jobs_claimed_together_one_is_charged_with_the_loss_of_their_worker() {
    for begun in [false, true] {
        let fixture = Fixture::start().await;
        fixture.submit(4).await;
        let mut claims = JoinSet::new();
        for _ in 0..4 {
            let ledger = fixture.ledger.clone();
            claims.spawn(async move { ledger.claim("gpu", "worker", LONG).await.unwrap().expect("a job is due") });
        }
        let jobs = claims.join_all().await;
        // As if all of them went together, whatever the moment made of it.
        fixture.execute("UPDATE attempts SET started_at = now()").await;
        fixture.execute("UPDATE jobs SET started_at = (SELECT max(started_at) FROM attempts)").await;
        if begun {
            for job in &jobs {
                fixture.ledger.begin(&job.lease).await.unwrap();
            }
            fixture.execute("UPDATE attempts SET begun_at = now()").await;
        }
        fixture.expire_leases().await;
        assert_eq!(fixture.ledger.reap().await.unwrap().len(), 4);
        assert_eq!(fixture.count("SELECT sum(crashes) FROM jobs").await, 1, "begun: {begun}");
    }
}
