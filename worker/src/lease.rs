//! Keeping a job ours while we work on it, and knowing when it no longer is.

use std::{future::pending, time::Duration};

use ledger::{Finalised, Lease, Ledger};
use telemetry::Backoff;
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        watch,
    },
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

/// How soon a heartbeat that Postgres did not answer is tried again, and the least that each has for its answer.
const RETRY: Duration = Duration::from_secs(1);
/// How long a job is offered back to a silent Postgres once its lease has ended.
const RELEASE_LIMIT: Duration = Duration::from_mins(5);

/// How long a lease lasts and how often it is extended.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// From one heartbeat to the lease's end.
    pub lease: Duration,
    /// From one heartbeat to the next.
    pub heartbeat: Duration,
}

impl Timing {
    /// For how long a lease is relied on: the work stops at a step's end, and that must be before another worker may begin it.
    fn trusted(self) -> Duration {
        self.lease * 9 / 10
    }
}

/// A lease with a task that extends it, until this is dropped.
pub struct HeldLease {
    /// What the ledger gave.
    pub lease: Lease,
    interrupted: CancellationToken,
    expires: watch::Receiver<Instant>,
    heartbeats: JoinHandle<()>,
}

impl HeldLease {
    /// Holds what was claimed. `asked_at` is when the claim was sent: counted from there, the lease ends here before it does in
    /// Postgres. Work on the job stops when the lease is lost or `stop_jobs` is cancelled. `cancelled` brings ids of jobs and batches
    /// whose leases are to be looked at without waiting for the next heartbeat.
    pub fn hold(
        ledger: Ledger,
        lease: Lease,
        asked_at: Instant,
        timing: Timing,
        stop_jobs: &CancellationToken,
        cancelled: broadcast::Receiver<Uuid>,
    ) -> Self {
        let interrupted = stop_jobs.child_token();
        let (extended, expires) = watch::channel(asked_at + timing.trusted());
        let keep = keep(ledger, lease.clone(), timing, extended, cancelled);
        let lost = interrupted.clone();
        let heartbeats = async move {
            keep.await;
            lost.cancel();
        };
        let heartbeats = tokio::spawn(heartbeats.in_current_span());
        Self { lease, interrupted, expires, heartbeats }
    }

    /// Cancelled when the lease is lost or the worker's jobs have to stop.
    pub fn interrupted(&self) -> &CancellationToken {
        &self.interrupted
    }

    /// Whether another worker may hold the job by now, or soon.
    pub fn is_expired(&self) -> bool {
        *self.expires.borrow() <= Instant::now()
    }

    /// Gives the job back once Postgres answers again: the reaper would take its silence for a crash of ours. Whatever became of
    /// the job meanwhile stays, by the epoch.
    pub fn release_later(&self, ledger: Ledger) {
        let lease = self.lease.clone();
        let mut backoff = Backoff::new(RETRY / 4, RETRY);
        let release = async move {
            loop {
                match ledger.release(&lease).await {
                    Ok(Finalised::Accepted) => {
                        break tracing::info!(state = "queued", "job given back after its lease had ended");
                    }
                    Err(error) if error.is_transient() => sleep(backoff.next_wait()).await,
                    // Somebody else had the last word.
                    Ok(Finalised::LeaseLost) | Err(_) => break,
                }
            }
        };
        tokio::spawn(timeout(RELEASE_LIMIT, release).in_current_span());
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.heartbeats.abort();
    }
}

/// Returns when the lease is lost: the ledger says so, or it could not be asked for so long that it must be assumed.
async fn keep(
    ledger: Ledger,
    lease: Lease,
    timing: Timing,
    extended: watch::Sender<Instant>,
    mut cancelled: broadcast::Receiver<Uuid>,
) {
    let mut next = Instant::now() + timing.heartbeat;
    let mut answers = true;
    loop {
        let expires = *extended.borrow();
        tokio::select! {
            () = sleep_until(next.min(expires)) => {}
            () = concerned(&mut cancelled, &lease) => {}
        }
        let asked_at = Instant::now();
        // One that hangs, on a connection that is dead, leaves time for others.
        let patience = asked_at + timing.heartbeat.max(RETRY);
        let failure = match timeout_at(patience.min(expires), ledger.heartbeat(&lease, timing.lease)).await {
            Ok(Ok(true)) => {
                extended.send_replace(asked_at + timing.trusted());
                next = asked_at + timing.heartbeat;
                answers = true;
                continue;
            }
            Ok(Ok(false)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".into(),
        };
        // One outage is one line, however many heartbeats it swallows.
        if answers {
            tracing::warn!(error = failure, "a heartbeat failed, trying again until the lease ends");
        }
        answers = false;
        if Instant::now() >= expires {
            tracing::warn!("the lease could not be extended before its end; the job may be another's now");
            return;
        }
        next = Instant::now() + RETRY.min(timing.heartbeat);
    }
}

/// Returns when this job or its batch is said to be cancelled.
async fn concerned(cancelled: &mut broadcast::Receiver<Uuid>, lease: &Lease) {
    loop {
        match cancelled.recv().await {
            Ok(id) if id == lease.job_id || id == lease.batch_id => return,
            Ok(_) => {}
            // This one may be among those that were missed.
            Err(RecvError::Lagged(_)) => return,
            // Heartbeats find out as well.
            Err(RecvError::Closed) => pending().await,
        }
    }
}
