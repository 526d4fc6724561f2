//! Who gets which job, and what an old lease is worth.

use std::collections::BTreeSet;

use crate::fixture::{Fixture, LONG, gpu, request, result};
use ledger::{ErrorClass, Finalised, JobFailure, JobState, Lease, LedgerError, NewBatch};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gives_each_job_to_one_of_eight_claimers() {
    let fixture = Fixture::start().await;
    fixture.submit(400).await;
    let mut claimers = JoinSet::new();
    for number in 0..8 {
        let ledger = fixture.ledger.clone();
        claimers.spawn(async move {
            let mut claimed = Vec::new();
            // SKIP LOCKED passes over a job that another one is just taking, so that the last ones may see none: ask again.
            while !ledger.due_by_pool(10_000).await.unwrap().is_empty() {
                claimed.extend(ledger.claim("gpu", &format!("worker-{number}"), LONG).await.unwrap());
            }
            claimed
        });
    }
    let claimed: Vec<_> = claimers.join_all().await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 400);
    assert_eq!(claimed.iter().map(|job| job.lease.job_id).collect::<BTreeSet<_>>().len(), 400);
    assert!(claimed.iter().all(|job| job.attempt == 1 && job.lease.epoch == 1));
    assert_eq!(fixture.count("SELECT count(*) FROM leases").await, 400);
    let gpu = fixture.ledger.pools().await.unwrap().remove(1);
    assert_eq!((gpu.queued, gpu.running), (0, 400));
}

#[tokio::test]
async fn serves_priorities_first_and_batches_in_turns() {
    let fixture = Fixture::start().await;
    let large = fixture.submit(100).await.id;
    for _ in 0..10 {
        assert_eq!(fixture.claim().await.lease.batch_id, large);
    }
    // Comes in while the large one is under way, and does not wait for its end.
    let small = fixture.submit(3).await.id;
    let mut writer = fixture.ledger.begin_batch(NewBatch { priority: 5, ..gpu() }).await.unwrap();
    let urgent = writer.id();
    for line in 1..=2 {
        writer.push(line, &request(line)).await.unwrap();
    }
    writer.commit().await.unwrap();

    let mut served = Vec::new();
    for _ in 0..9 {
        served.push(fixture.claim().await.lease.batch_id);
    }
    assert_eq!(served, [urgent, urgent, large, small, large, small, large, small, large]);
    assert!(fixture.ledger.claim("cpu", "worker", LONG).await.unwrap().is_none(), "another pool's work");
}

#[tokio::test]
async fn a_stale_epoch_changes_nothing() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    fixture.submit(1).await;
    let stale = fixture.claim().await;
    fixture.expire_leases().await;
    assert_eq!(ledger.reap().await.unwrap().len(), 1);
    let current = fixture.claim().await;
    assert_eq!((current.lease.job_id, current.lease.epoch, current.attempt), (stale.lease.job_id, 2, 2));
    let before = fixture.ledger.job(current.lease.job_id).await.unwrap();

    // One that never was is no better.
    let invented = Lease { epoch: 3, ..current.lease.clone() };
    for lease in [&stale.lease, &invented] {
        assert!(!ledger.heartbeat(lease, LONG).await.unwrap());
        assert_eq!(ledger.finalise(lease, &result(&stale)).await.unwrap(), Finalised::LeaseLost);
        for class in [ErrorClass::Transient, ErrorClass::Permanent, ErrorClass::Shutdown] {
            let failure = JobFailure { class, message: "late".into() };
            assert_eq!(ledger.fail(lease, &failure).await.unwrap(), Finalised::LeaseLost);
        }
        assert_eq!(ledger.release(lease).await.unwrap(), Finalised::LeaseLost);
    }
    assert_eq!(ledger.job(current.lease.job_id).await.unwrap(), before);
    assert_eq!(fixture.outcomes(current.lease.job_id).await, ["lost", "open"]);
    assert_eq!(fixture.count("SELECT count(*) FROM results").await, 0);

    assert!(ledger.heartbeat(&current.lease, LONG).await.unwrap());
    assert_eq!(ledger.finalise(&current.lease, &result(&current)).await.unwrap(), Finalised::Accepted);
    assert_eq!(fixture.state(current.lease.job_id).await, JobState::Succeeded);
}

#[tokio::test]
async fn a_job_that_cannot_be_read_fails_at_once_and_leaves_the_next_one_alone() {
    let spoiled = [
        "UPDATE jobs SET request = replace(request::text, 'paper', 'sketch')::json WHERE line = 1",
        "UPDATE jobs SET request = '{\"image\": \"s3://scans/2.png\", \"points\": [[1, 2, 0]]}' WHERE line = 2",
        "UPDATE jobs SET request = replace(request::text, 's3://', 'file:///')::json WHERE line = 3",
    ];
    let fixture = Fixture::start().await;
    fixture.submit(4).await;
    for statement in spoiled {
        fixture.execute(statement).await;
    }
    for statement in spoiled {
        let claimed = fixture.ledger.claim("gpu", "worker-1", LONG).await;
        assert!(matches!(claimed, Err(LedgerError::Unreadable { .. })), "{statement}: {claimed:?}");
    }
    let ended: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT state::text, error_class::text, error_message FROM jobs WHERE error_class IS NOT NULL ORDER BY line",
    )
    .fetch_all(&fixture.sql)
    .await
    .unwrap();
    assert_eq!(ended.len(), 3, "{ended:?}");
    for (state, class, message) in &ended {
        assert_eq!((state.as_str(), class.as_str()), ("failed", "permanent"));
        assert!(message.contains("its request is none that this version takes"), "{message}");
        assert!(!message.contains("file://"), "{message}");
    }
    assert_eq!(fixture.count("SELECT count(*) FROM leases").await, 0);
    assert_eq!(fixture.claim().await.request.image.to_string(), "s3://scans/4.png");
}
