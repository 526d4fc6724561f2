//! Tokens in, tokens out; also over a crash of the server.

use std::time::Duration;

use broker::{BrokerError, Publisher, Server};
use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};

use crate::support::{Outcome, consumer, delete_queue, eventually, next, rabbitmq, rabbitmq_with_lasting_queue, wait_for_ready};

#[tokio::test]
async fn tokens_arrive_in_their_own_pool_and_are_used_up() -> Outcome {
    let (_dir, rabbitmq) = rabbitmq().await?;
    let mut publisher = Publisher::connect(rabbitmq.url().parse()?).await?;
    publisher.publish("chest", 3).await?;
    publisher.publish("liver", 1).await?;
    wait_for_ready(&mut publisher, "chest", 3).await;
    assert_eq!(publisher.ready("nobody-was-here").await?, 0);

    let (mut tokens, shutdown) = consumer(&rabbitmq, "chest", 10);
    for _ in 0..3 {
        next(&mut tokens).await.ack().await;
    }
    assert!(tokens.is_connected());
    shutdown.cancel();
    assert!(tokens.next().await.is_none());
    eventually(async || !tokens.is_connected()).await;
    drop(tokens);
    wait_for_ready(&mut publisher, "chest", 0).await;
    wait_for_ready(&mut publisher, "liver", 1).await;
    Ok(())
}

#[tokio::test]
async fn no_more_tokens_are_out_than_the_prefetch() -> Outcome {
    let (_dir, rabbitmq) = rabbitmq().await?;
    let mut publisher = Publisher::connect(rabbitmq.url().parse()?).await?;
    publisher.publish("chest", 10).await?;
    let (mut tokens, _shutdown) = consumer(&rabbitmq, "chest", 2);
    let (first, _second) = (next(&mut tokens).await, next(&mut tokens).await);
    wait_for_ready(&mut publisher, "chest", 8).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), tokens.next()).await.is_err());
    first.ack().await;
    let _third = next(&mut tokens).await;
    wait_for_ready(&mut publisher, "chest", 7).await;
    Ok(())
}

#[tokio::test]
async fn confirmed_tokens_outlive_a_crash_and_the_publisher_connects_again() -> Outcome {
    let (_dir, mut rabbitmq, mut publisher) = rabbitmq_with_lasting_queue().await?;
    publisher.publish("chest", 1_200).await?;
    rabbitmq.kill();
    assert!(publisher.publish("chest", 1).await.is_err());

    rabbitmq.restart().await?;
    wait_for_ready(&mut publisher, "chest", 1_200).await;
    publisher.publish("chest", 1).await?;
    wait_for_ready(&mut publisher, "chest", 1_201).await;
    Ok(())
}

#[tokio::test]
async fn a_given_back_token_and_those_of_a_dead_consumer_are_delivered_again() -> Outcome {
    let (_dir, rabbitmq) = rabbitmq().await?;
    let mut publisher = Publisher::connect(rabbitmq.url().parse()?).await?;
    publisher.publish("chest", 2).await?;

    let (mut tokens, _shutdown) = consumer(&rabbitmq, "chest", 1);
    next(&mut tokens).await.give_back().await;
    next(&mut tokens).await.ack().await;
    let held = next(&mut tokens).await;
    drop((tokens, held));

    wait_for_ready(&mut publisher, "chest", 1).await;
    let (mut tokens, _shutdown) = consumer(&rabbitmq, "chest", 1);
    next(&mut tokens).await.ack().await;
    wait_for_ready(&mut publisher, "chest", 0).await;
    Ok(())
}

#[tokio::test]
async fn a_token_can_be_used_up_after_shutdown_and_the_others_go_back() -> Outcome {
    let (_dir, rabbitmq) = rabbitmq().await?;
    let mut publisher = Publisher::connect(rabbitmq.url().parse()?).await?;
    publisher.publish("chest", 4).await?;
    let (mut tokens, shutdown) = consumer(&rabbitmq, "chest", 4);
    let in_work = next(&mut tokens).await;
    wait_for_ready(&mut publisher, "chest", 0).await;

    shutdown.cancel();
    assert!(tokens.next().await.is_none());
    wait_for_ready(&mut publisher, "chest", 3).await;
    in_work.ack().await;
    drop(tokens);
    wait_for_ready(&mut publisher, "chest", 3).await;
    Ok(())
}

#[tokio::test]
async fn the_tokens_of_who_wants_no_more_go_back_while_one_is_in_work() -> Outcome {
    let (_dir, rabbitmq) = rabbitmq().await?;
    let mut publisher = Publisher::connect(rabbitmq.url().parse()?).await?;
    publisher.publish("chest", 4).await?;
    let (mut tokens, _shutdown) = consumer(&rabbitmq, "chest", 4);
    let in_work = next(&mut tokens).await;
    wait_for_ready(&mut publisher, "chest", 0).await;

    tokens.stop().await;
    wait_for_ready(&mut publisher, "chest", 3).await;
    in_work.ack().await;
    wait_for_ready(&mut publisher, "chest", 3).await;
    Ok(())
}

#[tokio::test]
async fn the_consumer_comes_back_after_a_crash_and_skips_stale_tokens() -> Outcome {
    let (_dir, mut rabbitmq, mut publisher) = rabbitmq_with_lasting_queue().await?;
    publisher.publish("chest", 3).await?;
    let (mut tokens, _shutdown) = consumer(&rabbitmq, "chest", 3);
    let held = next(&mut tokens).await;
    wait_for_ready(&mut publisher, "chest", 0).await;

    rabbitmq.kill();
    eventually(async || !tokens.is_connected()).await;
    // Its connection is gone: nothing happens, and the token is delivered again.
    held.ack().await;
    rabbitmq.restart().await?;
    for _ in 0..3 {
        next(&mut tokens).await.ack().await;
    }
    wait_for_ready(&mut publisher, "chest", 0).await;
    Ok(())
}

#[tokio::test]
async fn the_consumer_makes_its_queue_again_when_it_is_deleted() -> Outcome {
    let (_dir, rabbitmq) = rabbitmq().await?;
    let (mut tokens, _shutdown) = consumer(&rabbitmq, "chest", 1);
    eventually(async || tokens.is_connected()).await;

    let administrator = Connection::connect(&rabbitmq.url(), ConnectionProperties::default()).await?;
    delete_queue(&administrator).await?;
    let passive = QueueDeclareOptions::durable().passive();
    eventually(async || {
        // Asking for a queue that is not there closes the channel.
        let Ok(channel) = administrator.create_channel().await else { return false };
        channel.queue_declare("dotmask.chest".into(), passive, FieldTable::default()).await.is_ok()
    })
    .await;
    Publisher::connect(rabbitmq.url().parse()?).await?.publish("chest", 1).await?;
    next(&mut tokens).await.ack().await;
    Ok(())
}

#[tokio::test]
async fn tokens_for_a_deleted_queue_are_an_error_and_the_next_call_makes_it_anew() -> Outcome {
    let (_dir, rabbitmq) = rabbitmq().await?;
    let mut publisher = Publisher::connect(rabbitmq.url().parse()?).await?;
    let administrator = Connection::connect(&rabbitmq.url(), ConnectionProperties::default()).await?;
    publisher.publish("chest", 1).await?;
    delete_queue(&administrator).await?;
    let error = publisher.publish("chest", 1).await.expect_err("no queue takes it");
    assert!(matches!(error, BrokerError::QueueGone { .. }), "{error:?}");
    publisher.publish("chest", 2).await?;
    wait_for_ready(&mut publisher, "chest", 2).await;

    delete_queue(&administrator).await?;
    let error = publisher.ready("chest").await.expect_err("there is no queue");
    assert!(matches!(error, BrokerError::QueueGone { .. }), "{error:?}");
    assert_eq!(publisher.ready("chest").await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_queue_of_another_kind_is_named_with_what_to_do() -> Outcome {
    let (_dir, rabbitmq) = rabbitmq().await?;
    let administrator = Connection::connect(&rabbitmq.url(), ConnectionProperties::default()).await?;
    let channel = administrator.create_channel().await?;
    channel.queue_declare("dotmask.chest".into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    let mut publisher = Publisher::connect(rabbitmq.url().parse()?).await?;
    let error = publisher.publish("chest", 1).await.expect_err("a classic queue");
    assert!(matches!(error, BrokerError::Queue { .. }), "{error:?}");
    assert!(error.to_string().contains("dotmask.chest") && error.to_string().contains("delete it"), "{error}");
    // The broken channel is not used again.
    publisher.publish("liver", 1).await?;
    Ok(())
}

#[tokio::test]
async fn wrong_passwords_and_virtual_hosts_are_refused_without_naming_the_password() -> Outcome {
    let (_dir, rabbitmq) = rabbitmq().await?;
    let address = format!("127.0.0.1:{}", rabbitmq.port());
    for url in [format!("amqp://dotmask:hunter2@{address}"), rabbitmq.url().replace("%2f", "nowhere")] {
        let Err(error) = Publisher::connect(url.parse()?).await else { panic!("refused") };
        assert!(matches!(error, BrokerError::Denied { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&address) && text.contains("check the user") && !text.contains("hunter2"), "{text}");
    }
    // The virtual host may be left out, with and without the slash.
    for end in ["", "/"] {
        Publisher::connect(rabbitmq.url().replace("/%2f", end).parse()?).await?;
    }
    Ok(())
}

#[tokio::test]
async fn connecting_to_nothing_names_the_address_and_not_the_password() -> Outcome {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let Err(error) = Publisher::connect(format!("amqp://dotmask:hunter2@127.0.0.1:{port}/%2f").parse()?).await else {
        panic!("nobody listens")
    };
    assert!(matches!(error, BrokerError::Unreachable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("refused") && !text.contains("hunter2"), "{text}");
    Ok(())
}

#[test]
fn a_url_of_another_kind_is_refused() {
    for url in ["postgres://a:hunter2@b/c", "rabbit", "amqp:a:hunter2@b", "amqp://a:12/hunter2@b", "amqp://a:hunter2@b:port/c"] {
        let Err(error) = url.parse::<Server>() else { panic!("{url} is taken") };
        let text = format!("{error} {error:?}");
        assert!(matches!(error, BrokerError::Url { .. }) && !text.contains("hunter2"), "{text}");
    }
    assert!("amqps://a:b@host:5671/%2f".parse::<Server>().is_ok());
}
