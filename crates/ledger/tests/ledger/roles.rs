//! A worker's login may do a worker's work, and nothing else; one that is shut out has no last word.

use std::borrow::Cow;

use ledger::{ErrorClass, Finalised, JobFailure, JobState, Ledger, LedgerError, NewBatch};
use sqlx::{AssertSqlSafe, PgPool};

use crate::fixture::{Fixture, LONG, gpu, request, result};

const PASSWORD: &str = "of-a-worker";

/// The ledger as the worker's login `gpu-a` has it, and plain SQL by the same login.
async fn worker(fixture: &Fixture) -> (Ledger, PgPool) {
    fixture.execute("CREATE ROLE workers NOLOGIN").await;
    fixture.execute("CREATE ROLE \"gpu-a\" LOGIN PASSWORD 'of-a-worker' IN ROLE workers").await;
    // As databases of old are.
    fixture.execute("GRANT CREATE ON SCHEMA public TO PUBLIC").await;
    fixture.ledger.grant_worker("workers").await.unwrap();
    let url = format!("postgres://gpu-a:{PASSWORD}@{}/dotmask?sslmode=disable", fixture.postgres.address());
    (Ledger::connect(&url, 4).await.unwrap(), PgPool::connect(&url).await.unwrap())
}

#[tokio::test]
async fn a_workers_login_does_all_of_a_workers_work() {
    let fixture = Fixture::start().await;
    let (ledger, _) = worker(&fixture).await;
    let mut batch = fixture.ledger.begin_batch(NewBatch { reuse: true, ..gpu() }).await.unwrap();
    for line in 1..=3 {
        batch.push(line, &request(line)).await.unwrap();
    }
    batch.commit().await.unwrap();

    ledger.bind_checkpoint("gpu", &"ab".repeat(32)).await.unwrap();
    let mut news = ledger.cancellations().await.unwrap();
    let claim = async || ledger.claim("gpu", "w", LONG).await.unwrap().expect("a job is due");
    let job = claim().await;
    ledger.begin(&job.lease).await.unwrap();
    assert!(ledger.heartbeat(&job.lease, LONG).await.unwrap());
    assert_eq!(ledger.finalise(&job.lease, &result(&job)).await.unwrap(), Finalised::Accepted);
    ledger.lend(&job.lease, &[7; 32]).await.unwrap();
    ledger.lend(&job.lease, &[7; 32]).await.unwrap();
    assert_eq!(ledger.reusable(&[7; 32]).await.unwrap().expect("lent").job_id, job.lease.job_id);

    let job = claim().await;
    assert_eq!(ledger.release(&job.lease).await.unwrap(), Finalised::Accepted);
    for class in [ErrorClass::Permanent, ErrorClass::Transient] {
        let job = claim().await;
        let failure = JobFailure { class, message: "a test's".into() };
        assert_eq!(ledger.fail(&job.lease, &failure).await.unwrap(), Finalised::Accepted);
    }
    fixture.end_back_offs().await;
    let job = claim().await;
    assert!(fixture.ledger.cancel_job(job.lease.job_id).await.unwrap());
    assert_eq!(news.next().await.unwrap(), job.lease.job_id);
}

#[tokio::test]
async fn a_workers_login_does_nothing_else() {
    let fixture = Fixture::start().await;
    fixture.submit(1).await;
    let (ledger, sql) = worker(&fixture).await;
    for statement in [
        "SELECT * FROM tokens",
        "SELECT max_waiting_jobs FROM projects",
        "UPDATE projects SET reads = '{s3://*}'",
        "INSERT INTO projects (name, reads) VALUES ('x', '{}')",
        "INSERT INTO batches (id, pool) VALUES (gen_random_uuid(), 'gpu')",
        "UPDATE batches SET project = 'default'",
        "INSERT INTO jobs SELECT * FROM jobs",
        "UPDATE jobs SET request = '{}'",
        "UPDATE jobs SET batch_id = id",
        "UPDATE jobs SET max_attempts = 1000",
        "DELETE FROM jobs",
        "UPDATE results SET seconds = 0",
        "DELETE FROM results",
        "UPDATE artifacts SET uri = 's3://x/y'",
        "UPDATE attempts SET worker = 'somebody else'",
        "UPDATE attempts SET login = 'somebody-else'",
        "INSERT INTO attempts (job_id, epoch, attempt, worker, login) SELECT id, 1, 1, 'w', 'somebody-else' FROM jobs",
        "TRUNCATE attempts",
        "DELETE FROM outbox",
        "DROP TABLE jobs",
        "DROP TRIGGER transitions ON jobs",
        "CREATE TABLE mine (id int)",
    ] {
        let refused = sqlx::query(AssertSqlSafe(statement)).execute(&sql).await.expect_err(statement);
        let code = refused.as_database_error().and_then(|error| error.code().map(Cow::into_owned));
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {refused}");
    }
    let error = ledger.authenticate("dotmask_x").await.expect_err("it sees no tokens");
    assert!(error.to_string().contains("permission denied"), "{error}");
    // Of what it may change, the database refuses what is no step of a job's life.
    let refused = sqlx::query("UPDATE jobs SET state = 'succeeded'").execute(&sql).await.expect_err("it was never claimed");
    assert!(refused.to_string().contains("cannot become succeeded"), "{refused}");
}

#[tokio::test]
async fn a_login_that_was_shut_out_has_no_last_word_and_its_job_is_done_by_others() {
    let fixture = Fixture::start().await;
    let batch = fixture.submit(1).await;
    let (ledger, sql) = worker(&fixture).await;
    let job = ledger.claim("gpu", "stolen", LONG).await.unwrap().expect("a job is due");
    fixture.execute("ALTER ROLE \"gpu-a\" NOLOGIN").await;
    fixture.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gpu-a'").await;

    for _ in 0..3 {
        let refused = ledger.finalise(&job.lease, &result(&job)).await.expect_err("it is shut out");
        assert!(!refused.to_string().contains(PASSWORD), "{refused}");
        sqlx::query("UPDATE jobs SET state = 'succeeded'").execute(&sql).await.expect_err("so is its SQL");
    }
    assert_eq!(fixture.count("SELECT count(*) FROM results").await, 0);
    fixture.expire_leases().await;
    assert_eq!(fixture.ledger.reap().await.unwrap().len(), 1);
    fixture.end_back_offs().await;
    let job = fixture.claim().await;
    assert_eq!(fixture.ledger.finalise(&job.lease, &result(&job)).await.unwrap(), Finalised::Accepted);
    let done = fixture.ledger.jobs(batch.id, 0, 1).await.unwrap().remove(0);
    assert_eq!((done.state, done.epoch), (JobState::Succeeded, 2));
    let logins = "SELECT count(*) FROM attempts WHERE epoch = 1 AND login = 'gpu-a' OR epoch = 2 AND login = 'dotmask'";
    assert_eq!(fixture.count(logins).await, 2, "who claimed it is known by the login, whatever the worker calls itself");
}

#[tokio::test]
async fn rights_are_given_to_a_role_that_is_there_whatever_its_name() {
    let fixture = Fixture::start().await;
    let error = fixture.ledger.grant_worker("nobody").await.expect_err("no such role");
    assert!(matches!(error, LedgerError::UnknownRole { .. }), "{error}");
    fixture.execute("CREATE ROLE \"a\"\"; DROP TABLE jobs; --\"").await;
    fixture.ledger.grant_worker("a\"; DROP TABLE jobs; --").await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM jobs").await, 0, "the table is there");
}
