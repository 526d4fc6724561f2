//! Tokens on their way to the workers.

use std::time::{Duration, Instant};

use broker::Publisher;
use servers::{Mode, Proxy, RabbitMq};
use tokio_util::sync::CancellationToken;

use crate::support::{System, manifest, wait_for};

async fn wait_for_tokens(url: &str, pool: &str, expected: u32) {
    wait_for(&format!("{expected} tokens for {pool}"), async || {
        let mut publisher = Publisher::connect(url.parse().expect("a URL")).await.map_err(|error| error.to_string())?;
        let ready = publisher.ready(pool).await.map_err(|error| error.to_string())?;
        if ready == expected { Ok(()) } else { Err(format!("{ready} tokens")) }
    })
    .await;
}

/// Takes every token and does nothing with it, as a purge would.
async fn lose_all_tokens(url: &str, pool: &str, tokens: u32) {
    let shutdown = CancellationToken::new();
    let mut consumer = broker::consume(url.parse().expect("a URL"), pool.to_owned(), 10, shutdown.clone());
    for _ in 0..tokens {
        consumer.next().await.unwrap().ack().await;
    }
    shutdown.cancel();
}

#[tokio::test]
async fn each_pool_gets_a_token_for_each_job_and_gets_it_again_when_it_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let rabbitmq = RabbitMq::start(&dir.path().join("rabbitmq")).await.unwrap();
    // The reconciler would make up for a relay that does nothing, so it comes late.
    let system = System::start_with(&rabbitmq.url(), &["--reconcile-seconds", "4"]).await;
    let dispatcher = &system.dispatcher;
    dispatcher.until_ready_is(200).await;
    let own_pool = "{\"image\":\"s3://scans/a.png\",\"points\":[[1,2,1]],\"pool\":\"cpu\"}\n";
    dispatcher.post("/v1/batches?pool=gpu", format!("{}{own_pool}", manifest(40))).await.id();
    wait_for_tokens(&rabbitmq.url(), "gpu", 40).await;
    wait_for_tokens(&rabbitmq.url(), "cpu", 1).await;
    let published = dispatcher.observe("/metrics").await.json;
    assert!(published.as_str().unwrap().contains("dotmask_dispatcher_published_tokens_total{pool=\"gpu\"} 40"), "{published}");

    lose_all_tokens(&rabbitmq.url(), "gpu", 40).await;
    wait_for_tokens(&rabbitmq.url(), "gpu", 40).await;
    dispatcher.logged("tokens added: more jobs were due than tokens waited").await;
}

#[tokio::test]
async fn a_batch_taken_in_during_an_outage_of_the_broker_gets_its_tokens_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let mut rabbitmq = RabbitMq::start(&dir.path().join("rabbitmq")).await.unwrap();
    let system = System::start_with(&rabbitmq.url(), &["--reconcile-seconds", "1"]).await;
    let dispatcher = &system.dispatcher;
    dispatcher.post("/v1/batches?pool=gpu", manifest(5)).await.id();
    wait_for_tokens(&rabbitmq.url(), "gpu", 5).await;

    rabbitmq.stop().await.unwrap();
    dispatcher.until_ready_is(503).await;
    dispatcher.post("/v1/batches?pool=gpu", manifest(5)).await.id();
    rabbitmq.restart().await.unwrap();
    dispatcher.until_ready_is(200).await;
    // The five confirmed before are kept. Both relay and reconciler may send the later five: that is harmless.
    wait_for("all tokens", async || {
        let mut publisher =
            Publisher::connect(rabbitmq.url().parse().expect("a URL")).await.map_err(|error| error.to_string())?;
        let ready = publisher.ready("gpu").await.map_err(|error| error.to_string())?;
        if (10..=15).contains(&ready) { Ok(()) } else { Err(format!("{ready} tokens")) }
    })
    .await;
    assert!(!dispatcher.log().contains("panicked"), "{}", dispatcher.log());
}

async fn tokens_in_outbox(system: &System) -> i64 {
    system.ledger.workloads().await.unwrap().iter().map(|pool| pool.outbox_tokens).sum()
}

#[tokio::test]
async fn tokens_stay_in_the_outbox_until_the_broker_has_confirmed_them() {
    let dir = tempfile::tempdir().unwrap();
    let rabbitmq = RabbitMq::start(&dir.path().join("rabbitmq")).await.unwrap();
    let proxy = Proxy::start(rabbitmq.address()).unwrap();
    // The reconciler would send tokens too, so it comes late. Two seconds of silence are the end of a connection.
    let url = format!("{}?heartbeat=1", rabbitmq.url_via(proxy.address()));
    let system = System::start_with(&url, &["--reconcile-seconds", "600"]).await;
    system.dispatcher.until_ready_is(200).await;
    system.dispatcher.post("/v1/batches?pool=gpu", manifest(3)).await.id();
    wait_for_tokens(&rabbitmq.url(), "gpu", 3).await;

    proxy.set(Mode::StallAnswers);
    system.dispatcher.post("/v1/batches?pool=gpu", manifest(5)).await.id();
    wait_for_tokens(&rabbitmq.url(), "gpu", 8).await;
    system.dispatcher.logged("failed, trying again until it works").await;
    assert_eq!(tokens_in_outbox(&system).await, 5, "stored by the broker, and not confirmed");

    proxy.set(Mode::Pass);
    wait_for("an empty outbox", async || match tokens_in_outbox(&system).await {
        0 => Ok(()),
        tokens => Err(format!("{tokens} tokens")),
    })
    .await;
    wait_for_tokens(&rabbitmq.url(), "gpu", 13).await;
}

#[tokio::test]
async fn the_relay_tries_ever_later_while_the_broker_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let rabbitmq = RabbitMq::start(&dir.path().join("rabbitmq")).await.unwrap();
    let proxy = Proxy::start(rabbitmq.address()).unwrap();
    let system = System::start_with(&rabbitmq.url_via(proxy.address()), &["--reconcile-seconds", "600"]).await;
    system.dispatcher.until_ready_is(200).await;
    proxy.set(Mode::Cut);
    system.dispatcher.post("/v1/batches?pool=gpu", manifest(5)).await.id();
    let (begin, before) = (Instant::now(), proxy.accepted());
    wait_for("six attempts", async || match proxy.accepted() - before {
        attempts if attempts < 6 => Err(format!("{attempts} attempts")),
        _ => Ok(()),
    })
    .await;
    // The waits are at least half of 0.2, 0.4, 0.8 and 1.6 s: the first attempt may have found a lost connection, the second was made
    // for the batch.
    assert!(begin.elapsed() >= Duration::from_millis(1_500), "six attempts within {:?}", begin.elapsed());
    proxy.set(Mode::Pass);
    wait_for_tokens(&rabbitmq.url(), "gpu", 5).await;
}
