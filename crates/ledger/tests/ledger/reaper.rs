//! What becomes of the jobs of lost workers.

use crate::fixture::{Fixture, LONG, result};
use ledger::{ClaimedJob, ErrorClass, Finalised, JobFailure, JobState, MAX_ATTEMPTS};
use uuid::Uuid;

#[tokio::test]
async fn queues_a_lost_workers_job_again_and_quarantines_it_the_second_time() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    fixture.submit(2).await;
    ledger.take_outbox(10).await.unwrap().expect("the batch's row").delete().await.unwrap();
    let job = fixture.claim().await;
    assert_eq!(ledger.reap().await.unwrap(), [], "the lease has time left");

    fixture.expire_leases().await;
    let healthy = fixture.claim().await;
    let reaped = ledger.reap().await.unwrap();
    let [first] = reaped.as_slice() else { panic!("{reaped:?}") };
    assert_eq!((first.job_id, first.batch_id, first.epoch), (job.lease.job_id, job.lease.batch_id, 1));
    assert_eq!((first.pool.as_str(), first.worker.as_str(), first.state), ("gpu", "worker", JobState::Queued));
    let owed = ledger.take_outbox(10).await.unwrap().expect("a row");
    assert_eq!(owed.tokens(), [("gpu".to_owned(), 1)]);
    owed.delete().await.unwrap();

    let again = fixture.claim().await;
    assert_eq!((again.lease.job_id, again.attempt), (job.lease.job_id, 2));
    assert_eq!(ledger.finalise(&healthy.lease, &result(&healthy)).await.unwrap(), Finalised::Accepted);
    fixture.expire_leases().await;
    let reaped = ledger.reap().await.unwrap();
    assert_eq!(reaped.iter().map(|job| (job.epoch, job.state)).collect::<Vec<_>>(), [(2, JobState::Quarantined)]);
    let status = ledger.job(job.lease.job_id).await.unwrap().expect("known");
    assert_eq!(status.state, JobState::Quarantined);
    let error = status.error.expect("its reason");
    assert!(error.message.contains("two workers were lost"), "{}", error.message);
    assert_eq!(fixture.outcomes(job.lease.job_id).await, ["lost", "lost"]);
    assert!(ledger.take_outbox(10).await.unwrap().is_none(), "nobody is called for it");
    assert!(fixture.nothing_is_due().await);
    assert_eq!(ledger.reap().await.unwrap(), []);
}

#[tokio::test]
async fn fails_a_job_whose_worker_was_lost_during_the_last_attempt() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    fixture.submit(1).await;
    for _ in 1..MAX_ATTEMPTS {
        let job = fixture.claim().await;
        let failure = JobFailure { class: ErrorClass::Transient, message: "out of memory".into() };
        assert_eq!(ledger.fail(&job.lease, &failure).await.unwrap(), Finalised::Accepted);
        fixture.end_back_offs().await;
    }
    let job = fixture.claim().await;
    assert_eq!(job.attempt, MAX_ATTEMPTS);
    fixture.expire_leases().await;
    assert_eq!(ledger.reap().await.unwrap()[0].state, JobState::Failed);
    let error = ledger.job(job.lease.job_id).await.unwrap().expect("known").error.expect("its reason");
    assert!(error.message.contains("the last of 5 attempts"), "{}", error.message);
}

#[tokio::test]
async fn a_heartbeat_saves_a_lease_that_was_not_taken_away_yet() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    fixture.submit(1).await;
    let job = fixture.claim().await;
    fixture.expire_leases().await;
    assert!(ledger.heartbeat(&job.lease, LONG).await.unwrap());
    assert_eq!(ledger.reap().await.unwrap(), []);
    fixture.expire_leases().await;
    assert_eq!(ledger.finalise(&job.lease, &result(&job)).await.unwrap(), Finalised::Accepted);
    assert_eq!(ledger.reap().await.unwrap(), []);
}

#[tokio::test]
async fn a_server_that_just_came_up_gives_each_lease_its_time_again() {
    let mut fixture = Fixture::start().await;
    fixture.submit(1).await;
    let job = fixture.claim().await;
    fixture.execute("UPDATE leases SET expires_at = now() - interval '1 hour'").await;
    fixture.postgres.restart().await.unwrap();
    assert_eq!(fixture.ledger.reap().await.unwrap(), [], "ten minutes from the start");
    assert!(fixture.ledger.heartbeat(&job.lease, LONG).await.unwrap());
    // That much later, in the only way to have it now.
    fixture.expire_leases().await;
    assert_eq!(fixture.ledger.reap().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reapers_and_workers_that_meet_agree_on_one_outcome() {
    let fixture = Fixture::start().await;
    fixture.submit(60).await;
    let mut jobs = Vec::new();
    for _ in 0..60 {
        jobs.push(fixture.claim().await);
    }
    fixture.expire_leases().await;
    let reapers = [(); 2].map(|()| {
        let ledger = fixture.ledger.clone();
        tokio::spawn(async move { ledger.reap().await.unwrap() })
    });
    let workers: Vec<_> = jobs
        .into_iter()
        .map(|job| {
            let ledger = fixture.ledger.clone();
            tokio::spawn(async move { (job.lease.job_id, ledger.finalise(&job.lease, &result(&job)).await.unwrap()) })
        })
        .collect();
    let mut reaped = Vec::new();
    for reaper in reapers {
        reaped.extend(reaper.await.unwrap().into_iter().map(|job| job.job_id));
    }
    let mut accepted = Vec::new();
    for worker in workers {
        let (job, answer) = worker.await.unwrap();
        let state = fixture.state(job).await;
        match answer {
            Finalised::Accepted => assert_eq!(state, JobState::Succeeded),
            Finalised::LeaseLost => assert_eq!(state, JobState::Queued),
        }
        accepted.extend((answer == Finalised::Accepted).then_some(job));
    }
    assert!(reaped.iter().all(|job| !accepted.contains(job)));
    assert_eq!(reaped.len() + accepted.len(), 60, "each job once");
    assert_eq!(fixture.count("SELECT count(*) FROM leases").await, 0);
}

#[tokio::test]
async fn a_reaper_passes_over_a_job_whose_worker_is_just_speaking() {
    let fixture = Fixture::start().await;
    fixture.submit(1).await;
    fixture.claim().await;
    fixture.expire_leases().await;
    // What a worker's last word locks, and what its heartbeat locks.
    for held in ["SELECT FROM jobs FOR UPDATE", "SELECT FROM leases FOR UPDATE"] {
        let mut speaking = fixture.sql.begin().await.unwrap();
        sqlx::query(held).execute(&mut *speaking).await.unwrap();
        assert_eq!(fixture.ledger.reap().await.unwrap(), [], "{held}");
        speaking.rollback().await.unwrap();
    }
    assert_eq!(fixture.ledger.reap().await.unwrap().len(), 1);
}

#[tokio::test]
async fn charges_a_crash_to_the_job_that_was_computed_and_not_to_its_neighbour() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    fixture.submit(2).await;
    let take_both = async || [fixture.claim().await.lease.job_id, fixture.claim().await.lease.job_id];
    let [computed, neighbour] = take_both().await;
    fixture.expire_leases().await;
    let reaped = ledger.reap().await.unwrap();
    assert_eq!(reaped.iter().map(|job| job.state).collect::<Vec<_>>(), [JobState::Queued; 2]);

    // Heartbeats are seconds apart, so the leases of one worker may end in different passes, in either order.
    assert_eq!(take_both().await, [computed, neighbour]);
    expire_lease(&fixture, computed).await;
    let reaped = ledger.reap().await.unwrap();
    assert_eq!(reaped.iter().map(|job| (job.job_id, job.state)).collect::<Vec<_>>(), [(computed, JobState::Quarantined)]);
    fixture.expire_leases().await;
    let reaped = ledger.reap().await.unwrap();
    assert_eq!(reaped.iter().map(|job| (job.job_id, job.state)).collect::<Vec<_>>(), [(neighbour, JobState::Queued)]);

    fixture.submit(1).await;
    let [first, second] = take_both().await;
    let newcomer = if first == neighbour { second } else { first };
    expire_lease(&fixture, second).await;
    assert_eq!(ledger.reap().await.unwrap()[0].state, JobState::Queued);
    let crashes: Vec<i32> = sqlx::query_scalar("SELECT crashes FROM jobs WHERE id = ANY($1) ORDER BY array_position($1, id)")
        .bind(vec![computed, neighbour, newcomer])
        .fetch_all(&fixture.sql)
        .await
        .unwrap();
    assert_eq!(crashes, [2, 0, 0]);
    // Alone with a worker, it is the one that was computed.
    fixture.expire_leases().await;
    ledger.reap().await.unwrap();
    assert_eq!(fixture.count("SELECT sum(crashes) FROM jobs WHERE state = 'queued'").await, 1);
}

#[tokio::test]
async fn charges_the_job_that_was_begun_last_whatever_was_claimed_first() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    fixture.submit(3).await;
    let [uploading, computed, waiting] = [fixture.claim().await, fixture.claim().await, fixture.claim().await];
    ledger.begin(&uploading.lease).await.unwrap();
    ledger.begin(&computed.lease).await.unwrap();
    let crashes = async |job: &ClaimedJob| -> i32 {
        let statement = "SELECT crashes FROM jobs WHERE id = $1";
        sqlx::query_scalar(statement).bind(job.lease.job_id).fetch_one(&fixture.sql).await.unwrap()
    };
    // In passes of their own, as leases end.
    for (job, charged) in [(&uploading, 0), (&computed, 1), (&waiting, 0)] {
        expire_lease(&fixture, job.lease.job_id).await;
        assert_eq!(ledger.reap().await.unwrap().len(), 1);
        assert_eq!(crashes(job).await, charged);
    }
}

async fn expire_lease(fixture: &Fixture, job: Uuid) {
    let statement = "UPDATE leases SET ttl = '0', expires_at = now() - interval '1 second' WHERE job_id = $1";
    sqlx::query(statement).bind(job).execute(&fixture.sql).await.unwrap();
}
