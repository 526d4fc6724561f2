//! `worker run` on requests other than for one object: several objects, and evaluations.

use std::fs;

use ledger::{ArtifactKind, ErrorClass, JobState};
use nix::sys::signal::Signal;
use request::{Method, Object, Task};

use crate::{
    checkpoint::checkpoint,
    common::{Ended, draw_cells, sha256, small_png, worker},
    run::ENDLESS,
    system::{RunningWorker, System, image_uri},
};

#[tokio::test]
async fn makes_a_mask_for_each_object_of_a_request() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let object = |id: Option<&str>, points: &str| Object { id: id.map(Into::into), points: points.parse().unwrap() };
    let objects = vec![object(Some("cell"), "20,20,1;60,40,0"), object(None, "60,40,1;20,20,0")];
    let job = system.enter_task(&image, Task::Segment(objects), 2).await;
    let outside = vec![object(None, "20,20,1"), object(None, "20,20,1;96,0,0")];
    let outside = system.enter_task(&image, Task::Segment(outside), 2).await;
    let _worker = RunningWorker::start(&system, &[]);

    let job = system.ended(job).await;
    assert_eq!(job.state, JobState::Succeeded, "{:?}", job.error);
    let result = job.result.unwrap();
    assert_eq!(result.masks.iter().map(|mask| mask.object).collect::<Vec<_>>(), [1, 2]);
    let mut files: Vec<(ArtifactKind, u32, &str)> = Vec::new();
    for artifact in &result.artifacts {
        assert_eq!(sha256(&system.read(&artifact.uri)), artifact.sha256);
        files.push((artifact.kind, artifact.object, artifact.uri.key().rsplit('/').next().unwrap()));
    }
    let expected = [
        (ArtifactKind::Overlay, 0, "overlay.png"),
        (ArtifactKind::Receipt, 0, "receipt.json"),
        (ArtifactKind::Mask, 1, "mask-1.png"),
        (ArtifactKind::InitialMask, 1, "initial_mask-1.png"),
        (ArtifactKind::Mask, 2, "mask-2.png"),
        (ArtifactKind::InitialMask, 2, "initial_mask-2.png"),
    ];
    assert_eq!(files, expected);
    let receipt: serde_json::Value = serde_json::from_slice(&system.read(&result.artifacts[1].uri)).unwrap();
    assert_eq!((&receipt["objects"][0]["id"], &receipt["objects"][1]["id"]), (&"cell".into(), &serde_json::Value::Null));

    let error = system.ended(outside).await.error.unwrap();
    assert_eq!(error.class, ErrorClass::Permanent);
    assert!(error.message.contains("object 2: point 2 at (96, 0) is outside the image"), "{}", error.message);
}

/// Where [`draw_cells`] draws: label 3 in the left half of the image, 5 in the right one.
pub fn truth(width: u32, height: u32) -> Vec<u8> {
    let is_cell = |x: u32, y: u32| {
        [(20, 20), (76, 14), (40, 52)].iter().any(|&(cx, cy)| x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < 100)
    };
    let label = |x, y| {
        if !is_cell(x, y) {
            0
        } else if x < 48 {
            3
        } else {
            5
        }
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    let truth = image::GrayImage::from_fn(width, height, |x, y| image::Luma([label(x, y)]));
    truth.write_to(&mut bytes, image::ImageFormat::Png).expect("memory takes bytes");
    bytes.into_inner()
}

#[tokio::test]
async fn compares_methods_with_a_truth() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let labels = system.put_image("labels.png", &truth(96, 64));
    let other_size = system.put_image("small.png", &truth(95, 64));
    let empty = system.put_image("empty.png", &small_png());
    let evaluated = system.enter_evaluation(&image, &labels, Some(5), "2/1", 2).await;
    let skipped = system.enter_evaluation(&image, &labels, Some(5), "900/0", 2).await;
    let refused = [
        (system.enter_evaluation(&image, &labels, Some(4), "1/0", 2).await, "label 4 does not occur"),
        (system.enter_evaluation(&image, &other_size, None, "1/0", 2).await, "95 x 64 pixels, but its image is 96 x 64"),
        (system.enter_evaluation(&image, &image_uri("nowhere.png"), None, "1/0", 2).await, "cannot fetch the truth"),
        (system.enter_evaluation(&empty, &empty, None, "1/0", 2).await, "cannot evaluate: the truth"),
    ];
    let worker = RunningWorker::start(&system, &[]);

    let job = system.ended(evaluated).await;
    assert_eq!(job.state, JobState::Succeeded, "{:?}", job.error);
    let result = job.result.as_ref().unwrap();
    let rows: Vec<(u32, Method)> = result.scores.iter().map(|score| (score.repeat, score.method)).collect();
    let methods = [Method::InitialMask, Method::Finetuned];
    assert_eq!(rows, [(0, methods[0]), (0, methods[1]), (1, methods[0]), (1, methods[1])]);
    for score in &result.scores {
        assert_eq!((score.setting.to_string().as_str(), &score.skipped), ("2/1", &None));
        let (dice, iou) = (score.dice.unwrap(), score.iou.unwrap());
        assert!((dice - 2.0 * iou / (1.0 + iou)).abs() < 1e-12, "{score:?}");
        assert!((0.0..=1.0).contains(&score.confidence.unwrap()) && score.published_dice.is_none(), "{score:?}");
    }
    assert!(result.masks.is_empty());
    assert_eq!(result.artifacts.iter().map(|artifact| artifact.kind).collect::<Vec<_>>(), [ArtifactKind::Receipt]);
    let receipt: serde_json::Value = serde_json::from_slice(&system.read(&result.artifacts[0].uri)).unwrap();
    assert_eq!(receipt["evaluation"]["rows"][1]["dice"], result.scores[1].dice.unwrap());
    assert_eq!(receipt["evaluation"]["truth_sha256"], sha256(&truth(96, 64)));

    let job = system.ended(skipped).await;
    assert_eq!(job.state, JobState::Succeeded, "what cannot be drawn is a row: {:?}", job.error);
    let scores = job.result.unwrap().scores;
    assert_eq!(scores.len(), 4);
    assert!(scores.iter().all(|score| score.dice.is_none() && score.skipped.as_ref().unwrap().contains("900 points wanted")));

    for (job, reason) in refused {
        let job = system.ended(job).await;
        assert_eq!((job.state, job.attempt), (JobState::Failed, 1));
        let error = job.error.unwrap();
        assert!(error.class == ErrorClass::Permanent && error.message.contains(reason), "{}", error.message);
    }
    let metrics = worker.metrics().await;
    assert_eq!(metrics.count(r#"dotmask_worker_stage_seconds_count{stage="evaluate"}"#), 2);
}

#[tokio::test]
async fn scores_an_image_as_the_command_without_servers_does() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let data = system.folder().join("data");
    fs::create_dir(&data).unwrap();
    draw_cells(&data);
    fs::write(data.join("cells_labels.png"), truth(96, 64)).unwrap();
    let image = system.put_image("cells.png", &fs::read(data.join("cells.png")).unwrap());
    let labels = system.put_image("labels.png", &truth(96, 64));
    let job = system.enter_evaluation(&image, &labels, None, "2/1", 2).await;
    let _worker = RunningWorker::start(&system, &[]);
    let scores = system.ended(job).await.result.expect("it succeeds").scores;

    let (data, out) = (format!("folder:{}", data.display()), system.folder().join("out"));
    let mut command = worker();
    command.args(["evaluate", "--data", &data, "--points", "2/1", "--repeats", "2", "--seed", "7", "--steps", "2"]);
    command.args(["--methods", "initial_mask,finetuned", "--learning-rate", "1e-9", "--threads", "1"]);
    command.arg("--checkpoint").arg(checkpoint()).arg("--out").arg(&out);
    let ended = Ended::of(&mut command);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let csv = fs::read_to_string(out.join("results.csv")).unwrap();
    let rows: Vec<String> =
        csv.lines().skip(1).map(|line| line.split(',').skip(2).take(5).collect::<Vec<_>>().join(",")).collect();
    let expected: Vec<String> = scores
        .iter()
        .map(|score| {
            format!("{},{},{},{:?},{:?}", score.setting, score.repeat, score.method, score.dice.unwrap(), score.iou.unwrap())
        })
        .collect();
    assert_eq!((rows.len(), rows), (4, expected));
}

#[tokio::test]
async fn gives_an_evaluation_back_when_told_to_stop() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let labels = system.put_image("labels.png", &truth(96, 64));
    let job = system.enter_evaluation(&image, &labels, None, "2/1", ENDLESS).await;
    let worker = RunningWorker::start(&system, &["--drain-seconds", "0.2"]);
    worker.steps_begun().await;
    let ended = worker.stop(Signal::SIGTERM).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let released = system.job(job).await;
    assert_eq!((released.state, released.attempt, released.epoch), (JobState::Queued, 0, 1));
}
