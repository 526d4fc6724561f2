//! A job belongs to one worker at a time: one that is paused, cut off or killed loses it, in time, and changes nothing afterwards.

use std::time::{Duration, Instant};

use ledger::{JobState, JobStatus};
use servers::{Mode, Proxies};
use tests::{QuickWorker, System, check_every_job_has_one_result, check_quick_masks, line, png_of_blobs};
use uuid::Uuid;

/// The most a request may ask for: more than ten seconds of the quick worker's.
const LONG: u32 = 10_000;
const SHORT_LEASE: [&str; 4] = ["--lease-seconds", "4", "--heartbeat-seconds", "1"];

/// A batch of one job.
async fn submit(system: &System, steps: u32) -> anyhow::Result<Uuid> {
    system.put_image("a.png", &png_of_blobs(48, 48, 1))?;
    system.submit(&[line("a.png", steps)]).await
}

async fn job(system: &System, batch: Uuid) -> anyhow::Result<JobStatus> {
    Ok(system.jobs(batch).await?.remove(0))
}

/// Waits until the worker is in the midst of its first image.
async fn steps_begun(system: &System, worker: &QuickWorker) -> anyhow::Result<()> {
    system.until("a step was done", async || Ok(worker.steps().await > 0)).await
}

/// Waits until the job, claimed a second time, has succeeded; and its first claim's worker is still refused.
async fn succeeds_elsewhere(system: &System, batch: Uuid) -> anyhow::Result<()> {
    system.wait_until_done(batch).await?;
    check_every_job_has_one_result(system, batch).await?;
    check_quick_masks(system, batch).await?;
    let job = job(system, batch).await?;
    assert_eq!((job.state, job.epoch), (JobState::Succeeded, 2), "{}", system.logs());
    let results: i64 = system.value("SELECT count(*) FROM results WHERE epoch = 2").await?;
    assert_eq!(results, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_reach_postgres_stops_before_its_lease_ends() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    let proxies = Proxies::start(&system.stack)?;
    let worker = QuickWorker::start_in(&system, &system.stack.environment_via(&proxies), &SHORT_LEASE)?;
    let batch = submit(&system, LONG).await?;
    steps_begun(&system, &worker).await?;

    proxies.postgres.set(Mode::Stall);
    system.until("a heartbeat had no answer", async || Ok(worker.log().contains("a heartbeat failed"))).await?;
    // None can extend it any more.
    let ends: String = system.value("SELECT to_json(expires_at AT TIME ZONE 'UTC') #>> '{}' FROM leases").await?;
    let fenced = "the lease could not be extended before its end";
    system.until("the worker gave up", async || Ok(worker.log().contains(fenced))).await?;
    let log = worker.log();
    let stopped = log.lines().find(|line| line.contains(fenced)).expect("waited for").split('Z').next().unwrap_or_default();
    // Both are texts such as 2030-01-31T12:00:00.123456.
    assert!(stopped.len() >= 19 && stopped < ends.as_str(), "it stopped at {stopped}, and the lease ended at {ends}");
    let lost = async || Ok(worker.count("dotmask_worker_leases_lost_total").await? == 1);
    system.until("the job ended there", lost).await?;
    let steps = worker.steps().await;
    assert!(steps < u64::from(LONG), "it stopped in the midst of its steps");

    let other = QuickWorker::start(&system, &SHORT_LEASE)?;
    succeeds_elsewhere(&system, batch).await?;
    assert_eq!(worker.steps().await, steps, "no step was done after the end");
    proxies.postgres.set(Mode::Pass);
    system.until("it is ready again", async || Ok(worker.get("/readyz").await?.contains(" 200 "))).await?;
    assert_eq!(job(&system, batch).await?.epoch, 2, "what it says late changes nothing");
    Ok(other.program.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_paused_for_longer_than_its_lease_has_lost_its_job() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    let stale = QuickWorker::start(&system, &SHORT_LEASE)?;
    let batch = submit(&system, 4_000).await?;
    steps_begun(&system, &stale).await?;
    stale.program.pause();
    let other = QuickWorker::start(&system, &SHORT_LEASE)?;
    succeeds_elsewhere(&system, batch).await?;

    stale.program.resume();
    let said = async || Ok(stale.log().lines().any(|line| line.contains("job ended") && line.contains("lease_lost")));
    system.until("it said that its lease was lost", said).await?;
    succeeds_elsewhere(&system, batch).await?;
    let outcomes: Vec<String> = system.value("SELECT array_agg(outcome::text ORDER BY epoch) FROM attempts").await?;
    assert_eq!(outcomes, ["lost", "succeeded"]);
    stale.program.stop().await?;
    Ok(other.program.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_a_claim_that_was_taken_away_is_refused() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    // It hears nothing of its lease before its job is done.
    let deaf = QuickWorker::start(&system, &["--lease-seconds", "600", "--heartbeat-seconds", "300", "--prefetch", "1"])?;
    let batch = submit(&system, 6_000).await?;
    steps_begun(&system, &deaf).await?;
    let expired: i64 = system
        .value("WITH ended AS (UPDATE leases SET ttl = '0', expires_at = '2000-01-01' RETURNING 1) SELECT count(*) FROM ended")
        .await?;
    assert_eq!(expired, 1);
    let other = QuickWorker::start(&system, &SHORT_LEASE)?;
    let refused = async || Ok(deaf.log().lines().any(|line| line.contains("job ended") && line.contains("lease_lost")));
    system.until("its result was refused", refused).await?;
    assert_eq!(deaf.count(r#"dotmask_worker_stage_seconds_count{stage="upload"}"#).await?, 1, "it had a result");
    succeeds_elsewhere(&system, batch).await?;
    Ok(other.program.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_job_is_begun_elsewhere_within_25_s_as_shipped() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher_as_shipped().await?;
    let killed = QuickWorker::start(&system, &[])?;
    let batch = submit(&system, LONG).await?;
    steps_begun(&system, &killed).await?;
    let _other = QuickWorker::start(&system, &[])?;
    // Past the first heartbeat, so that the lease has nearly all of its time at the end.
    let extended = "SELECT count(*) FROM leases JOIN jobs ON id = job_id WHERE expires_at > started_at + ttl + interval '1 s'";
    system.until("the lease was extended", async || Ok(system.value::<i64>(extended).await? == 1)).await?;
    killed.program.kill();
    let since = Instant::now();
    system.until("the job was claimed again", async || Ok(job(&system, batch).await?.epoch == 2)).await?;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(25), "{took:?}");
    assert_eq!(system.value::<i64>("SELECT count(DISTINCT worker) FROM attempts").await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_token_comes_back_long_before_its_lease_ends() -> anyhow::Result<()> {
    let system = System::start().await?;
    let dispatcher = system.start_dispatcher().await?;
    let worker = QuickWorker::start(&system, &["--lease-seconds", "600", "--heartbeat-seconds", "300", "--prefetch", "1"])?;
    let batch = submit(&system, LONG).await?;
    steps_begun(&system, &worker).await?;
    // So that no other token is sent.
    dispatcher.kill();
    // The reconciler may have sent one that was not needed.
    let waiting = system.waiting_tokens().await?;
    worker.program.kill();
    system.until("the token waits again", async || Ok(system.waiting_tokens().await? == waiting + 1)).await?;
    assert_eq!(job(&system, batch).await?.state, JobState::Running);
    let left: f64 = system.value("SELECT extract(epoch FROM expires_at - now())::float8 FROM leases").await?;
    assert!(left > 60.0, "the lease goes on for {left} s");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_transaction_is_open_while_the_model_computes() -> anyhow::Result<()> {
    let system = System::start().await?;
    let dispatcher = system.start_dispatcher().await?;
    let worker = QuickWorker::start(&system, &["--heartbeat-seconds", "0.2"])?;
    submit(&system, LONG).await?;
    steps_begun(&system, &worker).await?;
    // It has transactions of its own, each ended with its connection.
    dispatcher.kill();
    let open = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'dotmask' AND (state LIKE 'idle in transaction%' OR xact_start < now() - interval '1 s')";
    let begun = worker.steps().await;
    // Postgres may be a moment late to see that the dispatcher is gone; one of the worker's would be there until the job ends.
    let none_is_open = async || {
        for _ in 0..100 {
            if system.value::<i64>(open).await? > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    };
    system.until("no transaction is open", none_is_open).await?;
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dotmask' AND state = 'idle'";
    assert!(system.value::<i64>(connections).await? > 0, "the worker is connected");
    let done = worker.steps().await;
    assert!(done > begun && done < u64::from(LONG), "it computed meanwhile: {begun} to {done} steps");
    Ok(())
}
