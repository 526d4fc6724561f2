//! A `RabbitMQ` of the test's own, and shorthands for what most tests do.

use std::time::Duration;

use broker::{Publisher, Token, Tokens, consume};
use lapin::{Connection, options::QueueDeleteOptions};
use servers::RabbitMq;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Nothing here takes that long on an idle machine; a test that waits for it has failed.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub async fn rabbitmq() -> Result<(TempDir, RabbitMq), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let rabbitmq = RabbitMq::start(dir.path()).await?;
    Ok((dir, rabbitmq))
}

pub fn consumer(rabbitmq: &RabbitMq, pool: &str, prefetch: u16) -> (Tokens, CancellationToken) {
    let shutdown = CancellationToken::new();
    (consume(rabbitmq.url().parse().expect("a URL"), pool.into(), prefetch, shutdown.clone()), shutdown)
}

pub async fn next(tokens: &mut Tokens) -> Token {
    tokio::time::timeout(PATIENCE, tokens.next()).await.expect("a token in time").expect("no shutdown")
}

pub async fn delete_queue(administrator: &Connection) -> lapin::Result<()> {
    let channel = administrator.create_channel().await?;
    channel.queue_delete("dotmask.chest".into(), QueueDeleteOptions::default()).await.map(drop)
}

/// Starts a server whose queue is on disk: `RabbitMQ` 3 writes a new queue's definition some seconds late.
pub async fn rabbitmq_with_lasting_queue() -> Result<(TempDir, RabbitMq, Publisher), Box<dyn std::error::Error>> {
    let (dir, mut rabbitmq) = rabbitmq().await?;
    let mut publisher = Publisher::connect(rabbitmq.url().parse()?).await?;
    publisher.ready("chest").await?;
    rabbitmq.restart().await?;
    Ok((dir, rabbitmq, publisher))
}

/// Repeats until the condition holds: the server's counts follow what happened by a moment.
pub async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the condition holds in time");
}

pub async fn wait_for_ready(publisher: &mut Publisher, pool: &str, tokens: u32) {
    eventually(async || publisher.ready(pool).await.is_ok_and(|ready| ready == tokens)).await;
}
