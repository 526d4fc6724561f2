//! Cancelling beside what others do to a job at the same moment.

use std::time::Duration;

use ledger::JobState;

use crate::fixture::Fixture;

#[tokio::test]
async fn a_job_that_is_cancelled_while_it_is_being_claimed_keeps_no_lease_and_no_open_attempt() {
    for is_batch in [false, true] {
        let fixture = Fixture::start().await;
        let batch = fixture.submit(1).await.id;
        let job = fixture.ledger.jobs(batch, 0, 1).await.unwrap()[0].id;

        // A claim that has changed the job and is not committed yet.
        let mut claim = fixture.sql.begin().await.unwrap();
        for statement in [
            "UPDATE jobs SET state = 'running', attempt = 1, epoch = 1, started_at = now() WHERE id = $1",
            "INSERT INTO leases (job_id, epoch, worker, ttl, expires_at) VALUES ($1, 1, 'w', '1 h', now() + interval '1 h')",
            "INSERT INTO attempts (job_id, epoch, attempt, worker) VALUES ($1, 1, 1, 'w')",
        ] {
            sqlx::query(statement).bind(job).execute(&mut *claim).await.unwrap();
        }
        let ledger = fixture.ledger.clone();
        let cancelling = tokio::spawn(async move {
            if is_batch { ledger.cancel_batch(batch).await.unwrap() == 1 } else { ledger.cancel_job(job).await.unwrap() }
        });
        while fixture.count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").await == 0 {
            assert!(!cancelling.is_finished(), "it waits for the claim");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        claim.commit().await.unwrap();

        assert!(cancelling.await.unwrap());
        assert_eq!(fixture.state(job).await, JobState::Cancelled);
        assert_eq!(fixture.count("SELECT count(*) FROM leases").await, 0);
        assert_eq!(fixture.outcomes(job).await, ["cancelled"]);
    }
}
