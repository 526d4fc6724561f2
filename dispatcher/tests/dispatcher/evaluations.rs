//! `dispatcher submit --data` and `dispatcher report` as their users see them.

use std::time::Duration;

use image::{GrayImage, Luma};
use ledger::{Finalised, JobResult, Score};
use request::{EvaluationDots, Method, Padding, Task, Window};
use servers::ObjectStore;
use tokio::process::Command;

use crate::{
    client::text,
    support::{PROGRAM, System, client},
};

/// Three jobs on the same image: two evaluations that end and one that waits.
#[tokio::test]
async fn reports_the_scores_of_a_batch_that_still_runs() {
    let system = System::start().await;
    let (url, dir) = (&system.dispatcher.url, system.dir.path());
    let line =
        r#"{"image":"s3://scans/a.png","truth":"s3://scans/t.png","setting":"1/0","repeats":1,"id":"a, first","group":"g"}"#;
    let id = system.dispatcher.post("/v1/batches?pool=gpu", format!("{line}\n").repeat(3)).await.id().to_string();
    for dice in [Some(0.25), None] {
        let job = system.ledger.claim("gpu", "worker-1", Duration::from_mins(1)).await.unwrap().unwrap();
        let score = Score {
            setting: "1/0".parse().unwrap(),
            repeat: 1,
            method: Method::Finetuned,
            dice,
            iou: dice,
            best_step: dice.map(|_| 7),
            seconds: dice.map(|_| 2.5),
            iou_with_initial: dice,
            agreement: dice,
            confidence: dice,
            published_dice: None,
            published_iou: None,
            skipped: dice.is_none().then(|| "0 foreground tokens".into()),
        };
        let result = JobResult { artifacts: Vec::new(), masks: Vec::new(), scores: vec![score], seconds: 1.5 };
        assert_eq!(system.ledger.finalise(&job.lease, &result).await.unwrap(), Finalised::Accepted);
    }
    let output = client(url, &["report", &id, "--csv", "rows.csv"], dir).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("1 of 3 jobs are still open"), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("no checkpoint yet") && text(&output.stdout).contains("| 1/0 |"),
        "{}",
        text(&output.stdout)
    );
    let csv = std::fs::read_to_string(dir.join("rows.csv")).unwrap();
    assert!(csv.contains("\n\"a, first\",g,1/0,1,finetuned,0.25,0.25,,,0.25,0.25,0.25,7,,2.5\n"), "{csv}");
    assert!(csv.contains("0 foreground tokens"), "{csv}");

    let scores = system.dispatcher.get(&format!("/v1/batches/{id}/scores?limit=1")).await.json;
    assert_eq!((&scores["jobs"][0]["scores"][0]["dice"], &scores["next_after"]), (&0.25.into(), &1.into()), "{scores}");
}

#[tokio::test]
async fn submits_a_data_set_of_the_object_store_as_evaluations() {
    let system = System::start().await;
    let dir = system.dir.path();
    let store = ObjectStore::start(&dir.join("objects")).await.unwrap();
    store.create_bucket("scans").unwrap();
    let folder = store.dir().join("scans/data/cells");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, value) in [("a.png", 9), ("a_labels.png", 1), ("b.png", 9), ("b_labels.png", 2)] {
        GrayImage::from_pixel(8, 8, Luma([value])).save(folder.join(name)).unwrap();
    }
    let submit = async |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["submit", "--pool", "gpu", "--server", &system.dispatcher.url]).args(arguments).current_dir(dir);
        command.env("DOTMASK_S3_ENDPOINT", store.endpoint()).env("DOTMASK_S3_PATH_STYLE", "true");
        command.env("AWS_ACCESS_KEY_ID", store.access_key()).env("AWS_SECRET_ACCESS_KEY", store.secret_key());
        command.kill_on_drop(true).output().await.unwrap()
    };
    let question = ["--points", "1/0,2/1,1/0", "--repeats", "3", "--seed", "9", "--methods", "untuned,sam_mask", "--steps", "7"];
    let question = [&question[..], &["--choose", "padding=excluded", "--window", "40,400", "--labels", "each"]].concat();
    let output = submit(&[&["--data", "folder:s3://scans/data"], &question[..]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let batch = text(&output.stdout).trim().parse().unwrap();
    let jobs = system.ledger.jobs(batch, 0, 10).await.unwrap();
    assert_eq!(jobs.len(), 4, "two cases, two settings");
    let first = &jobs[1].request;
    assert_eq!(first.image.to_string(), "s3://scans/data/cells/a.png");
    assert_eq!((first.parameters.steps, first.parameters.choices.padding), (7, Padding::Excluded));
    assert_eq!(first.view.window.map(Window::width), Some(400.0));
    let Task::Evaluate(evaluation) = &first.task else { panic!("{first:?}") };
    assert_eq!(evaluation.truth.to_string(), "s3://scans/data/cells/a_labels.png");
    assert_eq!((evaluation.label, evaluation.methods.as_slice()), (Some(1), [Method::SamMask, Method::Untuned].as_slice()));
    assert_eq!(evaluation.dots, EvaluationDots::Drawn { setting: "2/1".parse().unwrap(), repeats: 3, seed: 9 });
    assert_eq!(jobs[0].request.id, jobs[1].request.id, "a case has one id, whatever the setting");

    for (arguments, part) in [
        (["--data", "glas:s3://scans/data"], "no case of kind glas found"),
        (["--data", "folder:s3://scans/nothing"], "found no file"),
        (["--data", "gals:s3://scans/data"], "expected folder, monuseg, glas or amos22"),
        (["--data", "folder:/data"], "expected KIND:s3://BUCKET/FOLDER"),
    ] {
        let output = submit(&arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(part), "{arguments:?}: {}", text(&output.stderr));
    }
    let output = submit(&["--data", "folder:s3://scans/data", "--choose", "padding"]).await;
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("expected name=value"), "{}", text(&output.stderr));
    assert_eq!(system.queued().await, 4);
}
