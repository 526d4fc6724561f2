//! The load test in short: what it measures is right, however fast it is.

use std::time::Duration;

use tests::{
    System,
    load::{Fleet, depth, drain, latencies, percentile, submit},
};

#[tokio::test]
async fn every_job_of_a_load_is_done_once_by_workers_whose_jobs_cost_nothing() -> anyhow::Result<()> {
    const JOBS: i64 = 3_000;
    let system = System::start().await?;
    let dispatcher = system.start_dispatcher().await?;
    let submitted = submit(&system, &dispatcher, JOBS.unsigned_abs()).await?;
    assert!(submitted.client_peak_bytes > 0 && submitted.server_peak_bytes > 0);
    assert!(depth(&system, submitted.batch).await?.database_bytes > 0);

    let fleet = Fleet { workers: 4, processes: 2, prefetch: 16, flags: vec!["--record-files".into()] };
    let drained = drain(&system, &dispatcher, &fleet, Duration::from_mins(5)).await?;
    assert_eq!(drained.jobs, JOBS);
    assert!(drained.seconds > 0.0);
    let status = system.ledger.batch(submitted.batch).await?.expect("the batch is there");
    assert_eq!(status.counts.succeeded, JOBS.unsigned_abs());
    let count = async |statement: &'static str| system.value::<i64>(statement).await;
    assert_eq!(count("SELECT count(*) FROM results JOIN jobs ON id = job_id AND jobs.epoch = results.epoch").await?, JOBS);
    assert_eq!(count("SELECT count(*) FROM masks").await?, JOBS);
    assert_eq!(count("SELECT count(*) FROM artifacts WHERE uri LIKE '%/' || job_id || '/%'").await?, 4 * JOBS);
    assert_eq!(count("SELECT count(*) FROM attempts WHERE outcome = 'succeeded' AND begun_at IS NOT NULL").await?, JOBS);
    assert_eq!(count("SELECT count(*) FROM attempts WHERE outcome IS DISTINCT FROM 'succeeded' AND worker <> 'load'").await?, 0);

    let idle = Fleet { workers: 1, processes: 1, prefetch: 2, flags: Vec::new() };
    let _worker = idle.start(&system)?;
    let times = latencies(&system, 5).await?;
    assert_eq!(times.len(), 5);
    assert!(percentile(&times, 0.5) > 0.0, "work begins after it was submitted: {times:?}");
    Ok(())
}
