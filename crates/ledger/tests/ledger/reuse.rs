//! A finished result is found by what decided it.

use crate::fixture::{Fixture, gpu, request, result};
use ledger::{Finalised, NewBatch};

#[tokio::test]
async fn finds_an_accepted_result_by_its_key_and_no_other() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let mut writer = ledger.begin_batch(NewBatch { reuse: true, ..gpu() }).await.unwrap();
    writer.push(1, &request(1)).await.unwrap();
    writer.commit().await.unwrap();
    fixture.submit(1).await;
    let (job, other) = (fixture.claim().await, fixture.claim().await);
    assert!(job.reuse && !other.reuse, "as its batch has it");

    let key = [7; 32];
    ledger.lend(&job.lease, &key).await.unwrap();
    assert_eq!(ledger.reusable(&key).await.unwrap(), None, "nothing was accepted yet");
    for job in [&job, &other] {
        assert_eq!(ledger.finalise(&job.lease, &result(job)).await.unwrap(), Finalised::Accepted);
        ledger.lend(&job.lease, &key).await.unwrap();
    }
    let found = ledger.reusable(&key).await.unwrap().expect("it was lent");
    assert_eq!((found.job_id, found.epoch), (other.lease.job_id, other.lease.epoch), "the last one stays");
    let mut made = result(&other);
    made.artifacts.sort_by_key(|artifact| (artifact.object, artifact.kind as u8));
    assert_eq!(found.result, made);
    assert_eq!(ledger.reusable(&[8; 32]).await.unwrap(), None);
}
