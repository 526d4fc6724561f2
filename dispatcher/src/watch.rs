//! `dispatcher watch`: how far a batch is, then what became of each job.

mod progress;
mod table;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use uuid::Uuid;

use self::{progress::Progress, table::Row};
use crate::{
    Exit,
    api::types::{Batch, Job, JobState, JobsQuery},
    cli::WatchArgs,
    client::{Client, PATIENCE},
};

/// Once it has answered, a dispatcher that is gone is waited for so long: a node may be replaced in that time.
const LONG_PATIENCE: Duration = Duration::from_mins(5);
/// Between two questions at least.
const POLL: Duration = Duration::from_millis(500);
/// Between two questions at most.
const SLOWEST_POLL: Duration = Duration::from_secs(10);
/// Jobs listed where the user does not ask for all.
const MAX_LISTED: usize = 50;
/// Jobs asked for at a time.
const PAGE: u32 = 1_000;

/// What is printed when the batch is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Each job as a line of JSON.
    pub json: bool,
    /// The table, however long.
    pub all: bool,
    /// The objects of the least confidence first.
    pub by_confidence: bool,
}

/// Watches and reports.
pub async fn run(args: WatchArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    follow(&client, args.batch, Report { json: args.json, all: args.all, by_confidence: args.by_confidence }).await
}

/// Shows the batch's progress on stderr until it is done, then reports its jobs on stdout.
pub async fn follow(client: &Client, id: Uuid, report: Report) -> anyhow::Result<Exit> {
    let first = client.patiently(PATIENCE, |message| eprintln!("{message}"), async || client.batch(id).await).await?;
    let mut progress = Progress::new(&first);
    let mut batch = first;
    let mut pause = POLL;
    while batch.counts.finished() < batch.counts.total() {
        tokio::time::sleep(pause).await;
        let asked = Instant::now();
        batch = client.patiently(LONG_PATIENCE, |message| progress.say(message), async || client.batch(id).await).await?;
        progress.update(&batch);
        // Counting a large batch takes Postgres a while: no watcher may keep it busy.
        pause = (asked.elapsed() * 10).clamp(POLL, SLOWEST_POLL);
    }
    progress.finish(&batch);
    print_jobs(client, &batch, report).await?;
    Ok(if batch.counts.unsuccessful() == 0 { Exit::Done } else { Exit::JobsDidNotSucceed })
}

async fn print_jobs(client: &Client, batch: &Batch, report: Report) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    if report.json {
        return each_page(client, batch.id, |jobs| {
            for job in jobs {
                writeln!(stdout, "{}", serde_json::to_string(&job)?)?;
            }
            Ok(true)
        })
        .await;
    }
    if report.by_confidence {
        return print_least_sure_first(client, batch, report.all).await;
    }
    let every_job = report.all || batch.counts.total() <= MAX_LISTED as u64;
    if !every_job {
        eprintln!("{} jobs are not listed; --all lists them, --json prints them for a program", batch.counts.total());
        if batch.counts.unsuccessful() == 0 {
            return Ok(());
        }
    }
    let mut header = true;
    let mut listed: usize = 0;
    each_page(client, batch.id, |mut jobs| {
        if !every_job {
            jobs.retain(|job| job.state != JobState::Succeeded);
            jobs.truncate(MAX_LISTED - listed);
        }
        listed += jobs.len();
        if !jobs.is_empty() {
            let rows: Vec<Row> = jobs.iter().flat_map(table::rows).collect();
            write!(stdout, "{}", table::table(&rows, std::mem::take(&mut header)))?;
        }
        Ok(every_job || listed < MAX_LISTED)
    })
    .await?;
    match batch.counts.unsuccessful().saturating_sub(listed as u64) {
        0 => {}
        more => eprintln!("... and {more} more that did not succeed"),
    }
    Ok(())
}

/// The objects that a reviewer should look at, the first ones or all.
async fn print_least_sure_first(client: &Client, batch: &Batch, all: bool) -> anyhow::Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    let mut total = 0;
    each_page(client, batch.id, |jobs| {
        let before = rows.len();
        rows.extend(jobs.iter().flat_map(table::rows));
        total += rows.len() - before;
        rows.sort_by(Row::least_sure_first);
        if !all {
            rows.truncate(MAX_LISTED);
        }
        Ok(true)
    })
    .await?;
    write!(std::io::stdout(), "{}", table::table(&rows, true))?;
    if total > rows.len() {
        eprintln!("... and {} more that are surer or have no mask; --all lists them", total - rows.len());
    }
    Ok(())
}

/// Hands a batch's jobs to `take`, a page at a time, until it wants no more.
async fn each_page(client: &Client, batch: Uuid, mut take: impl FnMut(Vec<Job>) -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let mut query = JobsQuery { after: 0, limit: Some(PAGE) };
    loop {
        let page =
            client.patiently(LONG_PATIENCE, |message| eprintln!("{message}"), async || client.jobs(batch, &query).await).await?;
        let wants_more = take(page.jobs)?;
        match page.next_after {
            Some(after) if wants_more => query.after = after,
            _ => return Ok(()),
        }
    }
}
