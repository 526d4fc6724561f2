//! The next image is fetched and decoded, and the last one's masks are encoded and stored, while this one is computed.

use std::time::Duration;

use tests::{
    ModelTime,
    pipelined::{Load, measure},
};

/// An image takes the model a second or two, as a large one does on a GPU; every setting of the worker is as shipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_keeps_no_model_waiting_while_work_is_queued() -> anyhow::Result<()> {
    let load =
        Load { program: "quick-worker", images: 22, steps: 600, size: 512, prefetch: None, delay: Duration::from_millis(100) };
    let shares = measure(load).await?;
    assert!(shares.busy() >= 0.97, "{:.4}: {shares:?}", shares.busy());
    assert!(shares.busy_by_metrics() >= 0.97, "{:.4}: {shares:?}", shares.busy_by_metrics());
    // All of the model's time is told, and none twice.
    let ModelTime { busy, job, image, place } = shares.model;
    assert!((busy + job + image + place - shares.seconds).abs() < 0.03 * shares.seconds, "{shares:?}");
    Ok(())
}
