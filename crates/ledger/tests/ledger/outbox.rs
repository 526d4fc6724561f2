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
