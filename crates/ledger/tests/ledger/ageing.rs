//! Low priorities are served slowly, and never starve.

use std::time::Duration;

use crate::fixture::{Fixture, gpu, request};
use ledger::{AgedJobs, NewBatch};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_mins(1);

async fn submit(fixture: &Fixture, priority: i16, jobs: u64) -> Uuid {
    let mut writer = fixture.ledger.begin_batch(NewBatch { priority, ..gpu() }).await.unwrap();
    for line in 1..=jobs {
        writer.push(line, &request(line)).await.unwrap();
    }
    writer.commit().await.unwrap().id
}

/// As if that much time had passed since the last look.
async fn a_minute_passes(fixture: &Fixture) {
    fixture.execute("UPDATE queue_heads SET since = since - interval '61 seconds'").await;
}

#[tokio::test]
async fn raises_the_first_job_of_a_priority_that_stands_still() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let low = submit(&fixture, -5, 3).await;
    submit(&fixture, 0, 40).await;
    let high = submit(&fixture, 7, 40).await;
    assert_eq!(ledger.age(PATIENCE).await.unwrap(), [], "nobody has waited yet");
    assert_eq!(fixture.claim().await.lease.batch_id, high);
    assert_eq!(ledger.age(PATIENCE).await.unwrap(), [], "a minute is not over");

    a_minute_passes(&fixture).await;
    let raised = |from_priority| AgedJobs { pool: "gpu".into(), from_priority, to_priority: 7, jobs: 1 };
    assert_eq!(ledger.age(PATIENCE).await.unwrap(), [raised(-5), raised(0)]);
    assert_eq!(ledger.age(PATIENCE).await.unwrap(), [], "once a minute");
    let served = [fixture.claim().await.lease.batch_id, fixture.claim().await.lease.batch_id];
    assert!(served.contains(&low), "its turn came before the high one's next: {served:?}");
}

#[tokio::test]
async fn leaves_a_priority_alone_that_is_served_or_has_nobody_before_it() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    submit(&fixture, 0, 40).await;
    ledger.age(PATIENCE).await.unwrap();
    a_minute_passes(&fixture).await;
    assert_eq!(ledger.age(PATIENCE).await.unwrap(), [], "it is the highest, however long it waits");

    // The urgent ones are done before the minute is over, and the others move on.
    submit(&fixture, 7, 1).await;
    ledger.age(PATIENCE).await.unwrap();
    fixture.claim().await;
    fixture.claim().await;
    submit(&fixture, 7, 1).await;
    a_minute_passes(&fixture).await;
    assert_eq!(ledger.age(PATIENCE).await.unwrap(), [], "its first job is another one than at the last look");
}

#[tokio::test]
async fn raises_more_where_more_run() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    submit(&fixture, 0, 40).await;
    submit(&fixture, 7, 40).await;
    for _ in 0..30 {
        fixture.claim().await;
    }
    ledger.age(PATIENCE).await.unwrap();
    a_minute_passes(&fixture).await;
    assert_eq!(ledger.age(PATIENCE).await.unwrap().iter().map(|aged| aged.jobs).sum::<i64>(), 4);
}

#[tokio::test]
async fn a_raised_job_is_next_however_far_its_own_queue_had_come() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let low = submit(&fixture, 0, 40).await;
    // Its turns are high by now, and those of a priority that is new begin with the first.
    for _ in 0..20 {
        fixture.claim().await;
    }
    let high = submit(&fixture, 7, 40).await;
    ledger.age(PATIENCE).await.unwrap();
    a_minute_passes(&fixture).await;
    assert_eq!(ledger.age(PATIENCE).await.unwrap().iter().map(|aged| aged.jobs).sum::<i64>(), 3, "for 20 that run");
    let mut served = Vec::new();
    for _ in 0..4 {
        served.push(fixture.claim().await.lease.batch_id);
    }
    assert_eq!(served.iter().filter(|batch| **batch == low).count(), 3, "{served:?} of {low} and {high}");
}
