//! Faults of the network and of the server. Nothing is lost, nothing spins, and it goes on by itself.

use std::time::{Duration, Instant};

use broker::{BrokerError, Publisher, Tokens, consume};
use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use servers::{Mode, Proxy, RabbitMq};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{Outcome, delete_queue, eventually, next, rabbitmq, wait_for_ready};

/// A server behind a proxy. Both sides take two seconds of silence for the end of a connection.
struct Behind {
    proxy: Proxy,
    rabbitmq: RabbitMq,
    _dir: TempDir,
}

impl Behind {
    async fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let (dir, rabbitmq) = rabbitmq().await?;
        let proxy = Proxy::start(rabbitmq.address())?;
        Ok(Self { proxy, rabbitmq, _dir: dir })
    }

    fn url(&self) -> String {
        format!("{}?heartbeat=1", self.rabbitmq.url_via(self.proxy.address()))
    }

    /// By the proxy, with a prefetch of one.
    fn consumer(&self) -> (Tokens, CancellationToken) {
        let shutdown = CancellationToken::new();
        (consume(self.url().parse().expect("a URL"), "chest".into(), 1, shutdown.clone()), shutdown)
    }

    /// Past the proxy.
    async fn administrator(&self) -> Result<Publisher, BrokerError> {
        Publisher::connect(self.rabbitmq.url().parse()?).await
    }

    /// What the server says of its clients' connections, one a line.
    async fn connections(&self) -> Vec<String> {
        let listed = self.rabbitmq.control(&["list_connections", "client_properties", "state"]).await;
        listed.expect("the server runs").lines().map(ToOwned::to_owned).collect()
    }
}

/// Which connections are lost, and how.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Closed,
    Reset,
    ByAdministrator,
    /// Nothing passes any more, in either direction, and nobody is told.
    HalfOpen,
}

#[tokio::test]
async fn a_held_token_comes_again_after_every_kind_of_lost_connection() -> Outcome {
    let behind = Behind::start().await?;
    let mut administrator = behind.administrator().await?;
    administrator.publish("chest", 1).await?;
    let (mut tokens, _shutdown) = behind.consumer();
    let mut held = next(&mut tokens).await;
    for loss in [Loss::Closed, Loss::Reset, Loss::ByAdministrator, Loss::HalfOpen] {
        match loss {
            Loss::Closed => behind.proxy.close_connections(),
            Loss::Reset => behind.proxy.reset_connections(),
            Loss::ByAdministrator => behind.rabbitmq.close_all_connections().await?,
            Loss::HalfOpen => behind.proxy.set(Mode::Stall),
        }
        eventually(async || !tokens.is_connected()).await;
        behind.proxy.set(Mode::Pass);
        // Too late: nothing happens, and the token is delivered again.
        held.ack().await;
        held = next(&mut tokens).await;
        assert!(tokens.is_connected(), "after {loss:?}");
    }
    held.ack().await;
    drop(tokens);
    eventually(async || administrator.ready("chest").await.is_ok_and(|ready| ready == 0)).await;
    Ok(())
}

#[tokio::test]
async fn attempts_come_ever_later_while_the_broker_is_away() -> Outcome {
    let behind = Behind::start().await?;
    let (mut tokens, _shutdown) = behind.consumer();
    eventually(async || tokens.is_connected()).await;
    let (begin, before) = (Instant::now(), behind.proxy.accepted());
    behind.proxy.set(Mode::Cut);
    eventually(async || behind.proxy.accepted() >= before + 4).await;
    assert!(!tokens.is_connected());
    // The waits are at least half of 0.5, 1, 2 and 4 s.
    assert!(begin.elapsed() >= Duration::from_millis(3_750), "four attempts within {:?}", begin.elapsed());

    behind.proxy.set(Mode::Pass);
    behind.administrator().await?.publish("chest", 1).await?;
    next(&mut tokens).await.ack().await;
    Ok(())
}

#[tokio::test]
async fn a_queue_of_another_kind_is_asked_for_ever_later_and_used_once_it_is_right() -> Outcome {
    let behind = Behind::start().await?;
    let administrator = Connection::connect(&behind.rabbitmq.url(), ConnectionProperties::default()).await?;
    let channel = administrator.create_channel().await?;
    channel.queue_declare("dotmask.chest".into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    let begin = Instant::now();
    let (mut tokens, _shutdown) = behind.consumer();
    eventually(async || behind.proxy.accepted() >= 4).await;
    assert!(!tokens.is_connected());
    assert!(begin.elapsed() >= Duration::from_millis(1_750), "four attempts within {:?}", begin.elapsed());

    delete_queue(&administrator).await?;
    eventually(async || tokens.is_connected()).await;
    behind.administrator().await?.publish("chest", 1).await?;
    next(&mut tokens).await.ack().await;
    Ok(())
}

/// The server closes a channel whose consumer holds a token for longer than it allows, by default half an hour.
#[tokio::test]
async fn the_consumer_comes_back_after_an_error_of_its_channel() -> Outcome {
    let behind = Behind::start().await?;
    let impatience =
        "application:set_env(rabbit, consumer_timeout, 200), application:set_env(rabbit, channel_tick_interval, 500).";
    behind.rabbitmq.control(&["eval", impatience]).await?;
    let mut administrator = behind.administrator().await?;
    administrator.publish("chest", 1).await?;
    let (mut tokens, _shutdown) = behind.consumer();
    let held = next(&mut tokens).await;
    let again = next(&mut tokens).await;
    held.ack().await;
    again.ack().await;
    wait_for_ready(&mut administrator, "chest", 0).await;
    Ok(())
}

#[tokio::test]
async fn a_purge_takes_tokens_and_nothing_else() -> Outcome {
    let behind = Behind::start().await?;
    let mut administrator = behind.administrator().await?;
    administrator.publish("chest", 5).await?;
    let (mut tokens, _shutdown) = behind.consumer();
    let held = next(&mut tokens).await;
    wait_for_ready(&mut administrator, "chest", 4).await;
    behind.rabbitmq.control(&["purge_queue", "dotmask.chest"]).await?;
    wait_for_ready(&mut administrator, "chest", 0).await;
    held.ack().await;
    administrator.publish("chest", 1).await?;
    next(&mut tokens).await.ack().await;
    assert_eq!(behind.proxy.accepted(), 1, "the connection was kept");
    Ok(())
}

#[tokio::test]
async fn tokens_without_a_confirmation_are_an_error_and_may_be_sent_twice() -> Outcome {
    let behind = Behind::start().await?;
    let mut publisher = Publisher::connect(behind.url().parse()?).await?;
    publisher.publish("chest", 1).await?;
    behind.proxy.set(Mode::StallAnswers);
    let error = publisher.publish("chest", 3).await.expect_err("nothing is confirmed");
    assert!(matches!(error, BrokerError::Lost { .. }), "{error:?}");
    behind.proxy.set(Mode::Pass);
    publisher.publish("chest", 3).await?;
    wait_for_ready(&mut behind.administrator().await?, "chest", 7).await;
    Ok(())
}

#[tokio::test]
async fn publishing_goes_on_by_itself_when_the_server_has_memory_again() -> Outcome {
    let behind = Behind::start().await?;
    let mut publisher = Publisher::connect(behind.url().parse()?).await?;
    behind.rabbitmq.set_memory_alarm(true).await?;
    let publishing = tokio::spawn(async move { publisher.publish("chest", 3).await.map(|()| publisher) });
    eventually(async || behind.connections().await.iter().any(|line| line.contains("blocked"))).await;
    behind.rabbitmq.set_memory_alarm(false).await?;
    let mut publisher = publishing.await??;
    wait_for_ready(&mut publisher, "chest", 3).await;
    Ok(())
}

#[tokio::test]
async fn a_blocked_publisher_gives_up_in_time_and_keeps_its_one_connection() -> Outcome {
    let behind = Behind::start().await?;
    behind.administrator().await?.publish("chest", 2).await?;
    let (mut tokens, _shutdown) = behind.consumer();
    let held = next(&mut tokens).await;

    let mut publisher = Publisher::connect(behind.url().parse()?).await?;
    behind.rabbitmq.set_memory_alarm(true).await?;
    for _ in 0..3 {
        // More than one: the server still takes the message at which it blocks a connection.
        let error = publisher.publish("chest", 100).await.expect_err("blocked");
        assert!(matches!(error, BrokerError::Blocked { .. }), "{error:?}");
        assert!(matches!(publisher.ready("chest").await, Err(BrokerError::Blocked { .. })));
    }
    assert_eq!(behind.proxy.accepted(), 2, "the consumer's and the publisher's connection");
    // Who only consumes is not blocked.
    held.ack().await;
    next(&mut tokens).await.ack().await;

    behind.rabbitmq.set_memory_alarm(false).await?;
    eventually(async || publisher.publish("chest", 1).await.is_ok()).await;
    next(&mut tokens).await.ack().await;
    assert_eq!(behind.proxy.accepted(), 2, "and still");
    Ok(())
}
