//! One attempt at a job: how long it may still take, and what of it goes on when nobody wants it any more.

use std::time::Duration;

use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tracing::Instrument as _;

/// What comes back within a tenth of its limit, or this, is only slow.
const LEAST_GRACE: Duration = Duration::from_secs(1);

/// An attempt, from its begin to its drop. What it began and cannot be stopped (a decoder, a step of the model) must come back in the time that
/// the attempt had left and a little more; otherwise `stuck` is cancelled, for the thread and what it holds are lost.
pub struct Attempt {
    limit: Duration,
    stop: CancellationToken,
    clock: watch::Sender<Clock>,
    working: TaskTracker,
    stuck: CancellationToken,
}

#[derive(Clone, Copy)]
enum Clock {
    /// The attempt has until then.
    Runs(Instant),
    /// The attempt waits for others, and has so much left.
    Stands(Duration),
}

impl Clock {
    fn left(self) -> Duration {
        match self {
            Self::Runs(end) => end.saturating_duration_since(Instant::now()),
            Self::Stands(left) => left,
        }
    }
}

impl Attempt {
    /// Begins now. Cancelling `interrupted` ends the model's part at its next step.
    pub fn new(limit: Duration, interrupted: &CancellationToken, stuck: CancellationToken) -> Self {
        let (clock, _) = watch::channel(Clock::Runs(Instant::now() + limit));
        Self { limit, stop: interrupted.child_token(), clock, working: TaskTracker::new(), stuck }
    }

    /// Completes when the attempt has taken too long.
    pub async fn overdue(&self) {
        let mut clock = self.clock.subscribe();
        loop {
            let now = *clock.borrow_and_update();
            match now {
                Clock::Runs(end) if timeout_at(end, clock.changed()).await.is_err() => return,
                Clock::Runs(_) => {}
                // The sender is ours.
                Clock::Stands(_) => drop(clock.changed().await),
            }
        }
    }

    /// Waits for what other jobs have, which is not held against this one.
    pub async fn waits<T>(&self, others: impl Future<Output = T>) -> T {
        self.clock.send_modify(|clock| *clock = Clock::Stands(clock.left()));
        let output = others.await;
        self.clock.send_modify(|clock| *clock = Clock::Runs(Instant::now() + clock.left()));
        output
    }

    /// Cancelled when nobody wants anything of the attempt any more.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// To be held by whatever goes on when the attempt is over.
    pub fn working(&self) -> TaskTrackerToken {
        self.working.token()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.stop.cancel();
        self.working.close();
        let (Ok(runtime), false) = (Handle::try_current(), self.working.is_empty()) else { return };
        let patience = self.clock.borrow().left() + (self.limit / 10).max(LEAST_GRACE);
        let (working, stuck) = (self.working.clone(), self.stuck.clone());
        let watch = async move {
            if timeout(patience, working.wait()).await.is_err() {
                tracing::error!("a decoder or the model does not come back from this job");
                stuck.cancel();
            }
        };
        runtime.spawn(watch.in_current_span());
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn attempt(stuck: &CancellationToken) -> Attempt {
        Attempt::new(20 * SECOND, &CancellationToken::new(), stuck.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_others_is_not_held_against_it() {
        let stuck = CancellationToken::new();
        let attempt = attempt(&stuck);
        let began = Instant::now();
        let work = async {
            advance(15 * SECOND).await;
            attempt.waits(tokio::time::sleep(100 * SECOND)).await;
            std::future::pending::<()>().await;
        };
        tokio::select! { () = work => {}, () = attempt.overdue() => {} }
        assert_eq!(began.elapsed().as_secs(), 120);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_back_is_stuck_and_what_does_is_not() {
        for (comes_back_after, is_stuck) in [(21, false), (23, true)] {
            let stuck = CancellationToken::new();
            let attempt = attempt(&stuck);
            let (working, stop) = (attempt.working(), attempt.stop());
            drop(attempt);
            assert!(stop.is_cancelled());
            tokio::time::sleep(comes_back_after * SECOND).await;
            drop(working);
            tokio::time::sleep(100 * SECOND).await;
            assert_eq!(stuck.is_cancelled(), is_stuck, "{comes_back_after}");
        }
    }
}
