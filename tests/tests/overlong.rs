//! Jobs that take longer than a job may: they fail, their neighbours do not, and a worker that lost its model over one ends.

use ledger::{ErrorClass, JobState, JobStatus};
use tests::{
    QuickWorker, System, check_every_job_has_one_result, check_quick_masks, line, png_of_blobs, png_that_begins_with,
    quick::HANGS,
};

/// It failed at its first attempt, for good, and says why.
fn check_too_long(job: &JobStatus, limit: &str) {
    assert_eq!((job.state, job.attempt), (JobState::Failed, 1));
    let error = job.error.as_ref().expect("a failed job says why");
    assert_eq!(error.class, ErrorClass::Permanent);
    assert!(error.message.starts_with(&format!("the job took more than {limit} s")), "{}", error.message);
    assert!(error.message.ends_with("or have DOTMASK_MAX_JOB_SECONDS raised"), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_too_long_fails_for_good_and_its_worker_goes_on() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    system.put_image("a.png", &png_of_blobs(48, 48, 1))?;
    let worker = QuickWorker::start(&system, &["--max-job-seconds", "3"])?;
    // At a millisecond a step.
    let long = system.submit(&[line("a.png", 10_000)]).await?;
    system.wait_until_done(long).await?;
    check_too_long(&system.jobs(long).await?[0], "3");

    let short = system.submit(&[line("a.png", 2)]).await?;
    system.wait_until_done(short).await?;
    check_every_job_has_one_result(&system, short).await?;
    check_quick_masks(&system, short).await?;
    assert!(worker.steps().await < 10_000, "the model did not stop");
    let errors = r#"dotmask_worker_errors_total{cause="too_long",class="permanent"}"#;
    assert_eq!(worker.count(errors).await?, 1);
    Ok(worker.program.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_model_does_not_come_back_gives_its_other_jobs_back_and_ends() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    system.put_image("good.png", &png_of_blobs(48, 48, 1))?;
    system.put_image("hangs.png", &png_that_begins_with(HANGS, 2))?;
    let mut worker = QuickWorker::start(&system, &["--max-job-seconds", "3"])?;
    let hangs = system.submit(&[line("hangs.png", 2)]).await?;
    let begun = "SELECT count(*) FROM attempts WHERE begun_at IS NOT NULL";
    system.until("the model has begun", async || Ok(system.value::<i64>(begun).await? == 1)).await?;
    // It waits for the model, and the time that it waits is not held against it.
    let good = system.submit(&[line("good.png", 2)]).await?;

    let ended = worker.program.unexpected_end().await.to_string();
    assert!(worker.log().contains("a decoder or the model does not come back from this job"), "{ended}");
    assert!(worker.log().contains("error: a decoder or the model does not come back"), "{ended}");
    check_too_long(&system.jobs(hangs).await?[0], "3");
    let job = &system.jobs(good).await?[0];
    assert_eq!((job.state, job.attempt, job.epoch), (JobState::Queued, 0, 1), "{:?}", job.error);

    let worker = QuickWorker::start(&system, &[])?;
    system.wait_until_done(good).await?;
    check_every_job_has_one_result(&system, good).await?;
    Ok(worker.program.stop().await?)
}
