//! Every change of a job's state is one log line, with fields that can be asked for.

use ledger::{JobState, NewBatch};
use request::SegmentationRequest;
use serde_json::Value;
use tests::quick::OUT_OF_MEMORY;
use tests::{POOL, QuickWorker, System, line, log_lines, png_of_blobs, png_that_begins_with};
use uuid::Uuid;

/// The most a request may ask for: more than ten seconds of the quick worker's.
const LONG: u32 = 10_000;
const KEY: &str = "in/miller.png";
const FEW_TOKENS: [&str; 2] = ["--prefetch", "1"];

struct Logs<'a>(&'a System);

impl Logs<'_> {
    /// The lines with this message and all of these fields.
    fn find(&self, message: &str, fields: &[(&str, Value)]) -> Vec<Value> {
        let is_it = |line: &Value| line["message"] == message && fields.iter().all(|(name, value)| line[*name] == *value);
        log_lines(&self.0.logs()).into_iter().filter(is_it).collect()
    }

    /// Waits for it, and sees that it is said once and at the level info at least.
    async fn once(&self, message: &str, fields: &[(&str, Value)]) -> anyhow::Result<Value> {
        let what = format!("the log has {message:?} with {fields:?}");
        self.0.until(&what, async || Ok(!self.find(message, fields).is_empty())).await?;
        let mut found = self.find(message, fields);
        assert_eq!(found.len(), 1, "{message} {fields:?}: {found:#?}");
        assert!(["INFO", "WARN"].iter().any(|level| found[0]["level"] == *level), "{found:?}");
        Ok(found.remove(0))
    }
}

async fn start() -> anyhow::Result<System> {
    let mut system = System::start().await?;
    system.set("DOTMASK_LOG_FORMAT", "json");
    system.put_image(KEY, &png_of_blobs(48, 48, 1))?;
    Ok(system)
}

async fn command(system: &System, arguments: &[&str]) -> anyhow::Result<()> {
    let output = system.client(arguments).await?;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A batch of one job that runs until something is done about it.
async fn submit_long(system: &System) -> anyhow::Result<(Uuid, Uuid)> {
    let batch = system.submit(&[line(KEY, LONG)]).await?;
    Ok((batch, system.jobs(batch).await?[0].id))
}

async fn begun(system: &System, worker: &QuickWorker) -> anyhow::Result<()> {
    system.until("a step was done", async || Ok(worker.steps().await > 0)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_jobs_by_workers_and_users_is_a_line_each() -> anyhow::Result<()> {
    let system = start().await?;
    let logs = Logs(&system);
    let _dispatcher = system.start_dispatcher().await?;
    let worker = QuickWorker::start(&system, &FEW_TOKENS)?;

    system.put_image("in/large.png", &png_that_begins_with(OUT_OF_MEMORY, 2))?;
    let batch = system.submit(&[line(KEY, 3), line("in/missing.png", 3), line("in/large.png", 3)]).await?;
    let ids: Vec<Uuid> = system.jobs(batch).await?.iter().map(|job| job.id).collect();
    let [good, missing, large] = [0, 1, 2].map(|index| ("job.id", Value::from(ids[index].to_string())));
    let of_batch = ("batch.id", Value::from(batch.to_string()));
    let state = |state: &str| ("state", Value::from(state));
    let outcome = |outcome: &str| ("outcome", Value::from(outcome));
    let submitted = logs.once("batch submitted", &[of_batch.clone(), state("queued")]).await?;
    assert_eq!(submitted["batch.jobs"], 3);
    for job in [&good, &missing, &large] {
        logs.once("job claimed", &[job.clone(), of_batch.clone(), state("running"), ("epoch", 1.into())]).await?;
    }
    logs.once("job ended", &[good.clone(), state("succeeded"), outcome("succeeded")]).await?;
    let failed = logs.once("job ended", &[missing.clone(), state("failed"), outcome("failed")]).await?;
    assert_eq!((&failed["class"], &failed["cause"]), (&"permanent".into(), &"fetch".into()));
    logs.once(
        "job ended",
        &[large.clone(), state("queued"), outcome("failed"), ("class", "transient".into()), ("epoch", 1.into())],
    )
    .await?;

    command(&system, &["cancel", "--job", &ids[2].to_string()]).await?;
    logs.once("job cancelled", &[large, state("cancelled")]).await?;
    command(&system, &["retry", "--job", &ids[1].to_string()]).await?;
    logs.once("job queued again", &[missing.clone(), state("queued")]).await?;
    logs.once("job ended", &[missing.clone(), state("failed"), ("epoch", 2.into())]).await?;
    command(&system, &["retry", &batch.to_string()]).await?;
    logs.once("failed jobs of the batch queued again", &[of_batch, state("queued"), ("jobs", 1.into())]).await?;
    logs.once("job ended", &[missing, state("failed"), ("epoch", 3.into())]).await?;

    let (long_batch, _) = submit_long(&system).await?;
    let before = worker.steps().await;
    system.until("it is under way", async || Ok(worker.steps().await > before)).await?;
    command(&system, &["cancel", &long_batch.to_string()]).await?;
    let of_batch = ("batch.id", Value::from(long_batch.to_string()));
    logs.once("batch cancelled", &[of_batch.clone(), state("cancelled"), ("jobs", 1.into())]).await?;
    // Its worker says no state: the job was not its own any more.
    logs.once("job ended", &[of_batch, outcome("lease_lost"), ("state", Value::Null)]).await?;

    assert!(!system.logs().contains("miller"), "{}", system.logs());
    Ok(worker.program.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_jobs_by_the_end_of_their_workers_is_a_line_each() -> anyhow::Result<()> {
    let system = start().await?;
    let logs = Logs(&system);
    let _dispatcher = system.start_dispatcher().await?;
    let (batch, job) = submit_long(&system).await?;
    let fields = |state: &str, epoch: u64| {
        let of_job = [("job.id", job.to_string()), ("batch.id", batch.to_string()), ("state", state.to_owned())];
        of_job.map(|(name, value)| (name, Value::from(value))).into_iter().chain([("epoch", epoch.into())]).collect::<Vec<_>>()
    };

    let leaves = QuickWorker::start(&system, &["--drain-seconds", "0"])?;
    begun(&system, &leaves).await?;
    leaves.program.stop().await?;
    let released = logs.once("job ended", &fields("queued", 1)).await?;
    assert_eq!((&released["outcome"], &released["class"]), (&"released".into(), &"shutdown".into()));

    for (epoch, state) in [(2, "queued"), (3, "quarantined")] {
        let dies = QuickWorker::start(&system, &["--lease-seconds", "5", "--heartbeat-seconds", "0.5"])?;
        begun(&system, &dies).await?;
        dies.program.kill();
        let lost = logs.once("worker lost", &fields(state, epoch)).await?;
        assert_eq!(lost["pool"], POOL);
    }
    assert_eq!(system.jobs(batch).await?[0].state, JobState::Quarantined);
    command(&system, &["retry", &batch.to_string(), "--quarantined"]).await?;
    let again = [("batch.id", Value::from(batch.to_string())), ("state", "queued".into())];
    logs.once("failed jobs of the batch queued again", &again).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_whose_priority_stood_still_are_raised_with_a_line() -> anyhow::Result<()> {
    let mut system = start().await?;
    system.set("DOTMASK_AGEING_SECONDS", "0.5");
    let _dispatcher = system.start_dispatcher().await?;
    // Nobody works: the lower priority stands still.
    for priority in [0, 5] {
        let mut batch = system.ledger.begin_batch(NewBatch { pool: POOL.into(), priority, ..NewBatch::default() }).await?;
        batch.push(1, &SegmentationRequest::from_line(line(KEY, 3).as_bytes())?).await?;
        batch.commit().await?;
    }
    let fields = [("pool", POOL.into()), ("jobs", 1.into()), ("from", 0.into()), ("to", 5.into())];
    Logs(&system).once("jobs raised: their priority stood still", &fields).await?;
    Ok(())
}
