use std::{
    fmt::Display,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

/// Waits that double from `base` to `cap`, each shortened by up to a half at random so that many processes that lost the same
/// server do not come back in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// The first wait is about `base`, none is longer than `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempt: 0 }
    }

    /// How long to wait now; longer at each call.
    pub fn next_wait(&mut self) -> Duration {
        let whole = self.base.saturating_mul(2_u32.saturating_pow(self.attempt)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        // A fresh RandomState is keyed at random: noise enough without a random number generator.
        let noise = RandomState::new().hash_one(self.attempt) as f64 / u64::MAX as f64;
        whole.mul_f64(1.0 - noise / 2.0)
    }

    /// Begins again at `base`.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// A part that may fail for a while: says once that it began and once that it ended, and how long to wait in between.
#[derive(Debug)]
pub struct Outage {
    part: &'static str,
    reason: Option<String>,
    backoff: Backoff,
}

impl Outage {
    /// For the part of that name: waits of about 0.2 s up to 10 s between attempts.
    pub fn new(part: &'static str) -> Self {
        Self { part, reason: None, backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(10)) }
    }

    /// The part failed: logs the reason unless it is the last one's, and says how long to wait before the next attempt.
    pub fn failed(&mut self, error: impl Display) -> Duration {
        // `{:#}` is the whole chain of causes where the error is an anyhow::Error.
        let reason = format!("{error:#}");
        if self.reason.as_ref() != Some(&reason) {
            tracing::warn!(part = self.part, error = reason, "failed, trying again until it works");
            self.reason = Some(reason);
        }
        self.backoff.next_wait()
    }

    /// The part works: logs the end of an outage if there was one.
    pub fn works(&mut self) {
        if self.reason.take().is_some() {
            tracing::info!(part = self.part, "works again");
            self.backoff.reset();
        }
    }
}

/// Calls `attempt` until it succeeds or fails with an error that is not `transient`, with back-off; `None` once `shutdown` is
/// cancelled.
///
/// For servers that may come later than this process: an orchestrator would only restart it to wait likewise, so it waits here
/// and says what for.
pub async fn retry_until_ready<T, E: Display>(
    part: &'static str,
    shutdown: &CancellationToken,
    transient: impl Fn(&E) -> bool,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Option<Result<T, E>> {
    let mut outage = Outage::new(part);
    let ready = async {
        loop {
            match attempt().await {
                Err(error) if transient(&error) => tokio::time::sleep(outage.failed(error)).await,
                Err(error) => return Err(error),
                Ok(value) => {
                    outage.works();
                    return Ok(value);
                }
            }
        }
    };
    shutdown.run_until_cancelled(ready).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_but_never_longer_than_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let bounds_ms = [(50, 100), (100, 200), (200, 400), (400, 800), (500, 1000), (500, 1000)];
        for (least, most) in bounds_ms {
            let wait = backoff.next_wait();
            assert!(
                (Duration::from_millis(least)..=Duration::from_millis(most)).contains(&wait),
                "{wait:?} for {least}..={most}"
            );
        }
        for _ in 0..100 {
            assert!(backoff.next_wait() <= Duration::from_secs(1));
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn tries_again_until_it_works() {
        let mut left = 3;
        let value = retry_until_ready(
            "server",
            &CancellationToken::new(),
            |_| true,
            async || {
                left -= 1;
                if left > 0 { Err("connection refused") } else { Ok("connected") }
            },
        )
        .await;
        assert_eq!((value, left), (Some(Ok("connected")), 0));
    }

    #[tokio::test]
    async fn does_not_try_again_what_cannot_succeed() {
        let never = async || Err::<(), _>("no such database");
        let value = retry_until_ready("server", &CancellationToken::new(), |error| *error != "no such database", never).await;
        assert_eq!(value, Some(Err("no such database")));
    }

    #[tokio::test]
    async fn stops_trying_when_the_process_stops() {
        let shutdown = CancellationToken::new();
        // Cancelled by its own first attempt: no other could end the wait that follows.
        let value = retry_until_ready(
            "server",
            &shutdown,
            |_| true,
            async || {
                shutdown.cancel();
                Err::<(), _>("refused")
            },
        )
        .await;
        assert_eq!(value, None);
    }
}
