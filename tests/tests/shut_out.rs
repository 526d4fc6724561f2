//! A worker whose login was stolen is shut out in the midst of its work: it stores nothing in the ledger, and its job is done by another.

use ledger::JobState;
use tests::{QuickWorker, System, check_every_job_has_one_result, check_quick_masks, line, png_of_blobs};

const SHORT_LEASE: [&str; 4] = ["--lease-seconds", "4", "--heartbeat-seconds", "1"];
const ROLES: &str = "
    CREATE ROLE workers NOLOGIN;
    CREATE ROLE stolen LOGIN PASSWORD 'stolen-secret' IN ROLE workers;
    CREATE ROLE good LOGIN PASSWORD 'good-secret' IN ROLE workers";
const SHUT_OUT: &str = "
    ALTER ROLE stolen NOLOGIN;
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'stolen'";

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_login_was_taken_back_records_no_result() -> anyhow::Result<()> {
    let system = System::start().await?;
    system.execute(ROLES).await?;
    system.ledger.grant_worker("workers").await?;
    let _dispatcher = system.start_dispatcher().await?;
    let environment = |login: &str| {
        let url = format!("postgres://{login}:{login}-secret@{}/dotmask?sslmode=disable", system.stack.postgres.address());
        let others = system.environment().into_iter().filter(|(name, _)| name != "DATABASE_URL");
        others.chain([("DATABASE_URL".to_owned(), url)]).collect::<Vec<_>>()
    };
    system.put_image("a.png", &png_of_blobs(48, 48, 1))?;
    let stolen = QuickWorker::start_in(&system, &environment("stolen"), &SHORT_LEASE)?;
    let batch = system.submit(&[line("a.png", 10_000)]).await?;
    system.until("a step was done", async || Ok(stolen.steps().await > 0)).await?;

    system.execute(SHUT_OUT).await?;
    let good = QuickWorker::start_in(&system, &environment("good"), &SHORT_LEASE)?;
    system.wait_until_done(batch).await?;
    check_every_job_has_one_result(&system, batch).await?;
    check_quick_masks(&system, batch).await?;
    let job = system.jobs(batch).await?.remove(0);
    assert_eq!((job.state, job.epoch), (JobState::Succeeded, 2), "{}", system.logs());
    let outcomes: Vec<String> = system.value("SELECT array_agg(outcome::text ORDER BY epoch) FROM attempts").await?;
    assert_eq!(outcomes, ["lost", "succeeded"]);
    assert!(!stolen.log().contains("stolen-secret"), "{}", stolen.log());
    Ok(good.program.stop().await?)
}
