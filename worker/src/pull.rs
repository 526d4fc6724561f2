//! Work comes in: a token of the broker, or a look into Postgres now and then, becomes a task that does one job.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use broker::{Token, Tokens};
use telemetry::Backoff;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::job::{Claim, Work, Worker};

/// How often an idle worker looks for work that no token announced.
const IDLE_POLL: Duration = Duration::from_secs(15);
/// The same while the broker is away and no token can come.
const BROKER_AWAY_POLL: Duration = Duration::from_secs(5);
/// How often the broker's connection is looked at.
const CHECK: Duration = Duration::from_secs(1);
/// How long a token goes on for further jobs. Not for long: RabbitMQ takes it for lost after half an hour, and other places of this worker and others
/// have tokens of their own.
const TOKEN_SERVES: Duration = Duration::from_secs(1);
/// How long giving jobs back may take once they have to stop.
const GIVE_BACK: Duration = Duration::from_secs(4);

/// What a task came to.
struct Ended {
    /// Nobody announced the job it did: there may be more of the kind.
    found_unannounced_work: bool,
}

/// Does jobs, at most `prefetch` at once, until `shutdown`; then lets those that run go on for at most `drain` and gives the
/// others back. An error says that this worker can do no more.
pub async fn pull<W: Work>(
    worker: &Arc<Worker>,
    work: &Arc<W>,
    mut tokens: Tokens,
    prefetch: usize,
    drain: Duration,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let mut tasks: JoinSet<Ended> = JoinSet::new();
    let mut next_poll = Instant::now() + jitter(IDLE_POLL);
    let mut check = tokio::time::interval(CHECK);
    let mut is_connected = true;
    let broken = loop {
        let has_room = tasks.len() < prefetch;
        tokio::select! {
            () = shutdown.cancelled() => break None,
            () = worker.model.gone() => break Some("the model cannot be built anew after a failure"),
            () = worker.stuck.cancelled() => break Some("a decoder or the model does not come back from a job that is over"),
            Some(ended) = tasks.join_next() => match ended {
                Ok(Ended { found_unannounced_work: true }) => next_poll = Instant::now(),
                Ok(_) => {}
                Err(error) => tracing::error!(error = %error, "a job's task panicked; the job comes back when its lease ends"),
            },
            token = tokens.next(), if has_room => match token {
                Some(token) => {
                    next_poll = Instant::now() + jitter(IDLE_POLL);
                    tasks.spawn(serve_token(Arc::clone(worker), Arc::clone(work), token, shutdown.clone()));
                }
                None => break None,
            },
            () = sleep_until(next_poll), if has_room => {
                next_poll = Instant::now() + jitter(if is_connected { IDLE_POLL } else { BROKER_AWAY_POLL });
                tasks.spawn(poll(Arc::clone(worker), Arc::clone(work), shutdown.clone()));
            }
            _ = check.tick() => {
                is_connected = tokens.is_connected();
                worker.health.set("rabbitmq", if is_connected { Ok(()) } else { Err("not connected".into()) });
                if !is_connected {
                    next_poll = next_poll.min(Instant::now() + BROKER_AWAY_POLL);
                }
            }
        }
    };

    let wait_for_all = async |tasks: &mut JoinSet<Ended>| while tasks.join_next().await.is_some() {};
    let drain = if broken.is_some() { Duration::ZERO } else { drain };
    let end_jobs = async {
        if timeout(drain, wait_for_all(&mut tasks)).await.is_err() {
            tracing::info!(jobs = tasks.len(), "giving back the jobs that are not done");
            worker.stop_jobs.cancel();
            if timeout(GIVE_BACK, wait_for_all(&mut tasks)).await.is_err() {
                tracing::warn!(jobs = tasks.len(), "could not give back all jobs; they come back when their leases end");
            }
        }
    };
    // Tokens that wait go back at once: other workers can use them while the jobs here end.
    let (_, ()) = tokio::join!(timeout(GIVE_BACK, tokens.stop()), end_jobs);
    match broken {
        Some(what) => bail!("{what}; start the worker again"),
        None => Ok(()),
    }
}

/// Job after job while the token is young. An image takes seconds, so that its token is used up by it; where jobs take milliseconds, a token a job
/// would cost the broker more than the jobs cost everything else, and no reconciler could send so many.
async fn serve_token<W: Work>(worker: Arc<Worker>, work: Arc<W>, token: Token, shutdown: CancellationToken) -> Ended {
    let received_at = Instant::now();
    let mut is_used = false;
    let is_stopped = loop {
        let coming = worker.metrics.model_time.coming();
        let claim = worker.claim(&shutdown).await;
        drop(coming);
        match claim {
            Claim::Job(job, asked_at) => {
                let span = worker.span(&job);
                Box::pin(worker.process(&*work, *job, asked_at).instrument(span)).await;
                is_used = true;
                // A claim would be given back at once, and again, as long as the token is young.
                if worker.stop_jobs.is_cancelled() {
                    break true;
                }
            }
            Claim::Nothing => break false,
            Claim::Stopped => break true,
        }
        if received_at.elapsed() > TOKEN_SERVES {
            break false;
        }
    };
    // Whatever became of its jobs: if they need another token, the ledger sends one.
    if is_stopped {
        token.give_back().await;
    } else {
        if !is_used {
            worker.metrics.record_token_without_work();
        }
        token.ack().await;
    }
    Ended { found_unannounced_work: false }
}

async fn poll<W: Work>(worker: Arc<Worker>, work: Arc<W>, shutdown: CancellationToken) -> Ended {
    let Claim::Job(job, asked_at) = worker.claim(&shutdown).await else {
        return Ended { found_unannounced_work: false };
    };
    let span = worker.span(&job);
    worker.process(&*work, *job, asked_at).instrument(span).await;
    Ended { found_unannounced_work: true }
}

/// Shortened by up to a half at random: many idle workers do not ask at once.
fn jitter(period: Duration) -> Duration {
    Backoff::new(period, period).next_wait()
}
