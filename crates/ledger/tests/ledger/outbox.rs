//! Tokens owed to the broker.

use crate::fixture::Fixture;

#[tokio::test]
async fn rows_stay_when_the_relay_is_dropped_and_vanish_when_it_is_done() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    assert!(ledger.take_outbox(10).await.unwrap().is_none());
    fixture.submit(3).await;
    fixture.submit(4).await;

    let held = ledger.take_outbox(10).await.unwrap().expect("rows");
    assert_eq!(held.tokens(), [("gpu".to_owned(), 7)]);
    assert!(ledger.take_outbox(10).await.unwrap().is_none(), "another relay passes over them");
    drop(held);

    // Dropping rolls back in the background: the rows are free as soon as the server has heard of it.
    let oldest = loop {
        if let Some(rows) = ledger.take_outbox(1).await.unwrap() {
            break rows;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(oldest.tokens(), [("gpu".to_owned(), 3)]);
    let next = ledger.take_outbox(10).await.unwrap().expect("the other row");
    assert_eq!(next.tokens(), [("gpu".to_owned(), 4)]);
    oldest.delete().await.unwrap();
    next.delete().await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM outbox").await, 0);
}

#[tokio::test]
async fn measures_what_waits_in_each_pool() {
    let fixture = Fixture::start().await;
    fixture.submit(3).await;
    fixture.execute("UPDATE jobs SET created_at = created_at - interval '1 hour' WHERE line = 1").await;
    let measure = async || fixture.ledger.backlog().await.unwrap();
    let [cpu, gpu] = measure().await.try_into().unwrap();
    assert_eq!((cpu.pool.as_str(), cpu.next_job_age_seconds, cpu.outbox_tokens), ("cpu", None, 0));
    assert_eq!((gpu.pool.as_str(), gpu.outbox_tokens), ("gpu", 3));
    assert!((3_600.0..3_700.0).contains(&gpu.next_job_age_seconds.unwrap()), "{gpu:?}");

    fixture.claim().await;
    assert!(measure().await[1].next_job_age_seconds.unwrap() < 60.0);
    fixture.execute("UPDATE jobs SET run_at = now() + interval '1 minute'").await;
    assert_eq!(measure().await[1].next_job_age_seconds, None, "what is in its back-off is not due");
}
