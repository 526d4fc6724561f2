//! `dispatcher cancel` and `dispatcher retry`.

use crate::{
    Exit,
    api::types::{Changed, RetryQuery},
    cli::{CancelArgs, RetryArgs, TargetArgs},
    client::{Client, PATIENCE},
};

/// Cancels what is open of a batch, or a job.
pub async fn cancel(args: CancelArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.target.server)?;
    let cancel = async || match (args.target.batch, args.target.job) {
        (Some(batch), _) => client.cancel_batch(batch).await,
        (None, Some(job)) => client.cancel_job(job).await,
        (None, None) => unreachable!("the command line has one of them"),
    };
    let changed = client.patiently(PATIENCE, |message| eprintln!("{message}"), cancel).await?;
    say(&changed, "cancelled", &args.target, "had ended before");
    Ok(Exit::Done)
}

/// Tries what failed of a batch again, or a job.
pub async fn retry(args: RetryArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.target.server)?;
    let query = RetryQuery { quarantined: args.quarantined };
    let retry = async || match (args.target.batch, args.target.job) {
        (Some(batch), _) => client.retry_batch(batch, &query).await,
        (None, Some(job)) => client.retry_job(job).await,
        (None, None) => unreachable!("the command line has one of them"),
    };
    let changed = client.patiently(PATIENCE, |message| eprintln!("{message}"), retry).await?;
    say(&changed, "queued again", &args.target, "has not failed");
    Ok(Exit::Done)
}

fn say(changed: &Changed, done: &str, target: &TargetArgs, otherwise: &str) {
    match changed.jobs {
        0 if target.job.is_some() => eprintln!("nothing to do: the job {otherwise}"),
        1 => eprintln!("1 job {done}"),
        jobs => eprintln!("{jobs} jobs {done}"),
    }
}
