//! Images that take the model or the whole worker down: they fail, and their neighbours do not.

use ledger::{ErrorClass, JobState, JobStatus};
use tests::{
    QuickWorker, System, check_every_job_has_one_result, check_quick_masks, line, png_of_blobs, png_that_begins_with,
    quick::{ABORTS, OUT_OF_MEMORY, PANICS},
};
use uuid::Uuid;

async fn states(system: &System, batch: Uuid) -> anyhow::Result<Vec<JobState>> {
    Ok(system.jobs(batch).await?.iter().map(|job: &JobStatus| job.state).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_is_what_its_request_says_whatever_ran_before_it() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    let mut lines = Vec::new();
    for (key, seed) in [("a.png", 1), ("b.png", 2), ("c.png", 3)] {
        system.put_image(key, &png_of_blobs(60, 40, seed))?;
        lines.extend([line(key, 3), line(key, 7)]);
    }
    // Again, after all the others.
    lines.push(line("a.png", 3));
    let _worker = QuickWorker::start(&system, &["--prefetch", "3"])?;
    let batch = system.submit(&lines).await?;
    system.wait_until_done(batch).await?;
    check_every_job_has_one_result(&system, batch).await?;
    check_quick_masks(&system, batch).await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_panic_and_a_full_device_the_worker_goes_on_with_a_fresh_model() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    system.put_image("good.png", &png_of_blobs(48, 48, 1))?;
    system.put_image("panics.png", &png_that_begins_with(PANICS, 2))?;
    system.put_image("full.png", &png_that_begins_with(OUT_OF_MEMORY, 3))?;
    let lines = ["panics.png", "good.png", "full.png", "good.png"].map(|key| line(key, 2));
    let batch = system.submit(&lines).await?;
    let worker = QuickWorker::start(&system, &["--prefetch", "1"])?;
    system.wait_for(batch, |status| status.counts.succeeded == 2).await?;
    check_quick_masks(&system, batch).await?;

    let rebuilt = async || Ok(worker.log().matches("the model failed and was built anew").count() >= 2);
    system.until("the model was built anew after both", rebuilt).await?;
    let first_attempts: Vec<String> = system
        .value(
            "SELECT array_agg(outcome || ': ' || error ORDER BY line) FROM attempts JOIN jobs ON id = job_id
             WHERE attempts.epoch = 1 AND outcome = 'transient'",
        )
        .await?;
    let [panicked, full] = &first_attempts[..] else { panic!("{first_attempts:?}") };
    assert_eq!(panicked, "transient: the worker crashed on this image at the stage model: the image says so");
    assert!(full.starts_with("transient: cannot segment the image: out of memory on the device: the image says so"), "{full}");

    // The images are mended, and what waits for its next attempt succeeds, on the same worker.
    system.put_image("panics.png", &png_of_blobs(48, 48, 2))?;
    system.put_image("full.png", &png_of_blobs(48, 48, 3))?;
    system.wait_until_done(batch).await?;
    assert_eq!(states(&system, batch).await?, [JobState::Succeeded; 4]);
    check_every_job_has_one_result(&system, batch).await?;
    check_quick_masks(&system, batch).await?;
    Ok(worker.program.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_takes_two_workers_down_is_set_aside_and_its_neighbours_succeed() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    system.put_image("good.png", &png_of_blobs(48, 48, 1))?;
    system.put_image("aborts.png", &png_that_begins_with(ABORTS, 2))?;
    let lines = ["good.png", "aborts.png", "good.png", "good.png"].map(|key| line(key, 20));
    let batch = system.submit(&lines).await?;

    let start = || QuickWorker::start(&system, &["--lease-seconds", "2", "--heartbeat-seconds", "0.5"]);
    let (mut worker, mut crashes) = (start()?, 0);
    let done = system.wait_until_done(batch);
    tokio::pin!(done);
    loop {
        tokio::select! {
            ended = &mut done => break drop(ended?),
            _ = worker.program.unexpected_end() => {
                crashes += 1;
                worker = start()?;
            }
        }
    }
    assert_eq!(crashes, 2, "{}", system.logs());
    let jobs = system.jobs(batch).await?;
    let expected = [JobState::Succeeded, JobState::Quarantined, JobState::Succeeded, JobState::Succeeded];
    assert_eq!(states(&system, batch).await?, expected, "{}", system.logs());
    let error = jobs[1].error.as_ref().expect("a quarantined job says why");
    assert_eq!(error.class, ErrorClass::Permanent);
    assert!(error.message.contains("two workers were lost while they held this job"), "{}", error.message);
    check_quick_masks(&system, batch).await
}
