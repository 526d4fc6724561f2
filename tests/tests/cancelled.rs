//! A cancelled job stops at its next step, not at its next heartbeat.

use ledger::JobState;
use servers::Program;
use tests::{QuickWorker, System, check_every_job_has_one_result, line, png_of_blobs};
use uuid::Uuid;

const LONG: u32 = 10_000;
/// The next heartbeat is far away.
const RARE_HEARTBEATS: [&str; 6] = ["--lease-seconds", "1200", "--heartbeat-seconds", "600", "--prefetch", "1"];
const LISTENERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";

/// A system with an image, and a worker that hears of what is cancelled.
async fn start() -> anyhow::Result<(System, Program, QuickWorker)> {
    let system = System::start().await?;
    let dispatcher = system.start_dispatcher().await?;
    system.put_image("a.png", &png_of_blobs(48, 48, 1))?;
    let worker = QuickWorker::start(&system, &RARE_HEARTBEATS)?;
    system.until("the worker listens", async || Ok(system.value::<i64>(LISTENERS).await? == 1)).await?;
    Ok((system, dispatcher, worker))
}

/// A long job in the midst of its steps.
async fn begin(system: &System, worker: &QuickWorker) -> anyhow::Result<Uuid> {
    let before = worker.steps().await;
    let batch = system.submit(&[line("a.png", LONG)]).await?;
    system.until("a step was done", async || Ok(worker.steps().await > before)).await?;
    Ok(batch)
}

/// The worker has stopped in the midst of its steps, and does the next job.
async fn is_free(system: &System, worker: &QuickWorker, lost: u64) -> anyhow::Result<()> {
    let is_lost = async || Ok(worker.count("dotmask_worker_leases_lost_total").await? == lost);
    system.until("the job stopped", is_lost).await?;
    let steps = worker.steps().await;
    assert!(steps < lost * u64::from(LONG), "{steps} steps");
    let next = system.submit(&[line("a.png", 3)]).await?;
    system.wait_until_done(next).await?;
    check_every_job_has_one_result(system, next).await?;
    assert_eq!(worker.steps().await, steps + 3, "the cancelled job does no more steps");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_at_its_next_step() -> anyhow::Result<()> {
    let (system, _dispatcher, worker) = start().await?;

    let batch = begin(&system, &worker).await?;
    assert_eq!(system.ledger.cancel_batch(batch).await?, 1);
    is_free(&system, &worker, 1).await?;

    let batch = begin(&system, &worker).await?;
    let job = system.jobs(batch).await?[0].id;
    assert!(system.ledger.cancel_job(job).await?);
    is_free(&system, &worker, 2).await?;
    let job = &system.jobs(batch).await?[0];
    assert!(job.state == JobState::Cancelled && job.result.is_none(), "{job:?}");
    Ok(worker.program.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn hears_of_cancelled_jobs_again_when_its_connection_was_lost() -> anyhow::Result<()> {
    let (system, _dispatcher, worker) = start().await?;
    let batch = begin(&system, &worker).await?;
    let old: i32 = system.value("SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%'").await?;
    system.value::<bool>("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'").await?;
    let newest = "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    let anew = async || Ok(![0, old].contains(&system.value::<i32>(newest).await?));
    system.until("the worker listens anew", anew).await?;
    assert_eq!(system.ledger.cancel_batch(batch).await?, 1);
    is_free(&system, &worker, 1).await?;
    Ok(worker.program.stop().await?)
}
