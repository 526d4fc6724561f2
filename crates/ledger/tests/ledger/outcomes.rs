//! How attempts and jobs end.

use crate::fixture::{Fixture, LONG, result};
use ledger::{Counts, ErrorClass, Finalised, JobFailure, JobResult, JobState, MAX_ATTEMPTS, Score};
use request::Method;

fn failure(class: ErrorClass) -> JobFailure {
    JobFailure { class, message: "the store answered 503\0".into() }
}

#[tokio::test]
async fn accepts_a_result_once() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let batch = fixture.submit(1).await;
    let job = fixture.claim().await;
    let result = result(&job);
    // Said twice, as a worker does whose first answer was lost.
    let (one, other) = tokio::join!(ledger.finalise(&job.lease, &result), ledger.finalise(&job.lease, &result));
    assert_eq!([one.unwrap(), other.unwrap()], [Finalised::Accepted; 2]);
    assert_eq!(fixture.count("SELECT count(*) FROM results").await, 1);
    assert_eq!(ledger.fail(&job.lease, &failure(ErrorClass::Permanent)).await.unwrap(), Finalised::LeaseLost);
    assert_eq!(ledger.release(&job.lease).await.unwrap(), Finalised::LeaseLost);
    assert!(!ledger.heartbeat(&job.lease, LONG).await.unwrap());

    let status = ledger.job(job.lease.job_id).await.unwrap().expect("known");
    assert_eq!((status.state, status.result, status.error), (JobState::Succeeded, Some(result), None));
    assert!(status.created_at <= status.started_at.unwrap() && status.started_at <= status.finished_at);
    assert_eq!(fixture.outcomes(job.lease.job_id).await, ["succeeded"]);
    assert_eq!(fixture.count("SELECT count(*) FROM leases").await, 0);
    let batch = ledger.batch(batch.id).await.unwrap().expect("known");
    assert_eq!(batch.finished_at, status.finished_at);
    assert_eq!(batch.counts, Counts { succeeded: 1, ..Counts::default() });
    let drift = batch.created_at.duration_until(jiff::Timestamp::now()).as_secs();
    assert!((0..60).contains(&drift), "{} is not now", batch.created_at);
}

fn scores() -> Vec<Score> {
    let scored = Score {
        setting: "3/2".parse().unwrap(),
        repeat: 1,
        method: Method::SamPoints,
        dice: Some(0.1 + 0.2),
        iou: Some(1.0 / 3.0),
        best_step: Some(7),
        seconds: Some(1.25),
        iou_with_initial: Some(0.5),
        agreement: Some(1.0),
        confidence: Some(0.0),
        published_dice: None,
        published_iou: None,
        skipped: None,
    };
    let published =
        Score { method: Method::Finetuned, published_dice: Some(0.75), published_iou: Some(f64::MIN_POSITIVE), ..scored.clone() };
    let skipped = Score {
        repeat: 2,
        dice: None,
        iou: None,
        best_step: None,
        seconds: None,
        iou_with_initial: None,
        agreement: None,
        confidence: None,
        skipped: Some("2 foreground tokens,\n3 \"points\" wanted".into()),
        ..scored.clone()
    };
    vec![scored, published, skipped]
}

#[tokio::test]
async fn keeps_an_evaluations_rows_with_its_result_and_pages_through_them() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let batch = fixture.submit(4).await.id;
    assert_eq!(ledger.scores(batch, 0, 10).await.unwrap(), []);
    let mut with_scores = Vec::new();
    for line in 1..=4 {
        let job = fixture.claim().await;
        // One of them made a mask.
        let result = match line {
            3 => result(&job),
            _ => JobResult { artifacts: Vec::new(), masks: Vec::new(), scores: scores(), seconds: 1.0 },
        };
        // As the method orders them in the tables, whatever their order was.
        let shuffled = JobResult { scores: result.scores.iter().rev().cloned().collect(), ..result.clone() };
        assert_eq!(ledger.finalise(&job.lease, &shuffled).await.unwrap(), Finalised::Accepted);
        assert_eq!(ledger.job(job.lease.job_id).await.unwrap().unwrap().result, Some(result));
        if line != 3 {
            with_scores.push((line, job));
        }
    }
    let [first, last] = [ledger.scores(batch, 0, 2).await.unwrap(), ledger.scores(batch, 2, 2).await.unwrap()];
    assert_eq!((first.len(), last.len()), (2, 1));
    for (found, (line, job)) in first.iter().chain(&last).zip(&with_scores) {
        assert_eq!((found.line, found.id, &found.request), (*line, job.lease.job_id, &job.request));
        assert_eq!(found.scores, scores());
    }
    assert_eq!(fixture.count("SELECT count(*) FROM scores").await, 9);
    let listed = ledger.jobs(batch, 0, 10).await.unwrap();
    assert!(listed.iter().all(|job| job.result.as_ref().unwrap().scores.is_empty()));
}

#[tokio::test]
async fn a_result_that_cannot_be_kept_changes_nothing() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    fixture.submit(1).await;
    let job = fixture.claim().await;
    let good = result(&job);
    let twice = JobResult { masks: vec![good.masks[0].clone(); 2], ..good.clone() };
    let no_number = JobResult { scores: vec![Score { dice: Some(f64::NAN), ..scores()[0].clone() }], ..good.clone() };
    for bad in [twice, no_number] {
        let error = ledger.finalise(&job.lease, &bad).await.expect_err("must be refused");
        assert!(!error.is_transient(), "{error}");
        assert_eq!(fixture.state(job.lease.job_id).await, JobState::Running);
    }
    assert_eq!(fixture.count("SELECT (SELECT count(*) FROM masks) + (SELECT count(*) FROM results)").await, 0);
    assert_eq!(ledger.finalise(&job.lease, &good).await.unwrap(), Finalised::Accepted);
}

#[tokio::test]
async fn a_transient_failure_backs_off_longer_each_time_and_ends_failed() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    fixture.submit(1).await;
    for attempt in 1..=MAX_ATTEMPTS {
        let job = fixture.claim().await;
        assert_eq!((job.attempt, job.lease.epoch), (attempt, i64::from(attempt)));
        assert_eq!(ledger.fail(&job.lease, &failure(ErrorClass::Transient)).await.unwrap(), Finalised::Accepted);
        let status = ledger.job(job.lease.job_id).await.unwrap().expect("known");
        if attempt == MAX_ATTEMPTS {
            assert_eq!(status.state, JobState::Failed);
            let expected = JobFailure { class: ErrorClass::Transient, message: "the store answered 503".into() };
            assert_eq!(status.error, Some(expected));
            assert!(status.finished_at.is_some());
            break;
        }
        assert_eq!((status.state, status.error), (JobState::Queued, None));
        assert!(fixture.nothing_is_due().await && ledger.due_by_pool(10_000).await.unwrap().is_empty());
        let back_off: f64 = sqlx::query_scalar(
            "SELECT extract(epoch FROM run_at - attempts.finished_at)::float8 FROM jobs JOIN attempts USING (epoch)",
        )
        .fetch_one(&fixture.sql)
        .await
        .unwrap();
        let longest = [5.0, 20.0, 80.0, 300.0][usize::try_from(attempt).unwrap() - 1];
        assert!((longest / 2.0..=longest).contains(&back_off), "attempt {attempt} waits {back_off} s");
        fixture.end_back_offs().await;
    }
    assert!(fixture.nothing_is_due().await);
    assert_eq!(fixture.count("SELECT count(*) FROM attempts WHERE outcome = 'transient'").await, i64::from(MAX_ATTEMPTS));
}

#[tokio::test]
async fn a_permanent_failure_ends_the_job_at_once() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    fixture.submit(1).await;
    let job = fixture.claim().await;
    assert_eq!(ledger.fail(&job.lease, &failure(ErrorClass::Permanent)).await.unwrap(), Finalised::Accepted);
    let status = ledger.job(job.lease.job_id).await.unwrap().expect("known");
    assert_eq!((status.state, status.attempt), (JobState::Failed, 1));
    assert_eq!(status.error.map(|error| error.class), Some(ErrorClass::Permanent));
    assert_eq!(fixture.outcomes(job.lease.job_id).await, ["permanent"]);
    assert!(fixture.nothing_is_due().await);
    assert_eq!(ledger.finalise(&job.lease, &result(&job)).await.unwrap(), Finalised::LeaseLost);
}

#[tokio::test]
async fn a_released_job_is_as_good_as_new_and_owes_a_token() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    fixture.submit(1).await;
    ledger.take_outbox(10).await.unwrap().expect("the batch's row").delete().await.unwrap();
    for round in 1..=i64::from(MAX_ATTEMPTS) + 2 {
        let job = fixture.claim().await;
        assert_eq!((job.attempt, job.lease.epoch), (1, round), "no attempt is charged, and the epoch grows");
        // A shutdown is the same, by whichever word.
        let answer = match round {
            1 => ledger.fail(&job.lease, &failure(ErrorClass::Shutdown)).await,
            _ => ledger.release(&job.lease).await,
        };
        assert_eq!(answer.unwrap(), Finalised::Accepted);
        let owed = ledger.take_outbox(10).await.unwrap().expect("a row");
        assert_eq!(owed.tokens(), [("gpu".to_owned(), 1)]);
        owed.delete().await.unwrap();
    }
    let job = fixture.claim().await;
    assert_eq!(ledger.finalise(&job.lease, &result(&job)).await.unwrap(), Finalised::Accepted);
}

#[tokio::test]
async fn a_cancelled_job_never_succeeds() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let batch = fixture.submit(4).await;
    let other = fixture.submit(1).await;
    let done = fixture.claim().await;
    assert_eq!(ledger.finalise(&done.lease, &result(&done)).await.unwrap(), Finalised::Accepted);
    // The two batches are served in turns.
    let [of_other, running] = [fixture.claim().await, fixture.claim().await];
    assert_eq!((of_other.lease.batch_id, running.lease.batch_id), (other.id, batch.id));

    assert_eq!(ledger.cancel_batch(batch.id).await.unwrap(), 3);
    assert_eq!(ledger.cancel_batch(batch.id).await.unwrap(), 0);
    assert!(!ledger.heartbeat(&running.lease, LONG).await.unwrap());
    assert_eq!(ledger.finalise(&running.lease, &result(&running)).await.unwrap(), Finalised::LeaseLost);
    assert_eq!(ledger.fail(&running.lease, &failure(ErrorClass::Transient)).await.unwrap(), Finalised::LeaseLost);
    assert!(fixture.nothing_is_due().await);
    assert_eq!(fixture.outcomes(running.lease.job_id).await, ["cancelled"]);
    let status = ledger.batch(batch.id).await.unwrap().expect("known");
    assert_eq!(status.counts, Counts { succeeded: 1, cancelled: 3, ..Counts::default() });
    assert!(status.finished_at.is_some());
    assert_eq!(fixture.state(of_other.lease.job_id).await, JobState::Running);
}
