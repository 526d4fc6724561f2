//! What the scaling and the dashboards are told of a pool.

use ledger::{ErrorClass, Finalised, JobFailure, JobResult, Workload};

use crate::fixture::{Fixture, LONG, result};

async fn gpu(fixture: &Fixture) -> Workload {
    fixture.ledger.workloads().await.unwrap().remove(1)
}

#[tokio::test]
async fn measures_what_waits_in_each_pool() {
    let fixture = Fixture::start().await;
    fixture.submit(3).await;
    fixture.execute("UPDATE jobs SET created_at = created_at - interval '1 hour' WHERE line = 1").await;
    let [cpu, gpu_now] = fixture.ledger.workloads().await.unwrap().try_into().unwrap();
    assert_eq!((cpu.pool.as_str(), cpu.queued, cpu.outbox_tokens), ("cpu", 0, 0));
    assert_eq!((cpu.next_job_age_seconds, cpu.oldest_job_age_seconds, cpu.outbox_age_seconds), (None, None, None));
    assert_eq!((gpu_now.pool.as_str(), gpu_now.queued, gpu_now.outbox_tokens), ("gpu", 3, 3));
    assert!((3_600.0..3_700.0).contains(&gpu_now.next_job_age_seconds.unwrap()), "{gpu_now:?}");

    fixture.claim().await;
    assert!(gpu(&fixture).await.next_job_age_seconds.unwrap() < 60.0);
    fixture.execute("UPDATE jobs SET run_at = now() + interval '1 minute'").await;
    assert_eq!(gpu(&fixture).await.next_job_age_seconds, None, "what is in its back-off is not due");
    assert!(gpu(&fixture).await.oldest_job_age_seconds.is_some(), "and waits all the same");
}

#[tokio::test]
async fn the_oldest_job_and_the_oldest_token_tell_their_age() {
    let fixture = Fixture::start().await;
    fixture.submit(1).await;
    fixture.execute("UPDATE jobs SET created_at = now() - interval '2 hours'").await;
    fixture.execute("UPDATE outbox SET created_at = now() - interval '1 hour'").await;
    fixture.submit(1).await;
    let measured = gpu(&fixture).await;
    assert!((7_200.0..7_300.0).contains(&measured.oldest_job_age_seconds.unwrap()), "{measured:?}");
    assert!((3_600.0..3_700.0).contains(&measured.outbox_age_seconds.unwrap()), "{measured:?}");

    fixture.claim().await;
    assert!(gpu(&fixture).await.oldest_job_age_seconds.unwrap() < 60.0, "the old one runs, the new one waits");
}

#[tokio::test]
async fn a_worker_with_jobs_is_busy_until_its_last_one_ends() {
    let fixture = Fixture::start().await;
    fixture.submit(3).await;
    let claims = [fixture.claim().await, fixture.claim().await];
    let measured = gpu(&fixture).await;
    assert_eq!((measured.queued, measured.running, measured.busy_workers, measured.expired_leases), (1, 2, 1, 0));

    fixture.ledger.claim("gpu", "another", LONG).await.unwrap().expect("a third job");
    assert_eq!(gpu(&fixture).await.busy_workers, 2);
    let finalised = fixture.ledger.finalise(&claims[0].lease, &result(&claims[0])).await.unwrap();
    assert_eq!(finalised, Finalised::Accepted);
    let failure = JobFailure { class: ErrorClass::Permanent, message: "no image".into() };
    assert_eq!(fixture.ledger.fail(&claims[1].lease, &failure).await.unwrap(), Finalised::Accepted);
    assert_eq!(gpu(&fixture).await.busy_workers, 1);

    fixture.expire_leases().await;
    assert_eq!(gpu(&fixture).await.expired_leases, 1);
    fixture.ledger.reap().await.unwrap();
    let measured = gpu(&fixture).await;
    assert_eq!((measured.queued, measured.running, measured.busy_workers, measured.expired_leases), (1, 0, 0, 0));
}

#[tokio::test]
async fn open_work_is_measured_by_the_pools_own_results() {
    let fixture = Fixture::start().await;
    fixture.submit(4).await;
    let measured = gpu(&fixture).await;
    assert_eq!(measured.mean_job_seconds, None);
    assert!((measured.open_work_seconds() - 4.0 * measured.job_seconds()).abs() < 1e-9, "by what is assumed");

    for seconds in [2.0, 4.0] {
        let job = fixture.claim().await;
        let result = JobResult { seconds, ..result(&job) };
        assert_eq!(fixture.ledger.finalise(&job.lease, &result).await.unwrap(), Finalised::Accepted);
    }
    fixture.claim().await;
    let measured = gpu(&fixture).await;
    assert_eq!((measured.queued, measured.running, measured.mean_job_seconds), (1, 1, Some(3.0)));
    assert!((measured.open_work_seconds() - 6.0).abs() < 1e-9, "{measured:?}");
    assert_eq!(fixture.ledger.workloads().await.unwrap()[0].mean_job_seconds, None, "another pool's are its own");

    for _ in 0..21 {
        fixture.submit(1).await;
    }
    assert_eq!(gpu(&fixture).await.mean_job_seconds, Some(3.0), "batches that have just come know nothing better");
}
