//! Where a batch allows it, a job of the same content takes a finished result over; elsewhere it is computed.

use std::{fs, path::PathBuf};

use ledger::{ArtifactKind, DEFAULT_PROJECT, JobStatus, NewBatch};
use request::{AllowList, SegmentationRequest};
use tests::{BUCKET, POOL, QuickWorker, System, check_every_job_has_one_result, check_quick_masks, line, png_of_blobs};
use uuid::Uuid;

const STEPS: u64 = 20;

/// The job of a batch of one, once it has ended.
async fn run(system: &System, line: &str, reuse: bool) -> anyhow::Result<JobStatus> {
    run_in(DEFAULT_PROJECT, system, line, reuse).await
}

/// The same in another project.
async fn run_in(project: &str, system: &System, line: &str, reuse: bool) -> anyhow::Result<JobStatus> {
    let new = NewBatch { project: project.into(), pool: POOL.into(), reuse, ..NewBatch::default() };
    let mut batch = system.ledger.begin_batch(new).await?;
    batch.push(1, &SegmentationRequest::from_line(line.as_bytes())?).await?;
    let batch = batch.commit().await?.id;
    system.wait_until_done(batch).await?;
    check_every_job_has_one_result(system, batch).await?;
    check_quick_masks(system, batch).await?;
    Ok(system.jobs(batch).await?.remove(0))
}

fn receipt(system: &System, job: &JobStatus) -> anyhow::Result<serde_json::Value> {
    let result = job.result.as_ref().expect("checked when it ended");
    let receipt = result.artifacts.iter().find(|artifact| artifact.kind == ArtifactKind::Receipt).expect("checked when it ended");
    Ok(serde_json::from_slice(&system.object(&receipt.uri)?)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_the_same_content_takes_the_result_over_where_its_batch_allows_it() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    let worker = QuickWorker::start(&system, &[])?;
    system.put_image("a.png", &png_of_blobs(48, 48, 1))?;
    // The same content in another place.
    system.put_image("b.png", &png_of_blobs(48, 48, 1))?;
    let same = line("b.png", STEPS as u32);

    let not_lent = run(&system, &same, false).await?;
    let lender = run(&system, &line("a.png", STEPS as u32), true).await?;
    assert_eq!(worker.steps().await, 2 * STEPS, "what was not lent is not taken over");
    lent_mask(&system, &lender).await?;
    let taker = run(&system, &same, true).await?;
    assert_eq!(worker.steps().await, 2 * STEPS, "no step was done for it");
    assert_eq!(worker.count("dotmask_worker_results_reused_total").await?, 1);
    run(&system, &same, false).await?;
    assert_eq!(worker.steps().await, 3 * STEPS, "computed where the batch does not allow it");
    run(&system, &line("a.png", STEPS as u32 + 1), true).await?;
    assert_eq!(worker.steps().await, 4 * STEPS + 1, "other parameters are another content");
    system.ledger.create_project("other", &AllowList::new(vec!["s3://*".parse()?]), 100).await?;
    run_in("other", &system, &same, true).await?;
    assert_eq!(worker.steps().await, 5 * STEPS + 1, "nothing is taken over from another project");
    run_in("other", &system, &same, true).await?;
    assert_eq!(worker.steps().await, 5 * STEPS + 1, "within it is");
    assert_eq!(worker.count("dotmask_worker_results_reused_total").await?, 2);

    let [of_taker, of_lender] = [&taker, &lender].map(|job| job.result.as_ref().expect("succeeded"));
    assert_eq!(of_taker.masks, of_lender.masks);
    for (copy, original) in of_taker.artifacts.iter().zip(&of_lender.artifacts) {
        assert_ne!(copy.uri, original.uri, "it has objects of its own");
        assert_eq!(copy.sha256 == original.sha256, copy.kind != ArtifactKind::Receipt);
    }
    let (copied, original) = (receipt(&system, &taker)?, receipt(&system, &lender)?);
    assert_eq!(copied["reused_from"], serde_json::json!({"job": lender.id, "epoch": lender.epoch}));
    assert_eq!((&copied["job"]["id"], &copied["objects"]), (&taker.id.to_string().into(), &original["objects"]));
    assert!(receipt(&system, &not_lent)?.get("reused_from").is_none());
    Ok(worker.program.stop().await?)
}

/// Where the mask of the result lies that was lent last; a job is lent a moment after it has succeeded.
async fn lent_mask(system: &System, lender: &JobStatus) -> anyhow::Result<PathBuf> {
    let is_lent =
        async || Ok(system.value::<Option<Uuid>>("SELECT (SELECT job_id FROM reusable_results)").await? == Some(lender.id));
    system.until("the result is lent", is_lent).await?;
    let artifacts = &lender.result.as_ref().expect("succeeded").artifacts;
    let mask = artifacts.iter().find(|artifact| artifact.kind == ArtifactKind::Mask).expect("checked when it ended");
    Ok(system.stack.objects.dir().join(BUCKET).join(mask.uri.key()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lent_result_that_was_changed_or_removed_is_not_taken_over_and_the_next_one_takes_its_place() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    let worker = QuickWorker::start(&system, &[])?;
    system.put_image("a.png", &png_of_blobs(48, 48, 1))?;
    let line = line("a.png", STEPS as u32);
    let first = run(&system, &line, true).await?;
    let path = lent_mask(&system, &first).await?;

    let mut bytes = fs::read(&path)?;
    *bytes.last_mut().expect("a PNG has bytes") ^= 1;
    fs::write(&path, bytes)?;
    let second = run(&system, &line, true).await?;
    assert_eq!(worker.steps().await, 2 * STEPS, "what was changed is computed anew");
    let path = lent_mask(&system, &second).await?;
    run(&system, &line, true).await?;
    assert_eq!(worker.steps().await, 2 * STEPS, "and lent in its place");

    fs::remove_file(&path)?;
    run(&system, &line, true).await?;
    assert_eq!(worker.steps().await, 3 * STEPS, "what was removed is computed anew");
    assert_eq!(worker.count("dotmask_worker_results_reused_total").await?, 1);
    Ok(worker.program.stop().await?)
}
