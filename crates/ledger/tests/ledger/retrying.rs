//! Failed jobs are tried again when a user says so; cancelled ones never are.

use crate::fixture::{Fixture, result};
use ledger::{ErrorClass, Finalised, JobFailure, JobState};

fn permanent() -> JobFailure {
    JobFailure { class: ErrorClass::Permanent, message: "no such image".into() }
}

#[tokio::test]
async fn retries_what_failed_and_nothing_else() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let batch = fixture.submit(4).await.id;
    let failed = fixture.claim().await;
    assert_eq!(ledger.fail(&failed.lease, &permanent()).await.unwrap(), Finalised::Accepted);
    let done = fixture.claim().await;
    assert_eq!(ledger.finalise(&done.lease, &result(&done)).await.unwrap(), Finalised::Accepted);
    let cancelled = fixture.claim().await.lease.job_id;
    assert!(ledger.cancel_job(cancelled).await.unwrap());
    assert!(!ledger.cancel_job(cancelled).await.unwrap(), "once");
    while let Some(outbox) = ledger.take_outbox(10).await.unwrap() {
        outbox.delete().await.unwrap();
    }

    assert_eq!(ledger.retry_batch(batch, true).await.unwrap(), 1);
    assert_eq!(ledger.retry_batch(batch, true).await.unwrap(), 0);
    let owed = ledger.take_outbox(10).await.unwrap().expect("a token for it");
    assert_eq!(owed.tokens(), [("gpu".to_owned(), 1)]);
    drop(owed);
    let counts = ledger.batch(batch).await.unwrap().expect("known").counts;
    assert_eq!((counts.queued, counts.succeeded, counts.cancelled), (2, 1, 1));
    let again = ledger.job(failed.lease.job_id).await.unwrap().expect("known");
    assert_eq!((again.state, again.attempt, again.epoch, again.error), (JobState::Queued, 0, 1, None));
    assert!(!ledger.retry_job(cancelled).await.unwrap());

    let claims = [fixture.claim().await, fixture.claim().await];
    let again = claims.iter().find(|job| job.lease.job_id == failed.lease.job_id).expect("it is claimed again");
    assert_eq!((again.attempt, again.lease.epoch), (1, 2));
    assert_eq!(ledger.finalise(&failed.lease, &result(&failed)).await.unwrap(), Finalised::LeaseLost, "the old claim is void");
    assert_eq!(ledger.finalise(&again.lease, &result(again)).await.unwrap(), Finalised::Accepted);
}

#[tokio::test]
async fn retries_a_quarantined_job_only_where_asked_to() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let batch = fixture.submit(1).await.id;
    for _ in 0..2 {
        fixture.claim().await;
        fixture.expire_leases().await;
        ledger.reap().await.unwrap();
    }
    assert_eq!(ledger.batch(batch).await.unwrap().expect("known").counts.quarantined, 1);
    assert_eq!(ledger.retry_batch(batch, false).await.unwrap(), 0);
    assert_eq!(ledger.retry_batch(batch, true).await.unwrap(), 1);
    let job = fixture.claim().await;
    assert_eq!((job.attempt, job.lease.epoch), (1, 3));
}

#[tokio::test]
async fn retried_jobs_wait_in_turns_with_the_others() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let retried = fixture.submit(4).await.id;
    for _ in 0..4 {
        let job = fixture.claim().await;
        assert_eq!(ledger.fail(&job.lease, &permanent()).await.unwrap(), Finalised::Accepted);
    }
    let long = fixture.submit(30).await.id;
    for _ in 0..10 {
        assert_eq!(fixture.claim().await.lease.batch_id, long);
    }
    assert_eq!(ledger.retry_batch(retried, false).await.unwrap(), 4);
    let mut served = Vec::new();
    for _ in 0..8 {
        served.push(fixture.claim().await.lease.batch_id);
    }
    assert_eq!(served, [retried, long, retried, long, retried, long, retried, long]);
}

#[tokio::test]
async fn the_database_refuses_what_is_no_transition() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    fixture.submit(5).await;
    let [done, failed, running, cancelled] =
        [fixture.claim().await, fixture.claim().await, fixture.claim().await, fixture.claim().await];
    assert_eq!(ledger.finalise(&done.lease, &result(&done)).await.unwrap(), Finalised::Accepted);
    assert_eq!(ledger.fail(&failed.lease, &permanent()).await.unwrap(), Finalised::Accepted);
    ledger.cancel_job(cancelled.lease.job_id).await.unwrap();
    for change in [
        "state = 'succeeded', finished_at = now() WHERE state = 'queued'",
        "state = 'succeeded', finished_at = now() WHERE state = 'cancelled'",
        "state = 'queued', finished_at = NULL WHERE state = 'cancelled'",
        "state = 'queued', finished_at = NULL WHERE state = 'succeeded'",
        "state = 'running', started_at = now() WHERE state = 'queued'",
        "state = 'running', epoch = epoch + 2, attempt = attempt + 1, started_at = now() WHERE state = 'queued'",
        "state = 'queued', attempt = 3, finished_at = NULL, error_class = NULL, error_message = NULL WHERE state = 'failed'",
        "epoch = epoch - 1 WHERE state = 'running'",
        "attempt = 5 WHERE state = 'running'",
    ] {
        let error = sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE jobs SET {change}"))).execute(&fixture.sql).await;
        let error = error.expect_err(change);
        assert!(error.to_string().contains("cannot become"), "{change}: {error}");
    }
    assert!(ledger.heartbeat(&running.lease, crate::fixture::LONG).await.unwrap());
}
