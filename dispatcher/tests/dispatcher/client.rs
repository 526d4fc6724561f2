//! `dispatcher submit` and `dispatcher watch` as their users see them.

use std::time::Duration;

use ledger::{ErrorClass, Finalised, JobFailure, JobResult, Mask};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::Command,
};

use crate::support::{Dispatcher, NO_BROKER, PROGRAM, System, client, line, manifest, wait_for};

pub fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// Does as many jobs as there are: the first fails, the others succeed.
async fn work(system: &System) {
    let ledger = &system.ledger;
    let mut first = true;
    while let Some(job) = ledger.claim("gpu", "worker-1", Duration::from_mins(1)).await.unwrap() {
        let finalised = if std::mem::take(&mut first) {
            let failure = JobFailure { class: ErrorClass::Permanent, message: "no such object".into() };
            ledger.fail(&job.lease, &failure).await.unwrap()
        } else {
            let mask = Mask { object: 1, iou: 0.875, best_step: 7, confidence: 0.5, warnings: Vec::new() };
            let result = JobResult { artifacts: Vec::new(), masks: vec![mask], scores: Vec::new(), seconds: 1.5 };
            ledger.finalise(&job.lease, &result).await.unwrap()
        };
        assert_eq!(finalised, Finalised::Accepted);
    }
}

#[tokio::test]
async fn submits_a_file_prints_the_id_and_watches_the_batch_to_its_end() {
    let system = System::start().await;
    let (url, dir) = (&system.dispatcher.url, system.dir.path());
    std::fs::write(dir.join("scans.jsonl"), manifest(3)).unwrap();
    let output = client(url, &["submit", "scans.jsonl", "--pool", "gpu", "--name", "try"], dir).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let id = text(&output.stdout).trim().to_owned();
    id.parse::<uuid::Uuid>().unwrap();
    assert!(text(&output.stderr).contains("3 jobs submitted"), "{}", text(&output.stderr));

    work(&system).await;
    let output = client(url, &["watch", &id], dir).await;
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 4, "{table}");
    assert_eq!(rows[1], ["1", "slide-1", "failed", "+1", "-1", "no", "such", "object"], "{table}");
    assert_eq!(rows[2], ["2", "slide-2", "succeeded", "+1", "-1", "0.875", "7/100", "0.50", "1.5"], "{table}");
    assert!(text(&output.stderr).contains("2 succeeded, 1 failed"), "{}", text(&output.stderr));

    let output = client(url, &["watch", &id, "--json"], dir).await;
    let jobs: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((jobs.len(), &jobs[0]["error"]["message"]), (3, &"no such object".into()));
}

#[tokio::test]
async fn lists_the_masks_to_look_at_first() {
    let system = System::start().await;
    let id = system.dispatcher.post("/v1/batches?pool=gpu", manifest(4)).await.id().to_string();
    for (confidence, warnings) in
        [(Some(0.75), vec![]), (None, vec![]), (Some(0.25), vec!["dot 2 is outside".to_owned()]), (Some(0.5), vec![])]
    {
        let job = system.ledger.claim("gpu", "worker-1", Duration::from_mins(1)).await.unwrap().unwrap();
        let finalised = if let Some(confidence) = confidence {
            let masks = vec![Mask { object: 1, iou: 0.875, best_step: 7, confidence, warnings }];
            let result = JobResult { artifacts: Vec::new(), masks, scores: Vec::new(), seconds: 1.5 };
            system.ledger.finalise(&job.lease, &result).await.unwrap()
        } else {
            let failure = JobFailure { class: ErrorClass::Permanent, message: "no such object".into() };
            system.ledger.fail(&job.lease, &failure).await.unwrap()
        };
        assert_eq!(finalised, Finalised::Accepted);
    }
    let output = client(&system.dispatcher.url, &["watch", &id, "--by-confidence"], system.dir.path()).await;
    let table = text(&output.stdout);
    let lines: Vec<&str> = table.lines().skip(1).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(lines, ["3", "4", "1", "2"], "{table}");
    assert!(table.contains("0.25      1.5  ! dot 2 is outside"), "{table}");
}

#[tokio::test]
async fn watches_over_a_restart_of_the_dispatcher() {
    let mut system = System::start().await;
    std::fs::write(system.dir.path().join("scans.jsonl"), manifest(60)).unwrap();
    let mut submit = Command::new(PROGRAM);
    submit.args(["submit", "scans.jsonl", "--pool", "gpu", "--watch", "--server", &system.dispatcher.url]);
    let stderr = std::fs::File::create(system.dir.path().join("stderr")).unwrap();
    submit.current_dir(system.dir.path()).stdout(std::process::Stdio::piped()).stderr(stderr).kill_on_drop(true);
    let submit = submit.spawn().unwrap();
    let said = async |words: &str| {
        wait_for(words, async || {
            let text = std::fs::read_to_string(system.dir.path().join("stderr")).unwrap();
            if text.contains(words) { Ok(()) } else { Err(text) }
        })
        .await;
    };
    said("60 queued").await;
    let address = system.dispatcher.url.trim_start_matches("http://").to_owned();
    system.dispatcher.stop().await;
    said("cannot reach the dispatcher").await;
    system.dispatcher = Dispatcher::start(&system.postgres.url(), NO_BROKER, &["--listen", &address]).await;
    said("the dispatcher answers again").await;
    work(&system).await;

    let output = submit.wait_with_output().await.unwrap();
    said("59 succeeded, 1 failed").await;
    assert_eq!(output.status.code(), Some(4));
    let stdout = text(&output.stdout);
    assert_eq!(stdout.lines().count(), 3, "the id, the header and the one that failed: {stdout}");
}

#[tokio::test]
async fn names_bad_lines_and_unusable_manifests() {
    let system = System::start().await;
    let (url, dir) = (&system.dispatcher.url, system.dir.path());
    std::fs::write(dir.join("bad.jsonl"), format!("{}{{}}\n{}nonsense\n", line(1), line(3))).unwrap();
    std::fs::write(dir.join("empty.jsonl"), "").unwrap();
    std::fs::write(dir.join("scan.png"), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").unwrap();
    std::fs::write(dir.join("good.jsonl"), manifest(1)).unwrap();
    let cases: [(&[&str], &[&str]); 6] = [
        (
            &["bad.jsonl", "--pool", "gpu"],
            &["line 2: missing field", "line 4: expected", "2 of 4 lines are bad", "hint: correct"],
        ),
        (&["missing.jsonl"], &["missing.jsonl", "No such file"]),
        (&["empty.jsonl"], &["empty.jsonl", "it is empty"]),
        (&["."], &["it is a folder"]),
        (&["scan.png", "--pool", "gpu"], &["the manifest is binary"]),
        (&["good.jsonl", "--pool", "tpu"], &["pool \"tpu\" is unknown", "hint: --pool takes one of: cpu, gpu"]),
    ];
    for (arguments, parts) in cases {
        let output = client(url, &[&["submit"], arguments].concat(), dir).await;
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), b"".as_slice()), "{arguments:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{arguments:?}: {stderr}");
        }
    }
    let output = client(url, &["watch", "0199b1f0-0000-7000-8000-000000000000"], dir).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no batch"), "{}", text(&output.stderr));
    assert_eq!(system.queued().await, 0);
}

#[tokio::test]
async fn reads_a_manifest_from_a_pipe() {
    let system = System::start().await;
    let mut submit = Command::new(PROGRAM);
    submit.args(["submit", "-", "--pool", "gpu", "--server", &system.dispatcher.url]);
    submit.stdin(std::process::Stdio::piped()).kill_on_drop(true);
    let mut submit = submit.spawn().unwrap();
    let mut stdin = submit.stdin.take().unwrap();
    stdin.write_all(manifest(5_000).as_bytes()).await.unwrap();
    drop(stdin);
    assert_eq!(submit.wait().await.unwrap().code(), Some(0));
    assert_eq!(system.queued().await, 5_000);
}

#[tokio::test]
async fn says_what_to_do_when_nobody_answers() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("good.jsonl"), manifest(1)).unwrap();
    let output = client("http://127.0.0.1:1", &["submit", "good.jsonl"], dir.path()).await;
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("cannot reach the dispatcher at http://127.0.0.1:1/") && stderr.contains("trying again"), "{stderr}");
    assert!(stderr.contains("hint: is `dispatcher serve` running there?"), "{stderr}");
}

#[tokio::test]
async fn lists_fifty_failures_and_says_how_many_more_there_are() {
    let system = System::start().await;
    let id = system.dispatcher.post("/v1/batches?pool=gpu", manifest(53)).await.id();
    while let Some(job) = system.ledger.claim("gpu", "worker-1", Duration::from_mins(1)).await.unwrap() {
        let failure = JobFailure { class: ErrorClass::Permanent, message: "no such object".into() };
        assert_eq!(system.ledger.fail(&job.lease, &failure).await.unwrap(), Finalised::Accepted);
    }
    let output = client(&system.dispatcher.url, &["watch", &id.to_string()], system.dir.path()).await;
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(text(&output.stdout).lines().count(), 51, "the header and fifty of them");
    assert!(text(&output.stderr).contains("... and 3 more that did not succeed"), "{}", text(&output.stderr));
}

/// A dispatcher whose first answer to an upload breaks off, and which takes so many uploads; gives what it was sent.
async fn breaks_off(listener: TcpListener, uploads: usize) -> Vec<String> {
    const POOLS: (&str, &str) = ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 12\r\n\r\n{\"pools\":[]}", "\r\n\r\n");
    const BROKEN: (&str, &str) = ("HTTP/1.1 201 Created\r\ncontent-length: 99\r\n\r\n{\"id\":", "\r\n0\r\n\r\n");
    const BATCH: &str = r#"{"id":"0199b1f0-0000-7000-8000-000000000000","jobs":1,"is_new":false}"#;
    let taken = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{BATCH}", BATCH.len());
    let answers = [POOLS, BROKEN, (taken.as_str(), BROKEN.1)];
    let mut requests = Vec::new();
    for (answer, end) in answers.into_iter().take(1 + uploads) {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        while !request.ends_with(end) {
            let mut buffer = [0; 4_096];
            let bytes = connection.read(&mut buffer).await.unwrap();
            assert!(bytes > 0, "the request ends early: {request}");
            request += text(&buffer[..bytes]);
        }
        connection.write_all(answer.as_bytes()).await.unwrap();
        requests.push(request);
    }
    requests
}

fn idempotency_key(request: &str) -> &str {
    let header = request.lines().find_map(|line| line.strip_prefix("idempotency-key: "));
    header.unwrap_or_else(|| panic!("no key in {request}"))
}

#[tokio::test]
async fn an_upload_whose_answer_broke_off_is_sent_again_with_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("good.jsonl"), manifest(1)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(breaks_off(listener, 2));
    let output = client(&url, &["submit", "good.jsonl"], dir.path()).await;
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(text(&output.stdout), "0199b1f0-0000-7000-8000-000000000000\n");
    assert!(stderr.contains("trying again") && stderr.contains("1 job submitted before"), "{stderr}");
    let requests = server.await.unwrap();
    let body = |request: &str| request.split_once("\r\n\r\n").unwrap().1.to_owned();
    assert_eq!(idempotency_key(&requests[1]), idempotency_key(&requests[2]));
    assert_eq!(body(&requests[1]), body(&requests[2]));
}

#[tokio::test]
async fn of_a_pipe_whose_answer_broke_off_it_says_how_to_submit_it_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(breaks_off(listener, 1));
    let mut submit = Command::new(PROGRAM);
    submit.args(["submit", "-", "--server", &url]).kill_on_drop(true);
    submit.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut submit = submit.spawn().unwrap();
    submit.stdin.take().unwrap().write_all(manifest(1).as_bytes()).await.unwrap();
    let output = submit.wait_with_output().await.unwrap();
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), b"".as_slice()), "{stderr}");
    assert!(stderr.contains("it is not known whether the batch was submitted"), "{stderr}");
    let requests = server.await.unwrap();
    assert!(stderr.contains(&format!("--idempotency-key {}", idempotency_key(&requests[1]))), "{stderr}");
}
