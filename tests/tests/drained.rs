//! SIGTERM in the middle of a job, as when a node is drained: the worker is gone soon, and the job begins elsewhere at once.

use std::time::{Duration, Instant};

use anyhow::ensure;
use ledger::JobState;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{QuickWorker, System, check_every_job_has_one_result, check_quick_masks, line, png_of_blobs};

/// Every setting is as shipped: jobs may go on for 5 s, and the worker has ended 5 s later.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_stop_is_gone_within_15_s_and_its_job_is_done_elsewhere_uncharged() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher_as_shipped().await?;
    system.put_image("a.png", &png_of_blobs(48, 48, 1))?;
    let mut first = QuickWorker::start(&system, &[])?;
    // Longer than a job may go on after SIGTERM.
    let batch = system.submit(&[line("a.png", request::MAX_STEPS)]).await?;
    system.until("the job is computed", async || Ok(first.steps().await > 0)).await?;
    let second = QuickWorker::start(&system, &[])?;

    let told = Instant::now();
    kill(Pid::from_raw(first.program.pid().cast_signed()), Signal::SIGTERM)?;
    let ended = tokio::time::timeout(Duration::from_secs(15), first.program.unexpected_end()).await;
    ensure!(ended.is_ok(), "still there after {:?}; logs:\n{}", told.elapsed(), system.logs());
    ensure!(told.elapsed() > Duration::from_secs(5), "the job could have gone on; logs:\n{}", system.logs());

    system.wait_until_done(batch).await?;
    let job = &system.jobs(batch).await?[0];
    assert_eq!((job.state, job.attempt, job.epoch), (JobState::Succeeded, 1, 2), "{:?}", job.error);
    let attempts = "SELECT string_agg(outcome::text, ' ' ORDER BY epoch) FROM attempts";
    assert_eq!(system.value::<String>(attempts).await?, "released succeeded");
    check_every_job_has_one_result(&system, batch).await?;
    check_quick_masks(&system, batch).await?;
    Ok(second.program.stop().await?)
}
