//! From a manifest to masks, through the binaries and real servers.

use ledger::{ArtifactKind, JobState};
use tests::{System, WorkerSettings, check_every_job_has_one_result, jpeg_of_blobs, png_of_blobs, tiff16_of_blobs};

const POINTS: &str = "[[24, 24, 1], [72, 24, 1], [4, 4, 0], [48, 2, 0]]";

fn line(key: &str) -> String {
    format!(r#"{{"image": "s3://scans/{key}", "points": {POINTS}, "id": "{key}", "parameters": {{"steps": 3}}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn images_become_masks_and_a_bad_one_stops_nothing() -> anyhow::Result<()> {
    let system = System::start().await?;
    system.put_image("in/a.png", &png_of_blobs(200, 120, 1))?;
    system.put_image("in/b c+d%.jpg", &jpeg_of_blobs(130, 150, 2))?;
    system.put_image("in/c.tif", &tiff16_of_blobs(96, 96, 3))?;
    let _dispatcher = system.start_dispatcher().await?;
    let worker = system.start_worker(WorkerSettings::default())?;

    let good = system.submit(&[line("in/a.png"), line("in/b c+d%.jpg"), line("in/c.tif")]).await?;
    let watched = system.watch_output(good).await?;
    assert!(watched.status.success(), "{}\n{}", String::from_utf8_lossy(&watched.stderr), system.logs());
    check_every_job_has_one_result(&system, good).await?;
    for (job, size) in system.jobs(good).await?.iter().zip([(200, 120), (130, 150), (96, 96)]) {
        let result = job.result.as_ref().expect("checked above");
        let object = |kind| {
            let artifact = result.artifacts.iter().find(|artifact| artifact.kind == kind).expect("checked above");
            system.object(&artifact.uri)
        };
        let mask = image::load_from_memory(&object(ArtifactKind::Mask)?)?.into_luma8();
        assert_eq!(mask.dimensions(), size);
        assert!(mask.pixels().all(|pixel| [0, 255].contains(&pixel.0[0])));
        assert_eq!(image::load_from_memory(&object(ArtifactKind::InitialMask)?)?.into_luma8().dimensions(), (256, 256));
        assert_eq!(image::load_from_memory(&object(ArtifactKind::Overlay)?)?.into_rgb8().dimensions(), size);
        let receipt: serde_json::Value = serde_json::from_slice(&object(ArtifactKind::Receipt)?)?;
        assert_eq!(receipt["objects"][0]["losses"].as_array().map(Vec::len), Some(3), "{receipt}");
    }

    system.put_image("in/text.png", b"no image at all")?;
    let mixed = system.submit(&[line("in/missing.png"), line("in/text.png"), line("in/a.png")]).await?;
    let watched = system.watch_output(mixed).await?;
    assert_eq!(watched.status.code(), Some(4), "a job that did not succeed has an exit code of its own");
    let jobs = system.jobs(mixed).await?;
    assert_eq!(jobs.iter().map(|job| job.state).collect::<Vec<_>>(), [JobState::Failed, JobState::Failed, JobState::Succeeded]);
    let error = |index: usize| jobs[index].error.as_ref().expect("failed jobs say why").message.clone();
    assert!(error(0).contains("s3://scans/in/missing.png"), "{}", error(0));
    assert!(error(1).contains("expected PNG, JPEG, TIFF"), "{}", error(1));
    assert_eq!(jobs[0].attempt, 1, "what cannot succeed is not tried again");

    // The same image has the same mask, whatever ran before it on the worker.
    let mask = |job: &ledger::JobStatus| {
        job.result
            .as_ref()
            .expect("succeeded")
            .artifacts
            .iter()
            .find(|a| a.kind == ArtifactKind::Mask)
            .expect("has a mask")
            .sha256
            .clone()
    };
    assert_eq!(mask(&jobs[2]), mask(&system.jobs(good).await?[0]));
    Ok(worker.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_line_submits_nothing_and_every_bad_line_is_named() -> anyhow::Result<()> {
    let system = System::start().await?;
    let _dispatcher = system.start_dispatcher().await?;
    let bad = [line("a.png"), "{".into(), line("b.png"), line("c.png").replace("s3://", "http://")];
    let output = system.submit_output(&bad).await?;
    let said = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty());
    assert!(
        said.contains("line 2") && said.contains("line 4") && !said.contains("line 1:") && !said.contains("line 3"),
        "{said}"
    );
    let pools = system.ledger.pools().await?;
    assert_eq!(pools.iter().map(|pool| pool.queued).sum::<u64>(), 0);
    Ok(())
}
