//! Whether results could be stored. While they could not, no job is begun that would only lose an attempt.

use std::sync::atomic::{AtomicBool, Ordering};

use telemetry::Outage;
use tokio::{sync::Mutex, time::sleep};

use crate::job::Worker;

/// What is known of the masks' bucket.
pub struct StoreState {
    /// A job had trouble with the store, and the bucket has not been asked since.
    is_doubted: AtomicBool,
    /// Held by the one who asks.
    outage: Mutex<Outage>,
}

impl StoreState {
    /// For a bucket that has just answered.
    pub fn new() -> Self {
        Self { is_doubted: AtomicBool::new(false), outage: Mutex::new(Outage::new("s3")) }
    }

    /// A job could not fetch or store.
    pub fn doubt(&self) {
        self.is_doubted.store(true, Ordering::Relaxed);
    }
}

impl Default for StoreState {
    fn default() -> Self {
        Self::new()
    }
}

impl Worker {
    /// Returns at once while no job had trouble with the store, and else when the masks' bucket answers.
    pub async fn store_answers(&self) {
        let mut outage = self.store.outage.lock().await;
        while self.store.is_doubted.load(Ordering::Relaxed) {
            match self.objects.check(self.masks.bucket()).await {
                Ok(()) => {
                    outage.works();
                    self.health.set("s3", Ok(()));
                    self.store.is_doubted.store(false, Ordering::Relaxed);
                }
                Err(error) => {
                    self.health.set("s3", Err(error.to_string()));
                    sleep(outage.failed(error)).await;
                }
            }
        }
    }
}
