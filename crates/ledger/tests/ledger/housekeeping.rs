//! What docs/OPERATIONS.md tells operators to run, run.

use std::{fs, path::Path};

use ledger::{ErrorClass, Finalised, JobFailure};

use crate::fixture::{Fixture, result};

/// The statements of the section, for batches of any age.
fn deletes_what_is_old() -> String {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/OPERATIONS.md")).unwrap();
    let section = document.split_once("## Housekeeping").expect("the section").1;
    let statements = section.split_once("```sql").expect("its statements").1.split_once("```").expect("their end").0;
    assert!(statements.contains("interval '1 year'"), "{statements}");
    statements.replace("interval '1 year'", "interval '1 hour'")
}

#[tokio::test]
async fn old_batches_go_whole_and_what_is_open_or_young_stays() {
    let fixture = Fixture::start().await;
    let ended = fixture.submit(2).await;
    let done = fixture.claim().await;
    assert_eq!(fixture.ledger.finalise(&done.lease, &result(&done)).await.unwrap(), Finalised::Accepted);
    let failed = fixture.claim().await;
    let failure = JobFailure { class: ErrorClass::Permanent, message: "no image".into() };
    assert_eq!(fixture.ledger.fail(&failed.lease, &failure).await.unwrap(), Finalised::Accepted);
    let open = fixture.submit(2).await;
    let running = fixture.claim().await;
    fixture.execute("UPDATE batches SET created_at = now() - interval '2 hours'").await;
    let young = fixture.submit(1).await;

    sqlx::raw_sql(sqlx::AssertSqlSafe(deletes_what_is_old())).execute(&fixture.sql).await.unwrap();

    assert!(fixture.ledger.batch(ended.id).await.unwrap().is_none(), "it is old and has ended");
    assert_eq!(fixture.count("SELECT count(*) FROM jobs").await, 3);
    assert_eq!(fixture.count("SELECT count(*) FROM attempts").await, 1, "the one that runs");
    assert_eq!(fixture.count("SELECT count(*) FROM results").await, 0);
    for batch in [open.id, young.id] {
        assert!(fixture.ledger.batch(batch).await.unwrap().is_some());
    }
    assert_eq!(fixture.ledger.finalise(&running.lease, &result(&running)).await.unwrap(), Finalised::Accepted);
}
