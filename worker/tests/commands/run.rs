//! `worker run` against real servers: jobs go in by the ledger and the broker, and come out in the ledger and the store.

use std::{fs, path::PathBuf};

use ledger::{ArtifactKind, ErrorClass, JobState, JobStatus};
use nix::sys::signal::Signal;

use crate::{
    checkpoint::checkpoint,
    common::{Ended, draw_cells, sha256, small_png, worker},
    system::{RunningWorker, SERVERS_AWAY, System, image_uri},
};

/// More steps than the tiny model does in any test's time.
pub const ENDLESS: u32 = 10_000;

#[tokio::test]
async fn does_a_job_all_the_way() {
    let system = System::start().await;
    // The pool is declared after the worker has begun to wait for it, as when the dispatcher comes later.
    let worker = RunningWorker::start(&system, &[]);
    worker.logged("is unknown; the dispatcher declares").await;
    system.ledger.declare_pool("test").await.unwrap();

    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let job = system.submit(&image, 3).await;
    let job = system.ended(job).await;
    assert_eq!((job.state, job.attempt, job.epoch), (JobState::Succeeded, 1, 1), "{:?}", job.error);

    let result = job.result.as_ref().unwrap();
    assert_eq!(result.artifacts.len(), 4);
    for artifact in &result.artifacts {
        let place = format!("masks/default/{}/{}/1/", job.batch_id, job.id);
        assert!(artifact.uri.key().starts_with(&place), "{}", artifact.uri);
        let bytes = system.read(&artifact.uri);
        assert_eq!(bytes.len() as u64, artifact.bytes);
        assert_eq!(sha256(&bytes), artifact.sha256);
    }
    let mask = system.read(&artifact_uri(&job, ArtifactKind::Mask));
    let mask = image::load_from_memory(&mask).unwrap();
    assert_eq!((mask.width(), mask.height()), (96, 64));
    let receipt: serde_json::Value = serde_json::from_slice(&system.read(&artifact_uri(&job, ArtifactKind::Receipt))).unwrap();
    assert_eq!(receipt["job"]["id"], job.id.to_string());
    assert_eq!(receipt["job"]["epoch"], 1);
    assert_eq!(receipt["parameters"]["steps"], 3);
    assert_eq!(receipt["objects"][0]["best_step"], result.masks[0].best_step);
    assert_eq!(receipt["objects"][0]["confidence"], result.masks[0].confidence);
    assert!(!receipt.to_string().contains("cells.png"), "a receipt names no object: {receipt}");

    let metrics = worker.metrics().await;
    assert_eq!(metrics.count(r#"dotmask_worker_jobs_total{class="none",outcome="succeeded"}"#), 1);
    assert_eq!(metrics.count(r#"dotmask_worker_stage_seconds_count{stage="finalise"}"#), 1);
    assert!(metrics.count("dotmask_worker_steps_total") >= 1);
    worker.ready().await;

    let ended = worker.stop(Signal::SIGTERM).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!ended.stderr.contains("cells.png"), "an object's key was logged: {}", ended.stderr);
}

/// Where that object of the result is.
pub fn artifact_uri(job: &JobStatus, kind: ArtifactKind) -> request::S3Uri {
    let mut artifacts = job.result.iter().flat_map(|result| &result.artifacts);
    artifacts.find(|artifact| artifact.kind == kind).expect("a result has one of each kind").uri.clone()
}

#[tokio::test]
async fn fails_bad_images_for_good_with_their_reason_and_goes_on() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let text = system.put_image("notes.png", b"Dear colleague");
    let small = system.put_image("small.png", &small_png());
    let good = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let jobs = [
        (system.submit(&text, 3).await, "PNG"),
        (system.submit(&small, 3).await, "point 1 at (20, 20) is outside the image, which is 8 wide and 8 high"),
        (system.submit(&image_uri("nowhere.png"), 3).await, "there is no object"),
    ];
    let undecided = system.enter_with_points(&good, "20,20,1;20,20,0", 3).await;
    let last = system.submit(&good, 3).await;
    let worker = RunningWorker::start(&system, &[]);

    for (job, reason) in jobs {
        let job = system.ended(job).await;
        assert_eq!((job.state, job.attempt), (JobState::Failed, 1));
        let error = job.error.unwrap();
        assert_eq!(error.class, ErrorClass::Permanent);
        assert!(error.message.contains(reason), "{}", error.message);
    }
    assert_eq!(system.ended(last).await.state, JobState::Succeeded);
    let undecided = system.ended(undecided).await;
    assert_eq!(undecided.result.map(|result| result.masks[0].best_step), Some(0), "{:?}", undecided.error);
    let metrics = worker.metrics().await;
    assert_eq!(metrics.count(r#"dotmask_worker_jobs_total{class="permanent",outcome="failed"}"#), 3);
    assert_eq!(metrics.count("dotmask_worker_empty_masks_total"), 1);
}

#[tokio::test]
async fn gives_a_job_back_uncharged_when_told_to_stop() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let job = system.submit(&image, ENDLESS).await;
    let worker = RunningWorker::start(&system, &["--drain-seconds", "0.2"]);
    worker.steps_begun().await;
    assert_eq!(system.job(job).await.state, JobState::Running);

    let ended = worker.stop(Signal::SIGTERM).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let released = system.job(job).await;
    assert_eq!((released.state, released.attempt, released.epoch), (JobState::Queued, 0, 1));
    let owed = system.ledger.take_outbox(10).await.unwrap().expect("a token is owed for the job");
    assert_eq!(owed.tokens(), [("test".to_owned(), 1)]);
}

#[tokio::test]
async fn finishes_a_short_job_when_told_to_stop() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let job = system.submit(&image, 100).await;
    let worker = RunningWorker::start(&system, &["--drain-seconds", "60"]);
    worker.logged("job claimed").await;
    let ended = worker.stop(Signal::SIGTERM).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(system.job(job).await.state, JobState::Succeeded);
}

#[tokio::test]
async fn leaves_at_once_at_the_second_signal() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let job = system.submit(&image, ENDLESS).await;
    let worker = RunningWorker::start(&system, &["--drain-seconds", "3600"]);
    worker.steps_begun().await;
    worker.signal(Signal::SIGTERM);
    worker.logged("stopping").await;
    let ended = worker.stop(Signal::SIGTERM).await;
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert_eq!(system.job(job).await.state, JobState::Running, "its lease ends by itself");
}

#[tokio::test]
async fn stops_a_job_whose_lease_is_lost_and_does_the_next() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let job = system.submit(&image, ENDLESS).await;
    let worker = RunningWorker::start(&system, &["--lease-seconds", "5", "--heartbeat-seconds", "0.2"]);
    worker.steps_begun().await;

    let batch = system.job(job).await.batch_id;
    assert_eq!(system.ledger.cancel_batch(batch).await.unwrap(), 1);
    let next = system.submit(&image, 3).await;
    assert_eq!(system.ended(next).await.state, JobState::Succeeded, "the model is free again");
    assert_eq!(system.job(job).await.state, JobState::Cancelled);
    let metrics = worker.metrics().await;
    assert_eq!(metrics.count("dotmask_worker_leases_lost_total"), 1);
    assert!(metrics.count("dotmask_worker_steps_total") < u64::from(ENDLESS));
}

#[tokio::test]
async fn finds_work_that_no_token_announced() {
    let mut system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    system.stack.rabbitmq.kill();
    let jobs = [system.enter(&image, 3).await, system.enter(&image, 3).await];
    let _worker = RunningWorker::start(&system, &[]);
    for job in jobs {
        assert_eq!(system.ended(job).await.state, JobState::Succeeded);
    }
}

#[tokio::test]
async fn refuses_another_checkpoint_than_the_pools() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    system.ledger.bind_checkpoint("test", &"0".repeat(64)).await.unwrap();
    let ended = RunningWorker::start(&system, &[]).ended().await;
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("runs the checkpoint 0000"), "{}", ended.stderr);
}

#[test]
fn refuses_settings_that_cannot_work_before_it_asks_any_server() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("half.safetensors");
    let whole = fs::read(checkpoint()).unwrap();
    fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    let (good, stored, zeros) = (checkpoint(), PathBuf::from("s3://models/sam.pth"), "0".repeat(64));
    for (checkpoint, arguments, message) in [
        (&damaged, ["--pool", "test"], "half.safetensors"),
        (&good, ["--heartbeat-seconds", "15"], "at most half of it"),
        (&good, ["--masks", "/tmp/masks"], "expected s3://bucket/key"),
        (&good, ["--s3-endpoint", "http://nobody:hunter2@store"], "names a user before the server"),
        (&good, ["--ca-file", "/nowhere/ca.pem"], "cannot read /nowhere/ca.pem"),
        (&good, ["--lease-seconds", "0"], "more than 0 seconds"),
        (&good, ["--checkpoint-sha256", "abc"], "64 hexadecimal digits"),
        (&good, ["--checkpoint-sha256", &zeros], "expected 0000"),
        (&good, ["--pod-deletion-cost", "true"], "--pod-deletion-cost needs"),
        (&stored, ["--pool", "test"], "--checkpoint-sha256 (DOTMASK_CHECKPOINT_SHA256)"),
        (&stored, ["--checkpoint-sha256", &zeros], "--checkpoint-cache (DOTMASK_CHECKPOINT_CACHE)"),
    ] {
        let mut command = worker();
        command.arg("run").args(arguments).arg("--checkpoint").arg(checkpoint).args(["--listen", "127.0.0.1:0"]);
        command.envs(SERVERS_AWAY);
        for (flag, value) in [("--pool", "test"), ("--masks", "s3://results/masks")] {
            if !arguments.contains(&flag) {
                command.args([flag, value]);
            }
        }
        let ended = Ended::of(&mut command);
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains(message), "{}", ended.stderr);
        assert!(!ended.stderr.contains("hunter2"), "a password was printed: {}", ended.stderr);
    }
}

#[test]
fn refuses_urls_that_are_none_and_says_which_without_their_password() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "amqp://nobody:hunter2@127.0.0.1:1/%2f\n").unwrap();
    let path = file.path().to_str().unwrap();
    for (variables, message) in [
        (vec![("DATABASE_URL", "")], "DATABASE_URL is not set; set it, or DATABASE_URL_FILE"),
        (vec![("AMQP_URL", "http://nobody:hunter2@127.0.0.1")], "AMQP_URL is not valid"),
        (vec![("AMQP_URL_FILE", path)], "AMQP_URL is set, and AMQP_URL_FILE (or its flag) too"),
        (vec![("AMQP_URL", ""), ("AMQP_URL_FILE", "/nowhere/amqp")], "cannot read /nowhere/amqp"),
        // With the file's URL nothing is wrong, and the next one is looked at.
        (vec![("AMQP_URL", ""), ("AMQP_URL_FILE", path), ("DOTMASK_POD_DELETION_COST", "true")], "--pod-deletion-cost needs"),
    ] {
        let mut command = worker();
        command.args(["run", "--pool", "test", "--masks", "s3://results/masks", "--listen", "127.0.0.1:0"]);
        let ended = Ended::of(command.arg("--checkpoint").arg(checkpoint()).envs(SERVERS_AWAY).envs(variables));
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains(message) && !ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn warns_of_connections_that_others_could_read() {
    // Nobody has that address: it is for documentation.
    let environment = [
        ("DATABASE_URL", "postgres://nobody:hunter2@192.0.2.1/none"),
        ("AMQP_URL", "amqp://nobody:hunter2@192.0.2.1/%2f"),
        ("DOTMASK_S3_ENDPOINT", "http://192.0.2.1:9000"),
    ];
    let worker = RunningWorker::spawn(&environment.map(|(name, value)| (name.into(), value.into())), &[]);
    for server in [r#"server="postgres" address="192.0.2.1:5432/none""#, r#"server="rabbitmq""#, r#"server="s3""#] {
        worker.logged(server).await;
    }
    let ended = worker.stop(Signal::SIGTERM).await;
    assert_eq!(ended.stderr.matches("the connection is not protected").count(), 3, "{}", ended.stderr);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
}

#[tokio::test]
async fn waits_for_servers_that_are_not_there_and_says_so_once() {
    let worker = RunningWorker::without_servers(&[]);
    worker.logged("cannot connect to Postgres at 127.0.0.1:1/none").await;
    assert!(!worker.is_ready().await, "ready without Postgres");
    let ended = worker.stop(Signal::SIGTERM).await;
    assert_eq!(ended.code, 0);
    assert_eq!(ended.stderr.matches("cannot connect to Postgres").count(), 1, "{}", ended.stderr);
    assert!(!ended.stderr.contains("hunter2"), "a password was logged: {}", ended.stderr);
}
