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
    use super::*;

    fn attempt(limit: Duration, stuck: &CancellationToken) -> Attempt {
        Attempt::new(limit, &CancellationToken::new(), stuck.clone())
    }

    #[tokio::test]
    async fn waiting_for_others_is_not_held_against_it() {
        let (limit, others) = (Duration::from_millis(200), Duration::from_millis(500));
        let attempt = attempt(limit, &CancellationToken::new());
        let began = Instant::now();
        let work = async {
            attempt.waits(tokio::time::sleep(others)).await;
            std::future::pending::<()>().await;
        };
        tokio::select! { () = work => {}, () = attempt.overdue() => {} }
        // It still has its time when the others are done, but for what passed before it waited for them.
        assert!(began.elapsed() >= others + limit / 2, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn what_does_not_come_back_is_stuck_and_what_does_is_not() {
        let [stuck, slow] = [CancellationToken::new(), CancellationToken::new()];
        let attempts = [&stuck, &slow].map(|token| attempt(Duration::from_millis(100), token));
        let [lost, comes_back] = [attempts[0].working(), attempts[1].working()];
        let stops = [attempts[0].stop(), attempts[1].stop()];
        drop(attempts);
        assert!(stops.iter().all(CancellationToken::is_cancelled), "nobody wants what they do");
        drop(comes_back);
        stuck.cancelled().await;
        // Their patience began together.
        assert!(!slow.is_cancelled());
        drop(lost);
    }
}
