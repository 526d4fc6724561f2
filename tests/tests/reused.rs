//! Where a batch allows it, a job of the same content takes a finished result over; elsewhere it is computed.

use std::fs;

use ledger::{ArtifactKind, JobStatus, NewBatch};
use request::SegmentationRequest;
use tests::{BUCKET, POOL, QuickWorker, System, check_every_job_has_one_result, check_quick_masks, line, png_of_blobs};

const STEPS: u64 = 20;

/// The job of a batch of one, once it has ended.
async fn run(system: &System, line: &str, reuse: bool) -> anyhow::Result<JobStatus> {
    let mut batch = system.ledger.begin_batch(NewBatch { pool: POOL.into(), reuse, ..NewBatch::default() }).await?;
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
    let taker = run(&system, &same, true).await?;
    assert_eq!(worker.steps().await, 2 * STEPS, "no step was done for it");
    assert_eq!(worker.count("dotmask_worker_results_reused_total").await?, 1);
    run(&system, &same, false).await?;
    assert_eq!(worker.steps().await, 3 * STEPS, "computed where the batch does not allow it");
    run(&system, &line("a.png", STEPS as u32 + 1), true).await?;
    assert_eq!(worker.steps().await, 4 * STEPS + 1, "other parameters are another content");

    let (taken, lent) = (taker.result.as_ref().expect("succeeded"), lender.result.as_ref().expect("succeeded"));
    assert_eq!(taken.masks, lent.masks);
    for (taken, lent) in taken.artifacts.iter().zip(&lent.artifacts) {
        assert_ne!(taken.uri, lent.uri, "it has objects of its own");
        assert_eq!(taken.sha256 == lent.sha256, taken.kind != ArtifactKind::Receipt);
    }
    let (receipt_taken, receipt_lent) = (receipt(&system, &taker)?, receipt(&system, &lender)?);
    assert_eq!(receipt_taken["reused_from"], serde_json::json!({"job": lender.id, "epoch": lender.epoch}));
    assert_eq!(
        (&receipt_taken["job"]["id"], &receipt_taken["objects"]),
        (&taker.id.to_string().into(), &receipt_lent["objects"])
    );
    assert!(receipt(&system, &not_lent)?.get("reused_from").is_none());
    Ok(worker.program.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lent_result_that_was_changed_or_removed_is_not_taken_over() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    let worker = QuickWorker::start(&system, &[])?;
    system.put_image("a.png", &png_of_blobs(48, 48, 1))?;
    let line = line("a.png", STEPS as u32);
    let lender = run(&system, &line, true).await?;
    let lent = lender.result.as_ref().expect("succeeded");
    let mask = lent.artifacts.iter().find(|artifact| artifact.kind == ArtifactKind::Mask).expect("checked when it ended");
    let path = system.stack.objects.dir().join(BUCKET).join(mask.uri.key());

    let mut bytes = fs::read(&path)?;
    *bytes.last_mut().expect("a PNG has bytes") ^= 1;
    fs::write(&path, bytes)?;
    run(&system, &line, true).await?;
    assert_eq!(worker.steps().await, 2 * STEPS);
    fs::remove_file(&path)?;
    run(&system, &line, true).await?;
    assert_eq!(worker.steps().await, 3 * STEPS);
    assert_eq!(worker.count("dotmask_worker_results_reused_total").await?, 0);
    Ok(worker.program.stop().await?)
}
