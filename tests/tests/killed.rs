//! kill -9, and every job still ends with exactly one result.

use std::time::Duration;

use tests::{System, WorkerSettings, check_every_job_has_one_result, png_of_blobs};

const JOBS: u32 = 4;

/// `steps` decides how long each job takes.
async fn submit(system: &System, steps: u32) -> anyhow::Result<uuid::Uuid> {
    let mut lines = Vec::new();
    for seed in 0..JOBS {
        let key = format!("{seed}.png");
        system.put_image(&key, &png_of_blobs(100, 100, seed))?;
        lines.push(format!(
            r#"{{"image": "s3://scans/{key}", "points": [[24, 24, 1], [4, 4, 0]], "parameters": {{"steps": {steps}}}}}"#
        ));
    }
    system.submit(&lines).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_of_a_job_loses_nothing() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    let settings = WorkerSettings { lease: Duration::from_secs(4), prefetch: 1 };
    let first = system.start_worker(settings)?;
    let batch = submit(&system, 12).await?;
    system.wait_for(batch, |status| status.counts.succeeded >= 1 && status.counts.running >= 1).await?;
    first.kill();
    let interrupted = system.jobs(batch).await?.into_iter().find(|job| !job.state.is_terminal() && job.epoch > 0);
    let interrupted = interrupted.expect("it was killed while a job ran");

    let second = system.start_worker(settings)?;
    system.wait_until_done(batch).await?;
    check_every_job_has_one_result(&system, batch).await?;
    let jobs = system.jobs(batch).await?;
    let redone = jobs.iter().find(|job| job.id == interrupted.id).expect("jobs do not vanish");
    assert!(redone.epoch > interrupted.epoch, "it was claimed again, under a new epoch");
    Ok(second.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_after_submit_loses_nothing() -> anyhow::Result<()> {
    let system = System::start().await?;
    let dispatcher = system.start_dispatcher().await?;
    let batch = submit(&system, 2).await?;
    dispatcher.kill();
    // Whatever tokens it had sent are lost as well.
    system.purge_tokens().await?;
    let worker = system.start_worker(WorkerSettings::default())?;
    let _dispatcher = system.start_dispatcher().await?;
    system.wait_until_done(batch).await?;
    check_every_job_has_one_result(&system, batch).await?;
    Ok(worker.stop().await?)
}
