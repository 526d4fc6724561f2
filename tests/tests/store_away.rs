//! The object store fails for a while, or gives something else than it holds.

use std::{fs, time::Duration};

use ledger::JobState;
use servers::{Mode, Proxies};
use tests::{QuickWorker, System, check_every_job_has_one_result, check_quick_masks, line, png_of_blobs};

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_the_queue_keeps_its_attempts() -> anyhow::Result<()> {
    const JOBS: u32 = 12;
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    let proxies = Proxies::start(&system.stack)?;
    let worker = QuickWorker::start_in(&system, &system.stack.environment_via(&proxies), &["--prefetch", "2"])?;
    let mut lines = Vec::new();
    for seed in 0..JOBS {
        system.put_image(&format!("{seed}.png"), &png_of_blobs(48, 48, seed))?;
        lines.push(line(&format!("{seed}.png"), 5));
    }
    system
        .until("the worker is ready", async || Ok(worker.get("/readyz").await.is_ok_and(|said| said.contains(" 200 "))))
        .await?;
    proxies.objects.set(Mode::Cut);
    let batch = system.submit(&lines).await?;
    let is_unready = async || {
        let said = worker.get("/readyz").await?;
        Ok(said.contains(" 503 ") && said.contains("the store failed to serve"))
    };
    system.until("the worker says that the store is away", is_unready).await?;
    let causes = "SELECT count(*) FROM attempts WHERE outcome = 'transient' AND error LIKE '%the store failed to serve%'";
    system.until("a job failed with its cause", async || Ok(system.value::<i64>(causes).await? >= 1)).await?;
    // Those that were held when the outage showed, and no other.
    let held = async || Ok(system.value::<i64>("SELECT count(*) FROM leases").await? == 0);
    system.until("the jobs that were held have ended", held).await?;
    assert!(system.value::<i64>("SELECT count(*) FROM attempts").await? <= 2, "{}", system.logs());

    proxies.objects.set(Mode::Pass);
    system.wait_until_done(batch).await?;
    check_every_job_has_one_result(&system, batch).await?;
    check_quick_masks(&system, batch).await?;
    assert!(worker.get("/readyz").await?.contains(" 200 "));
    Ok(worker.program.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_fetched_again_before_its_job_fails_for_good() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    let proxies = Proxies::start(&system.stack)?;
    let worker = QuickWorker::start_in(&system, &system.stack.environment_via(&proxies), &[])?;
    system
        .until("the worker is ready", async || Ok(worker.get("/readyz").await.is_ok_and(|said| said.contains(" 200 "))))
        .await?;
    system.put_image("text.png", b"no image at all")?;
    let fetches = r#"dotmask_worker_stage_seconds_count{stage="fetch"}"#;

    let batch = system.submit(&[line("text.png", 2)]).await?;
    system.wait_until_done(batch).await?;
    let job = &system.jobs(batch).await?[0];
    assert_eq!((job.state, job.attempt, worker.count(fetches).await?), (JobState::Failed, 1, 2));

    // So slow that the object can be exchanged before the second look at it.
    proxies.objects.set(Mode::Delay(Duration::from_secs(2)));
    let batch = system.submit(&[line("text.png", 2)]).await?;
    system.until("it was fetched once", async || Ok(worker.count(fetches).await? == 3)).await?;
    let image = system.stack.objects.dir().join("a.png");
    fs::write(&image, png_of_blobs(48, 48, 1))?;
    fs::rename(&image, system.stack.objects.dir().join(tests::BUCKET).join("text.png"))?;
    let unsteady = "SELECT count(*) FROM attempts WHERE outcome = 'transient' AND error LIKE '%the store gave other bytes%'";
    system.until("the attempt failed", async || Ok(system.value::<i64>(unsteady).await? == 1)).await?;
    proxies.objects.set(Mode::Pass);
    system.wait_until_done(batch).await?;
    check_every_job_has_one_result(&system, batch).await?;
    check_quick_masks(&system, batch).await?;
    Ok(worker.program.stop().await?)
}
