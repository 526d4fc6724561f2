//! Whose batches they are, what their requests may read, and how many of their jobs may wait.

use ledger::{DEFAULT_PROJECT, ErrorClass, Finalised, JobFailure, LedgerError, NewBatch, ProjectChange, SubmittedBatch};
use request::{AllowList, Allowed};

use crate::fixture::{Fixture, gpu, request};

fn list(entries: &[&str]) -> AllowList {
    AllowList::new(entries.iter().map(|entry| entry.parse().unwrap()).collect())
}

async fn submit(fixture: &Fixture, batch: NewBatch, jobs: u64) -> Result<SubmittedBatch, LedgerError> {
    let mut writer = fixture.ledger.begin_batch(batch).await?;
    for line in 1..=jobs {
        writer.push(line, &request(line)).await?;
    }
    writer.commit().await
}

fn of(project: &str, key: &str) -> NewBatch {
    NewBatch { project: project.into(), name: Some("night".into()), idempotency_key: Some(key.into()), ..gpu() }
}

#[tokio::test]
async fn a_project_is_made_once_and_changed_by_name() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let reads = list(&["s3://scans/study 1/ü/", "s3://open"]);
    assert!(ledger.create_project("study-1", &reads, 100).await.unwrap());
    assert!(!ledger.create_project("study-1", &list(&["s3://*"]), 7).await.unwrap(), "there is one");
    let change = ProjectChange { max_waiting_jobs: Some(50), reads: None };
    ledger.change_project("study-1", &change).await.unwrap();

    let projects = ledger.projects().await.unwrap();
    assert_eq!(projects.iter().map(|project| project.name.as_str()).collect::<Vec<_>>(), [DEFAULT_PROJECT, "study-1"]);
    assert_eq!(projects[0].reads, AllowList::new(vec![Allowed::Everything]));
    assert_eq!((&projects[1].reads, projects[1].max_waiting_jobs), (&reads, 50));

    let unknown = ledger.change_project("nobody's", &change).await.expect_err("there is none");
    assert!(matches!(unknown, LedgerError::UnknownProject { .. }), "{unknown}");
    for name in ["", "Study", "1", "a/b", "a b", "a'; DROP TABLE jobs; --", &"x".repeat(41)] {
        let error = ledger.create_project(name, &reads, 1).await.expect_err(name);
        assert!(matches!(error, LedgerError::ProjectName { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_claim_says_whose_the_job_is_and_what_the_project_may_read_by_now() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    ledger.create_project("study-1", &list(&["s3://scans"]), 100).await.unwrap();
    submit(&fixture, of("study-1", "k"), 1).await.unwrap();
    let narrowed = ProjectChange { reads: Some(list(&["s3://elsewhere"])), max_waiting_jobs: None };
    ledger.change_project("study-1", &narrowed).await.unwrap();
    let job = fixture.claim().await;
    assert_eq!((job.project.as_str(), job.reads), ("study-1", list(&["s3://elsewhere"])));
}

#[tokio::test]
async fn names_and_keys_of_a_project_are_its_own() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    for name in ["one", "two"] {
        ledger.create_project(name, &list(&["s3://scans"]), 100).await.unwrap();
    }
    let first = submit(&fixture, of("one", "k"), 2).await.unwrap();
    let second = submit(&fixture, of("two", "k"), 2).await.unwrap();
    assert!(first.is_new && second.is_new, "the same name, key and content, but another project's");
    assert_eq!(submit(&fixture, of("two", "k"), 2).await.unwrap().id, second.id);
    // Nor does another content under the same key tell that somebody has used it.
    assert!(submit(&fixture, of(DEFAULT_PROJECT, "k"), 3).await.unwrap().is_new);

    let job = ledger.jobs(first.id, 0, 1).await.unwrap().remove(0).id;
    assert!(ledger.owns_batch("one", first.id).await.unwrap() && ledger.owns_job("one", job).await.unwrap());
    assert!(!ledger.owns_batch("two", first.id).await.unwrap() && !ledger.owns_job("two", job).await.unwrap());
    assert!(!ledger.owns_batch("one", job).await.unwrap() && !ledger.owns_job("one", first.id).await.unwrap());
}

#[tokio::test]
async fn no_more_of_a_project_wait_than_may() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    ledger.create_project("one", &list(&["s3://scans"]), 5).await.unwrap();
    let batch = |key: &str| NewBatch { name: None, ..of("one", key) };
    submit(&fixture, batch("a"), 3).await.unwrap();
    // Others have room of their own.
    submit(&fixture, gpu(), 20).await.unwrap();

    let refused = submit(&fixture, batch("b"), 3).await.expect_err("6 would wait");
    assert!(matches!(refused, LedgerError::TooManyWaiting { room: 2, limit: 5 }), "{refused}");
    assert!(refused.to_string().contains("only 2 more jobs of the project may wait, 5 in all"), "{refused}");
    assert_eq!(fixture.count("SELECT count(*) FROM jobs").await, 23, "nothing of it was kept");
    assert!(!submit(&fixture, batch("a"), 3).await.unwrap().is_new, "said again, it is the batch that is there");

    submit(&fixture, batch("c"), 2).await.unwrap();
    assert!(!submit(&fixture, batch("c"), 2).await.unwrap().is_new, "also where nothing more may wait");
    // Two of them begin with a worker, and make room.
    for _ in 0..2 {
        while fixture.claim().await.project != "one" {}
    }
    submit(&fixture, batch("d"), 2).await.unwrap();
}

#[tokio::test]
async fn what_is_tried_again_has_no_more_room_than_what_is_new() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    ledger.create_project("one", &list(&["s3://scans"]), 3).await.unwrap();
    let batch = |key: &str| NewBatch { name: None, ..of("one", key) };
    let failed = submit(&fixture, batch("a"), 2).await.unwrap();
    for _ in 0..2 {
        let job = fixture.claim().await;
        let failure = JobFailure { class: ErrorClass::Permanent, message: "a test's".into() };
        assert_eq!(ledger.fail(&job.lease, &failure).await.unwrap(), Finalised::Accepted);
    }
    submit(&fixture, batch("b"), 2).await.unwrap();
    let refused = ledger.retry_batch(failed.id, false).await.expect_err("4 would wait");
    assert!(matches!(refused, LedgerError::TooManyWaiting { room: 1, limit: 3 }), "{refused}");
    let jobs = ledger.jobs(failed.id, 0, 2).await.unwrap();
    assert!(ledger.retry_job(jobs[0].id).await.unwrap(), "there is room for one");
    let refused = ledger.retry_job(jobs[1].id).await.expect_err("and for no other");
    assert!(matches!(refused, LedgerError::TooManyWaiting { room: 0, limit: 3 }), "{refused}");
    assert_eq!(fixture.count("SELECT count(*) FROM jobs WHERE state = 'queued'").await, 3);
    // Nor does a name or a key that was used make room for another content.
    let larger = submit(&fixture, batch("a"), 3).await.expect_err("no room");
    assert!(matches!(larger, LedgerError::TooManyWaiting { .. }), "{larger}");
    assert!(!submit(&fixture, batch("a"), 2).await.unwrap().is_new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_batches_that_come_together_only_those_are_taken_that_there_is_room_for() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    ledger.create_project("one", &list(&["s3://scans"]), 10).await.unwrap();
    // All of them have begun, and have seen the room, before any is committed.
    let mut writers = Vec::new();
    for _ in 0..6 {
        let batch = NewBatch { project: "one".into(), ..gpu() };
        let mut writer = ledger.begin_batch(batch).await.unwrap();
        for line in 1..=4 {
            writer.push(line, &request(line)).await.unwrap();
        }
        writers.push(writer);
    }
    let commits: Vec<_> = writers.into_iter().map(|writer| tokio::spawn(writer.commit())).collect();
    let mut taken = 0;
    for commit in commits {
        match commit.await.unwrap() {
            Ok(_) => taken += 1,
            Err(error) => assert!(matches!(error, LedgerError::TooManyWaiting { room: 2, .. }), "{error}"),
        }
    }
    assert_eq!(taken, 2);
}
