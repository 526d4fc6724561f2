//! Batches on their way in, and reading them back.

use std::{future::poll_fn, pin::pin, task::Poll};

use crate::fixture::{Fixture, gpu, request};
use ledger::{Counts, LedgerError, NewBatch, SubmittedBatch};
use request::{Object, SegmentationRequest, Task};

#[tokio::test]
async fn nothing_is_visible_before_the_commit_and_nothing_is_left_of_a_dropped_batch() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let mut writer = ledger.begin_batch(gpu()).await.unwrap();
    let id = writer.id();
    // Enough for several flushes.
    for line in 1..=2_000 {
        writer.push(line, &request(line)).await.unwrap();
    }
    assert_eq!(ledger.batch(id).await.unwrap(), None);
    assert_eq!(fixture.count("SELECT count(*) FROM jobs").await, 0);
    drop(writer);
    assert!(matches!(ledger.begin_batch(gpu()).await.unwrap().commit().await, Err(LedgerError::EmptyBatch)));

    // The whole pool of connections is still good after that.
    let batch = fixture.submit(2_000).await;
    assert_eq!(batch.jobs, 2_000);
    let counted = fixture.count("SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM batches)").await;
    assert_eq!(counted, 2_001);
    assert_eq!(fixture.count("SELECT sum(tokens) FROM outbox").await, 2_000);
}

/// Polls it so many times, and then drops it.
async fn interrupted<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test]
async fn an_upload_that_is_interrupted_anywhere_leaves_every_connection_good() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let upload = async || {
        let mut writer = ledger.begin_batch(gpu()).await.unwrap();
        // A COPY before the commit, and one in it.
        for line in 1..=400 {
            writer.push(line, &request(line)).await.unwrap();
        }
        writer.commit().await.unwrap()
    };
    // Where an upload stands at a poll is for the server's speed to say: several rounds meet every place.
    for _ in 0..5 {
        for polls in 1.. {
            let uploaded = interrupted(polls, Box::pin(upload())).await;
            // A connection that is an answer behind says something else.
            for _ in 0..3 {
                let pools = ledger.pools().await.unwrap();
                assert_eq!(
                    pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(),
                    ["cpu", "gpu"],
                    "after {polls} polls"
                );
                // Who is interrupted while it commits may have committed.
                let due = ledger.due_by_pool(10_000).await.unwrap();
                assert!(due.iter().all(|(pool, jobs)| pool == "gpu" && jobs % 400 == 0), "after {polls} polls: {due:?}");
            }
            if uploaded.is_some() {
                assert!(polls > 1, "it was not interrupted");
                break;
            }
        }
    }
    assert_eq!(fixture.count("SELECT count(*) % 400 FROM jobs").await, 0);
}

#[tokio::test]
async fn writes_one_outbox_row_for_each_pool() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let mut writer = ledger.begin_batch(gpu()).await.unwrap();
    for line in 1..=5 {
        let pool = (line > 3).then(|| "cpu".to_owned());
        writer.push(line, &SegmentationRequest { pool, ..request(line) }).await.unwrap();
    }
    let batch = writer.commit().await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM outbox").await, 2);
    let owed = ledger.take_outbox(10).await.unwrap().expect("rows").tokens();
    assert_eq!(owed, [("cpu".to_owned(), 2), ("gpu".to_owned(), 3)]);
    assert_eq!(ledger.due_by_pool(10_000).await.unwrap(), [("cpu".to_owned(), 2), ("gpu".to_owned(), 3)]);
    let status = ledger.batch(batch.id).await.unwrap().expect("known");
    assert_eq!(status.counts, Counts { queued: 5, ..Counts::default() });
    assert_eq!((status.pool.as_str(), status.finished_at), ("gpu", None));
    let pools = ledger.pools().await.unwrap();
    assert_eq!(pools.iter().map(|pool| pool.queued).collect::<Vec<_>>(), [2, 3]);
}

#[tokio::test]
async fn refuses_what_it_cannot_keep() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    for pool in ["tpu", "no\0pool"] {
        let error = ledger.begin_batch(NewBatch { pool: pool.into(), ..gpu() }).await.expect_err(pool);
        assert!(matches!(error, LedgerError::UnknownPool { .. }), "{error}");
    }
    let mut writer = ledger.begin_batch(gpu()).await.unwrap();
    let elsewhere = SegmentationRequest { pool: Some("tpu".into()), ..request(1) };
    assert!(matches!(writer.push(1, &elsewhere).await, Err(LedgerError::UnknownPool { .. })));

    let mut writer = ledger.begin_batch(gpu()).await.unwrap();
    let with_nul = SegmentationRequest { id: Some("a\0b".into()), ..request(1) };
    assert!(matches!(writer.push(7, &with_nul).await, Err(LedgerError::Unstorable { line: 7, .. })));

    let mut writer = ledger.begin_batch(gpu()).await.unwrap();
    writer.push(1, &request(1)).await.unwrap();
    writer.push(1, &request(2)).await.unwrap();
    let error = writer.commit().await.expect_err("a line twice");
    assert!(!error.is_transient(), "{error}");
    assert_eq!(fixture.count("SELECT count(*) FROM batches").await, 0);
}

#[tokio::test]
async fn gives_back_every_character_as_it_came() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let texts = [r"\N", r"\.", r"a\tb\", r#""quoted" 'twice', {json: [\"]}"#, "ü 😀 \u{202e}", "%2F&<>", " "];
    let line = |number: usize| u64::try_from(number).unwrap() + 1;
    let sent: Vec<SegmentationRequest> = texts
        .iter()
        .map(|text| {
            let key: String = text.chars().filter(|c| !c.is_control()).collect();
            let image = request::S3Uri::new("scans", &key).unwrap();
            let points = "0.1,2.0000000001,1;12345678.9,1e-7,0".parse().unwrap();
            let task = Task::Segment(vec![Object { id: None, points }]);
            SegmentationRequest { image, task, id: Some((*text).into()), ..request(1) }
        })
        .collect();
    let mut writer = ledger.begin_batch(NewBatch { name: Some("a\\b\t\"c\"\0".into()), ..gpu() }).await.unwrap();
    for (number, request) in sent.iter().enumerate() {
        writer.push(line(number), request).await.unwrap();
    }
    let nameless = SegmentationRequest { id: None, ..request(1) };
    writer.push(line(sent.len()), &nameless).await.unwrap();
    let batch = writer.commit().await.unwrap();

    let jobs = ledger.jobs(batch.id, 0, 100).await.unwrap();
    assert_eq!(jobs.len(), sent.len() + 1);
    for (request, job) in sent.iter().chain([&nameless]).zip(&jobs) {
        assert_eq!(&job.request, request);
    }
    let claimed = fixture.claim().await;
    assert_eq!(claimed.request, sent[0]);
    assert_eq!(ledger.batch(batch.id).await.unwrap().expect("known").name.as_deref(), Some("a\\b\t\"c\""));
}

#[tokio::test]
async fn pages_through_a_batch_by_line() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let mut writer = ledger.begin_batch(gpu()).await.unwrap();
    // Blank lines leave gaps, and nothing says that the lines come in order.
    let lines: Vec<u64> = (1..=25).map(|number| number * 3).collect();
    for &line in lines.iter().rev() {
        writer.push(line, &request(line)).await.unwrap();
    }
    let batch = writer.commit().await.unwrap();
    fixture.submit(5).await;

    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = ledger.jobs(batch.id, after, 10).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 10 && page.iter().all(|job| job.batch_id == batch.id));
        after = last.line;
        seen.extend(page.iter().map(|job| job.line));
    }
    assert_eq!(seen, lines);
    assert_eq!(ledger.jobs(batch.id, u64::MAX, 10).await.unwrap(), []);
    assert_eq!(ledger.job(batch.id).await.unwrap(), None);
}

async fn submit_as(fixture: &Fixture, name: Option<&str>, key: Option<&str>, lines: u64) -> Result<SubmittedBatch, LedgerError> {
    let batch = NewBatch { name: name.map(Into::into), idempotency_key: key.map(Into::into), ..gpu() };
    let mut writer = fixture.ledger.begin_batch(batch).await?;
    for line in 1..=lines {
        writer.push(line, &request(line)).await?;
    }
    writer.commit().await
}

#[tokio::test]
async fn the_same_submission_is_the_same_batch() {
    let fixture = Fixture::start().await;
    let first = submit_as(&fixture, Some("night"), Some("k"), 3).await.unwrap();
    assert!(first.is_new);
    let again = |submitted: SubmittedBatch| assert_eq!((submitted.id, submitted.jobs, submitted.is_new), (first.id, 3, false));
    again(submit_as(&fixture, None, Some("k"), 3).await.unwrap());
    again(submit_as(&fixture, Some("night"), None, 3).await.unwrap());
    again(submit_as(&fixture, Some("night"), Some("other key"), 3).await.unwrap());

    let refused = submit_as(&fixture, Some("day"), Some("k"), 4).await.expect_err("another content under the same key");
    assert!(matches!(refused, LedgerError::KeyOfAnotherBatch { batch } if batch == first.id), "{refused}");
    assert!(submit_as(&fixture, Some("night"), None, 4).await.unwrap().is_new, "the same name, another content");
    assert!(submit_as(&fixture, None, None, 3).await.unwrap().is_new, "nothing says that it is the same");
    assert_eq!(fixture.count("SELECT count(*) FROM batches").await, 3);
    assert_eq!(fixture.count("SELECT count(*) FROM jobs").await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_submissions_at_the_same_moment_one_is_new() {
    let fixture = Fixture::start().await;
    let (a, b, c) = tokio::join!(
        submit_as(&fixture, None, Some("k"), 40),
        submit_as(&fixture, None, Some("k"), 40),
        submit_as(&fixture, None, Some("k"), 40)
    );
    let submitted = [a.unwrap(), b.unwrap(), c.unwrap()];
    assert_eq!(submitted.iter().filter(|batch| batch.is_new).count(), 1, "{submitted:?}");
    assert!(submitted.iter().all(|batch| batch.id == submitted[0].id), "{submitted:?}");
    assert_eq!(fixture.count("SELECT count(*) FROM jobs").await, 40);
}

#[tokio::test]
async fn a_batch_keeps_the_trace_of_its_first_submission_and_hands_it_to_whoever_claims() {
    let fixture = Fixture::start().await;
    let submit = async |trace: char, line: u64| {
        let traceparent = Some(traceparent(trace));
        let batch = NewBatch { idempotency_key: Some("k".into()), traceparent, ..gpu() };
        let mut writer = fixture.ledger.begin_batch(batch).await.unwrap();
        writer.push(line, &request(line)).await.unwrap();
        writer.commit().await
    };
    assert!(submit('1', 1).await.unwrap().is_new);
    assert!(!submit('2', 1).await.unwrap().is_new);
    assert_eq!(fixture.claim().await.traceparent, Some(traceparent('1')));

    fixture.submit(1).await;
    assert_eq!(fixture.claim().await.traceparent, None, "of a batch that came with none");
}

fn traceparent(trace: char) -> String {
    let digits = |count| trace.to_string().repeat(count);
    format!("00-{}-{}-01", digits(32), digits(16))
}

#[tokio::test]
async fn refuses_what_is_no_traceparent() {
    let fixture = Fixture::start().await;
    let valid = traceparent('a');
    let zeros = |count| "0".repeat(count);
    for wrong in [
        "",
        &valid[1..],
        &valid.to_uppercase(),
        &valid.replacen("00", "01", 1),
        &valid.replace(&"a".repeat(32), &zeros(32)),
        &valid.replace(&format!("-{}-", "a".repeat(16)), &format!("-{}-", zeros(16))),
        &format!("{valid}-"),
    ] {
        let batch = NewBatch { traceparent: Some(wrong.into()), ..gpu() };
        assert!(fixture.ledger.begin_batch(batch).await.is_err(), "{wrong:?}");
    }
    let batch = NewBatch { traceparent: Some(valid), ..gpu() };
    assert!(fixture.ledger.begin_batch(batch).await.is_ok());
}
