//! What `worker run` reads for a job: what its project may, and the content that its line speaks of.

use std::fs;

use ledger::{ArtifactKind, DEFAULT_PROJECT, ErrorClass, JobState, JobStatus, ProjectChange};
use request::{AllowList, ContentSha256, S3Uri, SegmentationRequest, Task};

use crate::{
    common::{draw_cells, sha256},
    run::artifact_uri,
    run_tasks::truth,
    system::{RunningWorker, System, evaluation, segmentation},
};

fn list(entries: &[&str]) -> AllowList {
    AllowList::new(entries.iter().map(|entry| entry.parse().expect("an entry")).collect())
}

fn failed_at_once(job: &JobStatus, reason: &str) {
    assert_eq!((job.state, job.attempt), (JobState::Failed, 1), "{reason}");
    let error = job.error.as_ref().expect("a failed job says why");
    assert!(error.class == ErrorClass::Permanent && error.message.contains(reason), "{}", error.message);
}

#[tokio::test]
async fn reads_what_the_project_may_and_writes_where_no_other_project_reads() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    fs::create_dir(system.stack.objects.dir().join("scans/lab")).unwrap();
    let cells = fs::read(draw_cells(system.folder())).unwrap();
    let [of_lab, elsewhere] = ["lab/cells.png", "cells.png"].map(|key| system.put_image(key, &cells));
    for (project, reads) in [("lab", "s3://scans/lab"), ("all", "s3://*"), ("left", "s3://*")] {
        system.ledger.create_project(project, &list(&[reads]), 100).await.unwrap();
    }
    let segment = |image: &S3Uri| segmentation(image, "20,20,1;60,40,0", 2);
    let in_lab = system.enter_request("lab", &segment(&of_lab)).await;
    let in_default = system.enter_request(DEFAULT_PROJECT, &segment(&elsewhere)).await;
    let outside = system.enter_request("lab", &segment(&elsewhere)).await;
    let truth_outside = system.enter_request("lab", &evaluation(&of_lab, &elsewhere)).await;
    // What was allowed when it was submitted is not any more.
    let left = system.enter_request("left", &segment(&elsewhere)).await;
    let none = ProjectChange { reads: Some(list(&[])), ..ProjectChange::default() };
    system.ledger.change_project("left", &none).await.unwrap();
    let worker = RunningWorker::start(&system, &[]);

    for (job, project) in [(in_lab, "lab"), (in_default, "default")] {
        let job = system.ended(job).await;
        assert_eq!(job.state, JobState::Succeeded, "{:?}", job.error);
        let place = format!("s3://results/masks/{project}/{}/{}/1/", job.batch_id, job.id);
        assert!(job.result.unwrap().artifacts.iter().all(|artifact| artifact.uri.to_string().starts_with(&place)));
    }
    let refusal =
        |what: &str, project: &str| format!("the {what} s3://scans/cells.png is not among what the project {project} may");
    failed_at_once(&system.ended(outside).await, &refusal("image", "lab"));
    failed_at_once(&system.ended(truth_outside).await, &refusal("truth", "lab"));
    failed_at_once(&system.ended(left).await, &refusal("image", "left"));

    // A project's own masks are images as others are; those of others are not, whatever it may read.
    let mask = artifact_uri(&system.job(in_default).await, ArtifactKind::Mask);
    let of_itself = system.enter_request(DEFAULT_PROJECT, &segment(&mask)).await;
    let of_others = system.enter_request("all", &segment(&mask)).await;
    let truth_of_others = system.enter_request("all", &evaluation(&elsewhere, &mask)).await;
    assert_eq!(system.ended(of_itself).await.state, JobState::Succeeded);
    failed_at_once(
        &system.ended(of_others).await,
        "lies among the results of all projects, and not in the folder of the project all",
    );
    failed_at_once(&system.ended(truth_of_others).await, &format!("the truth {mask} lies among the results"));
    let fetches = worker.metrics().await.count(r#"dotmask_worker_stage_seconds_count{stage="fetch"}"#);
    assert_eq!(fetches, 3, "nothing was fetched that may not be read");
    assert!(!worker.log().contains("cells.png"), "an object's key was logged");
}

#[tokio::test]
async fn takes_the_content_that_a_line_speaks_of_and_no_other() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let cells = fs::read(draw_cells(system.folder())).unwrap();
    let labels = truth(96, 64);
    let (image, truth) = (system.put_image("cells.png", &cells), system.put_image("labels.png", &labels));
    let is_not: Option<ContentSha256> = Some("0".repeat(64).parse().unwrap());
    let [of_image, of_truth] = [&cells, &labels].map(|bytes| sha256(bytes));
    let segment = |image_sha256| SegmentationRequest { image_sha256, ..segmentation(&image, "20,20,1;60,40,0", 2) };
    let evaluate = |truth_sha256| {
        let mut request = evaluation(&image, &truth);
        let Task::Evaluate(evaluation) = &mut request.task else { panic!("an evaluation") };
        evaluation.truth_sha256 = truth_sha256;
        request
    };
    let good = [segment(of_image.parse().ok()), evaluate(of_truth.parse().ok())];
    let other = [(segment(is_not.clone()), "image", of_image), (evaluate(is_not), "truth", of_truth)];
    let _worker = RunningWorker::start(&system, &[]);
    for request in good {
        let job = system.enter_request(DEFAULT_PROJECT, &request).await;
        let job = system.ended(job).await;
        assert_eq!(job.state, JobState::Succeeded, "{:?}", job.error);
        let receipt: serde_json::Value =
            serde_json::from_slice(&system.read(&artifact_uri(&job, ArtifactKind::Receipt))).unwrap();
        let etags = [&receipt["image"]["etag"], &receipt["evaluation"]["truth_etag"]];
        assert!(etags[0].as_str().is_some_and(|etag| !etag.is_empty() && !etag.contains('"')), "{receipt}");
        assert!(etags[1].is_string() == receipt["evaluation"].is_object() && etags[1] != etags[0], "{receipt}");
    }
    for (request, what, found) in other {
        let job = system.enter_request(DEFAULT_PROJECT, &request).await;
        let expected =
            format!("the {what} has the SHA-256 {found}, expected {}: it is another than its line says", "0".repeat(64));
        failed_at_once(&system.ended(job).await, &expected);
    }
}

#[tokio::test]
async fn limits_on_an_image_are_the_workers_settings() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    // 96 x 64 pixels.
    let cells = fs::read(draw_cells(system.folder())).unwrap();
    let image = system.put_image("cells.png", &cells);
    let most_bytes = (cells.len() - 1).to_string();
    for (variable, limit, reason) in [
        ("DOTMASK_MAX_IMAGE_BYTES", most_bytes.as_str(), format!("has more than {most_bytes} bytes")),
        ("DOTMASK_MAX_IMAGE_PIXELS", "6143", "the image is 96 x 64 pixels, expected at most 6143".into()),
        ("DOTMASK_MAX_DECODED_BYTES", "6143", "bytes decoded, expected at most 6143".into()),
    ] {
        let worker = RunningWorker::start_in(&system, &[(variable, limit.into())]);
        let job = system.enter(&image, 2).await;
        failed_at_once(&system.ended(job).await, &reason);
        drop(worker);
    }
}
