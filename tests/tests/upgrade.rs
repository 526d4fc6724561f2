//! A rolling upgrade: programs of the schema before work on while the newest migration is applied, and beside this version's.

use std::time::Duration;

use ledger::JobState;
use tests::{Release, System, WorkerSettings, check_every_job_has_one_result, png_of_blobs};
use uuid::Uuid;

const JOBS: u32 = 6;
const SETTINGS: WorkerSettings = WorkerSettings { lease: Duration::from_secs(4), prefetch: 1 };

async fn submit(system: &System, batch: u32) -> anyhow::Result<Uuid> {
    let mut lines = Vec::new();
    for seed in 0..JOBS {
        let key = format!("{batch}-{seed}.png");
        system.put_image(&key, &png_of_blobs(100, 100, seed))?;
        lines.push(format!(
            r#"{{"image": "s3://scans/{key}", "points": [[24, 24, 1], [4, 4, 0]], "parameters": {{"steps": 6}}}}"#
        ));
    }
    system.submit(&lines).await
}

async fn applied_migrations(system: &System) -> anyhow::Result<Vec<i64>> {
    let sql = sqlx::PgPool::connect(&system.stack.postgres.url()).await?;
    Ok(sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version").fetch_all(&sql).await?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the programs of the version before, which scripts/test-upgrade builds"]
async fn programs_of_the_schema_before_work_on_while_and_after_the_newest_migration_is_applied() -> anyhow::Result<()> {
    let (this, previous) = (Release::this(), Release::in_folder(std::env::var("DOTMASK_PREVIOUS_PROGRAMS")?));
    let system = System::start_empty().await?;
    system.migrate(&previous)?;
    let before = applied_migrations(&system).await?;

    let old_dispatcher = system.start_dispatcher_of(&previous, system.dispatcher_address(), &[]).await?;
    let old_worker = system.start_worker_of(&previous, SETTINGS)?;
    let running = submit(&system, 1).await?;
    system.wait_for(running, |status| status.counts.succeeded >= 1 && status.counts.running >= 1).await?;

    // In the midst of a job.
    system.migrate(&this)?;
    let after = applied_migrations(&system).await?;
    assert_eq!(after.len(), before.len() + 1, "one schema apart: {before:?} and {after:?}");
    system.wait_until_done(running).await?;
    check_every_job_has_one_result(&system, running).await?;

    // The old ones alone on the new schema, and after a restart.
    old_worker.kill();
    old_dispatcher.stop().await?;
    let old_dispatcher = system.start_dispatcher_of(&previous, system.dispatcher_address(), &[]).await?;
    let old_worker = system.start_worker_of(&previous, SETTINGS)?;
    let alone = submit(&system, 2).await?;
    system.wait_until_done(alone).await?;
    check_every_job_has_one_result(&system, alone).await?;

    // Both side by side, on jobs that came by the old dispatcher.
    let [port] = servers::free_ports();
    let dispatcher = system.start_dispatcher_of(&this, &format!("127.0.0.1:{port}"), &[]).await?;
    let worker = system.start_worker(SETTINGS)?;
    let shared = submit(&system, 3).await?;
    system.wait_for(shared, |status| status.counts.succeeded >= 2).await?;
    // An old worker is lost, and a dispatcher of either version gives its job to the new one.
    old_worker.kill();
    old_dispatcher.stop().await?;
    system.wait_until_done(shared).await?;
    check_every_job_has_one_result(&system, shared).await?;

    // The upgrade is over.
    dispatcher.stop().await?;
    let _dispatcher = system.start_dispatcher().await?;
    let last = submit(&system, 4).await?;
    system.wait_until_done(last).await?;
    check_every_job_has_one_result(&system, last).await?;
    let states: Vec<JobState> = system.jobs(last).await?.iter().map(|job| job.state).collect();
    assert_eq!(states, [JobState::Succeeded; JOBS as usize]);
    Ok(worker.stop().await?)
}
