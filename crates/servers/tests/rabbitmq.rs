//! The private `RabbitMQ`, really started.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
};

use servers::RabbitMq;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether the port answers the protocol's header with a frame that begins the login.
fn answers(port: u16) -> bool {
    let mut answer = [0; 11];
    TcpStream::connect(("127.0.0.1", port))
        .and_then(|mut server| {
            server.write_all(b"AMQP\x00\x00\x09\x01")?;
            server.read_exact(&mut answer)
        })
        .is_ok_and(|()| answer[7..] == [0, 10, 0, 10])
}

#[tokio::test]
async fn comes_back_after_a_crash_and_leaves_nothing_behind() -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut rabbitmq = RabbitMq::start(dir.path()).await?;
    let (url, before) = (rabbitmq.url(), rabbitmq.pids());
    assert!(answers(rabbitmq.port()));
    assert_eq!(before.len(), 2);

    rabbitmq.kill();
    assert!(before.into_iter().all(is_gone));
    assert!(!answers(rabbitmq.port()));

    rabbitmq.restart().await?;
    assert_eq!(rabbitmq.url(), url);
    assert!(answers(rabbitmq.port()));

    let after = rabbitmq.pids();
    rabbitmq.stop().await?;
    assert!(after.into_iter().all(is_gone));
    Ok(())
}

#[tokio::test]
async fn what_its_own_tool_cannot_do_is_an_error_with_the_reason() -> Outcome {
    let dir = tempfile::tempdir()?;
    let rabbitmq = RabbitMq::start(dir.path()).await?;
    assert_eq!(rabbitmq.control(&["eval", "1 + 1."]).await?.trim(), "2");
    let error = rabbitmq.control(&["purge_queue", "nothing"]).await.expect_err("there is no such queue");
    assert!(error.to_string().contains("rabbitmqctl purge_queue nothing failed"), "{error}");
    Ok(())
}
