//! Whoever may send to a pool's queue can waste a token, and no more.

use tests::{POOL, System, WorkerSettings, line, png_of_blobs, send_nested_headers};

/// Each level takes the client 2 KiB of stack in a release build and more than 10 KiB in this one; a thread has 2 MiB where nobody cares.
const DEPTH: usize = 1_500;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_nested_headers_does_not_end_a_worker() {
    let system = System::start().await.unwrap();
    let dispatcher = system.start_dispatcher().await.unwrap();
    let worker = system.start_worker(WorkerSettings::default()).unwrap();
    system.until("the worker receives tokens", async || Ok(system.logs().contains("receiving tokens"))).await.unwrap();

    send_nested_headers(&system.stack.rabbitmq.url(), &format!("dotmask.{POOL}"), DEPTH).await.unwrap();
    // A token like any other: it finds no job and is gone.
    system.until("the token is used up", async || Ok(system.waiting_tokens().await? == 0)).await.unwrap();

    system.put_image("a.png", &png_of_blobs(64, 64, 1)).unwrap();
    let batch = system.submit(&[line("a.png", 1)]).await.unwrap();
    let status = system.wait_until_done(batch).await.unwrap();
    assert_eq!(status.counts.succeeded, 1, "{}", system.logs());
    worker.stop().await.unwrap();
    dispatcher.stop().await.unwrap();
}
