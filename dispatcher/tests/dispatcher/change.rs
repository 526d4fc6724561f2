//! Cancelling, retrying, submitting again, and jobs that are passed over.

use std::time::Duration;

use ledger::{ErrorClass, Finalised, JobFailure, JobState};
use uuid::Uuid;

use crate::{
    client::text,
    support::{System, client, manifest, reqwest_client, wait_for},
};

const TTL: Duration = Duration::from_mins(1);

/// Claims a job and fails it for good.
async fn fail_one(system: &System) -> Uuid {
    let job = system.ledger.claim("gpu", "worker-1", TTL).await.unwrap().unwrap();
    let failure = JobFailure { class: ErrorClass::Permanent, message: "no such object".into() };
    assert_eq!(system.ledger.fail(&job.lease, &failure).await.unwrap(), Finalised::Accepted);
    job.lease.job_id
}

async fn state(system: &System, job: Uuid) -> JobState {
    system.ledger.job(job).await.unwrap().unwrap().state
}

#[tokio::test]
async fn cancels_a_job_and_the_rest_of_a_batch() {
    let system = System::start().await;
    let dispatcher = &system.dispatcher;
    let batch = dispatcher.post("/v1/batches?pool=gpu", manifest(4)).await.id();
    let failed = fail_one(&system).await;
    let running = system.ledger.claim("gpu", "worker-1", TTL).await.unwrap().unwrap().lease;

    let cancel = |path: String| async move { dispatcher.post(&path, "").await };
    assert_eq!(cancel(format!("/v1/jobs/{}/cancel", running.job_id)).await.json["jobs"], 1);
    assert_eq!(cancel(format!("/v1/jobs/{}/cancel", running.job_id)).await.json["jobs"], 0, "cancelled already");
    assert_eq!(state(&system, running.job_id).await, JobState::Cancelled);
    assert!(!system.ledger.heartbeat(&running, TTL).await.unwrap(), "its worker hears of it");

    let output = client(&dispatcher.url, &["cancel", &batch.to_string()], system.dir.path()).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), "2 jobs cancelled\n"));
    assert_eq!(cancel(format!("/v1/batches/{batch}/cancel")).await.json["jobs"], 0);
    assert_eq!(state(&system, failed).await, JobState::Failed, "what has ended stays");
    assert!(system.ledger.batch(batch).await.unwrap().unwrap().finished_at.is_some());

    let nobody = Uuid::nil();
    for path in
        [format!("/v1/batches/{nobody}/cancel"), format!("/v1/jobs/{nobody}/cancel"), format!("/v1/batches/{nobody}/retry")]
    {
        let answer = cancel(path).await;
        assert_eq!(answer.status, 404);
        assert!(answer.error().contains(&nobody.to_string()), "{answer:?}");
    }
}

#[tokio::test]
async fn tries_again_what_failed_and_nothing_else() {
    let system = System::start().await;
    let dispatcher = &system.dispatcher;
    let batch = dispatcher.post("/v1/batches?pool=gpu", manifest(4)).await.id();
    let (first, second) = (fail_one(&system).await, fail_one(&system).await);
    let output = client(&dispatcher.url, &["cancel", "--job", &first.to_string()], system.dir.path()).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), "nothing to do: the job had ended before\n"));

    let output = client(&dispatcher.url, &["retry", "--job", &first.to_string()], system.dir.path()).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), "1 job queued again\n"));
    assert_eq!(state(&system, first).await, JobState::Queued);
    let output = client(&dispatcher.url, &["retry", &batch.to_string(), "--quarantined"], system.dir.path()).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), "1 job queued again\n"));
    assert_eq!(state(&system, second).await, JobState::Queued);
    assert_eq!(dispatcher.post(&format!("/v1/jobs/{first}/retry"), "").await.json["jobs"], 0, "it waits already");
    assert_eq!(system.queued().await, 4);
}

#[tokio::test]
async fn the_same_submission_is_the_same_batch() {
    let system = System::start().await;
    let url = format!("{}/v1/batches?pool=gpu", system.dispatcher.url);
    let submit = async |key: &str, lines: usize| {
        let answer = reqwest_client().post(&url).header("Idempotency-Key", key).body(manifest(lines)).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    let (status, first) = submit("monday", 3).await;
    assert_eq!((status, &first["is_new"]), (201, &true.into()));
    let (status, again) = submit("monday", 3).await;
    assert_eq!((status, &again["is_new"], &again["id"]), (200, &false.into(), &first["id"]));
    let (status, refused) = submit("monday", 4).await;
    assert_eq!(status, 422);
    assert!(refused["error"].as_str().unwrap().contains(first["id"].as_str().unwrap()), "{refused}");
    assert_eq!(submit("", 3).await.0, 400);

    let file = system.dir.path().join("scans.jsonl");
    std::fs::write(&file, manifest(2)).unwrap();
    let submit = async || {
        client(&system.dispatcher.url, &["submit", "scans.jsonl", "--pool", "gpu", "--name", "night"], system.dir.path()).await
    };
    let (one, two) = (submit().await, submit().await);
    assert_eq!(text(&one.stdout), text(&two.stdout), "the same name and content");
    assert!(text(&two.stderr).contains("2 jobs submitted before"), "{}", text(&two.stderr));
    assert_eq!(system.queued().await, 5);
}

#[tokio::test]
async fn a_priority_that_stands_still_is_served() {
    let system = System::start_with(crate::support::NO_BROKER, &["--ageing-seconds", "0.5"]).await;
    let dispatcher = &system.dispatcher;
    let low = dispatcher.post("/v1/batches?pool=gpu&priority=-5", manifest(1)).await.id();
    dispatcher.post("/v1/batches?pool=gpu&priority=5", manifest(10_000)).await.id();
    // High jobs are there all the time, and are served all the time.
    wait_for("the low job", async || {
        let claimed = system.ledger.claim("gpu", "worker-1", TTL).await.unwrap().unwrap();
        if claimed.lease.batch_id == low { Ok(()) } else { Err("a high one".into()) }
    })
    .await;
    assert!(system.queued().await > 0, "high ones still wait");
    dispatcher.logged("jobs raised: their priority stood still").await;
    let metrics = dispatcher.observe("/metrics").await.json;
    assert!(metrics.as_str().unwrap().contains(r#"dotmask_dispatcher_aged_jobs_total{pool="gpu"} 1"#), "{metrics}");
}
