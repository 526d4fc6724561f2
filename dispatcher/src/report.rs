//! `dispatcher report`: the table of a batch of evaluations, whether the batch is done or not.

use std::{fs::File, io::Write as _, path::Path};

use anyhow::{Context, ensure};
use evaluation::{Outcome, Row, Scored, Scores, table_markdown, write_csv};
use uuid::Uuid;

use crate::{
    Exit,
    api::types::{Batch, JobsQuery, Score, ScoredJob},
    cli::ReportArgs,
    client::{Client, PATIENCE},
};

/// Evaluations asked for at a time.
const PAGE: u32 = 100;

/// Prints the table on stdout, and on stderr what is missing in it.
pub async fn run(args: ReportArgs) -> anyhow::Result<Exit> {
    let ReportArgs { batch: id, csv, kind, architecture, server } = args;
    let client = Client::new(&server)?;
    let batch = client.patiently(PATIENCE, |message| eprintln!("{message}"), async || client.batch(id).await).await?;
    let rows = rows(&client, id).await?;
    let architecture = match architecture {
        Some(architecture) => architecture,
        None => checkpoint(&client, &batch).await?,
    };
    if let Some(path) = csv {
        write_rows(&path, &rows).with_context(|| format!("cannot write the rows to {}", path.display()))?;
    }
    write!(std::io::stdout(), "{}", table_markdown(&rows, kind, &architecture))?;
    let counts = batch.counts;
    eprintln!("{} of {} jobs are still open, {} did not succeed", counts.open(), counts.total(), counts.unsuccessful());
    Ok(Exit::Done)
}

/// The pool's checkpoint, where nobody says which architecture it is: the paper's figures are of two architectures only.
async fn checkpoint(client: &Client, batch: &Batch) -> anyhow::Result<String> {
    let pools = client.patiently(PATIENCE, |message| eprintln!("{message}"), async || client.pools().await).await?;
    let sha256 = pools.pools.into_iter().find(|pool| pool.name == batch.pool).and_then(|pool| pool.checkpoint_sha256);
    Ok(sha256.map_or_else(|| "no checkpoint yet".into(), |sha256| format!("checkpoint {}", &sha256[..sha256.len().min(12)])))
}

async fn rows(client: &Client, batch: Uuid) -> anyhow::Result<Vec<Row>> {
    let mut query = JobsQuery { after: 0, limit: Some(PAGE) };
    let mut rows = Vec::new();
    loop {
        let page =
            client.patiently(PATIENCE, |message| eprintln!("{message}"), async || client.scores(batch, &query).await).await?;
        for job in page.jobs {
            for score in &job.scores {
                rows.push(
                    row(&job, score).with_context(|| format!("the dispatcher sent a row of line {} without sense", job.line))?,
                );
            }
        }
        match page.next_after {
            Some(after) => query.after = after,
            None => return Ok(rows),
        }
    }
}

fn row(job: &ScoredJob, score: &Score) -> anyhow::Result<Row> {
    Ok(Row {
        case: job.user_id.clone().unwrap_or_else(|| format!("line {}", job.line)),
        group: job.group.clone().unwrap_or_default(),
        setting: score.setting.parse()?,
        repeat: score.repeat,
        method: score.method.parse()?,
        outcome: match &score.skipped {
            Some(reason) => Outcome::Skipped(reason.clone()),
            None => Outcome::Scored(scored(score).context("it has neither all its scores nor a reason for being skipped")?),
        },
    })
}

fn scored(score: &Score) -> Option<Scored> {
    Some(Scored {
        scores: Scores { dice: score.dice?, iou: score.iou? },
        published: score.published_dice.zip(score.published_iou).map(|(dice, iou)| Scores { dice, iou }),
        iou_with_initial: score.iou_with_initial?,
        agreement: score.agreement?,
        confidence: score.confidence?,
        best_step: u32::try_from(score.best_step?).ok()?,
        seconds: score.seconds?,
    })
}

/// Renamed when it is whole: somebody may be reading the last one.
fn write_rows(path: &Path, rows: &[Row]) -> anyhow::Result<()> {
    ensure!(!path.is_dir(), "it is a folder");
    let unfinished = path.with_added_extension("unfinished");
    write_csv(rows, File::create(&unfinished)?)?;
    Ok(std::fs::rename(unfinished, path)?)
}
