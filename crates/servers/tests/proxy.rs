//! The proxy, in front of a server that sends back what it gets.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use servers::{Mode, Proxy, SLOW_DOWN};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Far more than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing has to come for us to believe that nothing comes. Without a fault it comes in a fraction of this.
const SILENCE: Duration = Duration::from_millis(300);

/// A server that sends back what it gets, until it is dropped.
struct Echo {
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Echo {
    async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut requests, mut answers) = connection.split();
                    tokio::io::copy(&mut requests, &mut answers).await
                });
            }
        });
        Ok(Self { address, serving })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn echo_behind_proxy() -> std::io::Result<(Echo, Proxy)> {
    let echo = Echo::start().await?;
    let proxy = Proxy::start(echo.address)?;
    Ok((echo, proxy))
}

/// What comes next, or how the connection ended; empty at its end.
async fn read(connection: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 64];
    let length = tokio::time::timeout(PATIENCE, connection.read(&mut bytes)).await.expect("an answer or an end in time")?;
    bytes.truncate(length);
    Ok(bytes)
}

/// What a new connection gets unasked. It may be reset before it is known to be made.
async fn knock(proxy: &Proxy) -> std::io::Result<Vec<u8>> {
    read(&mut TcpStream::connect(proxy.address()).await?).await
}

async fn says_nothing(connection: &mut TcpStream) -> bool {
    let mut byte = [0];
    tokio::time::timeout(SILENCE, connection.read(&mut byte)).await.is_err()
}

async fn echoes(connection: &mut TcpStream, text: &[u8]) -> Outcome {
    connection.write_all(text).await?;
    assert_eq!(read(connection).await?, text);
    Ok(())
}

fn is_reset<T: std::fmt::Debug>(outcome: std::io::Result<T>) -> bool {
    let error = outcome.expect_err("reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    true
}

#[tokio::test]
async fn forwards_both_ways_and_the_end_too() -> Outcome {
    let (_echo, proxy) = echo_behind_proxy().await?;
    let mut connection = TcpStream::connect(proxy.address()).await?;
    echoes(&mut connection, b"one").await?;
    echoes(&mut connection, b"two").await?;
    connection.shutdown().await?;
    assert_eq!(read(&mut connection).await?, b"");
    assert_eq!(proxy.accepted(), 1);
    Ok(())
}

#[tokio::test]
async fn delays_what_passes() -> Outcome {
    let (_echo, proxy) = echo_behind_proxy().await?;
    let mut connection = TcpStream::connect(proxy.address()).await?;
    echoes(&mut connection, b"quick").await?;
    proxy.set(Mode::Delay(Duration::from_millis(200)));
    let begin = Instant::now();
    echoes(&mut connection, b"slow").await?;
    assert!(begin.elapsed() >= Duration::from_millis(400), "there and back");
    Ok(())
}

#[tokio::test]
async fn delays_each_request_once_whatever_its_size_and_its_answers() -> Outcome {
    const DELAY: Duration = Duration::from_millis(200);
    // More than a hundred pieces there and as many back, which would take a minute if each waited.
    const LENGTH: usize = 2 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let proxy = Proxy::start(listener.local_addr()?)?;
    proxy.set(Mode::DelayRequests(DELAY));
    let client = async {
        let mut connection = TcpStream::connect(proxy.address()).await?;
        for _ in 0..2 {
            let begin = Instant::now();
            connection.write_all(&vec![7; LENGTH]).await?;
            connection.read_exact(&mut vec![0; LENGTH]).await?;
            assert!((DELAY..20 * DELAY).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        }
        std::io::Result::Ok(())
    };
    let server = async {
        let (mut connection, _) = listener.accept().await?;
        let mut request = vec![0; LENGTH];
        for _ in 0..2 {
            connection.read_exact(&mut request).await?;
            connection.write_all(&request).await?;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, async { tokio::try_join!(client, server) }).await??;
    Ok(())
}

#[tokio::test]
async fn a_stall_holds_everything_until_it_is_over() -> Outcome {
    let (_echo, proxy) = echo_behind_proxy().await?;
    let mut present = TcpStream::connect(proxy.address()).await?;
    echoes(&mut present, b"before").await?;
    proxy.set(Mode::Stall);
    let mut new = TcpStream::connect(proxy.address()).await?;
    for connection in [&mut present, &mut new] {
        connection.write_all(b"held").await?;
        assert!(says_nothing(connection).await);
    }
    proxy.set(Mode::Pass);
    for connection in [&mut present, &mut new] {
        assert_eq!(read(connection).await?, b"held");
    }
    Ok(())
}

#[tokio::test]
async fn stalled_answers_let_requests_reach_the_server() -> Outcome {
    let server = TcpListener::bind("127.0.0.1:0").await?;
    let proxy = Proxy::start(server.local_addr()?)?;
    proxy.set(Mode::StallAnswers);
    let mut connection = TcpStream::connect(proxy.address()).await?;
    connection.write_all(b"request").await?;
    let (mut accepted, _) = server.accept().await?;
    assert_eq!(read(&mut accepted).await?, b"request");
    accepted.write_all(b"answer").await?;
    assert!(says_nothing(&mut connection).await);
    proxy.set(Mode::Pass);
    assert_eq!(read(&mut connection).await?, b"answer");
    Ok(())
}

#[tokio::test]
async fn a_cut_closes_present_and_new_connections_and_is_over_when_told() -> Outcome {
    let (_echo, proxy) = echo_behind_proxy().await?;
    let mut present = TcpStream::connect(proxy.address()).await?;
    echoes(&mut present, b"before").await?;
    proxy.set(Mode::Cut);
    assert_eq!(read(&mut present).await?, b"");
    assert_eq!(knock(&proxy).await?, b"");
    proxy.set(Mode::Pass);
    echoes(&mut TcpStream::connect(proxy.address()).await?, b"after").await?;
    assert_eq!(proxy.accepted(), 3);
    Ok(())
}

#[tokio::test]
async fn a_cut_ends_a_stalled_connection_too() -> Outcome {
    let (_echo, proxy) = echo_behind_proxy().await?;
    proxy.set(Mode::Stall);
    let mut stalled = TcpStream::connect(proxy.address()).await?;
    stalled.write_all(b"held").await?;
    assert!(says_nothing(&mut stalled).await);
    proxy.set(Mode::Cut);
    // Closed with bytes unread, the kernel makes it a reset.
    assert!(!matches!(read(&mut stalled).await, Ok(bytes) if !bytes.is_empty()));
    Ok(())
}

#[tokio::test]
async fn a_reset_is_one_for_present_and_new_connections() -> Outcome {
    let (_echo, proxy) = echo_behind_proxy().await?;
    let mut present = TcpStream::connect(proxy.address()).await?;
    echoes(&mut present, b"before").await?;
    proxy.set(Mode::Reset);
    assert!(is_reset(read(&mut present).await));
    assert!(is_reset(knock(&proxy).await));
    Ok(())
}

#[tokio::test]
async fn connections_are_closed_and_reset_while_new_ones_pass() -> Outcome {
    let (_echo, proxy) = echo_behind_proxy().await?;
    let mut first = TcpStream::connect(proxy.address()).await?;
    echoes(&mut first, b"first").await?;
    proxy.close_connections();
    assert_eq!(read(&mut first).await?, b"");
    let mut second = TcpStream::connect(proxy.address()).await?;
    echoes(&mut second, b"second").await?;
    proxy.reset_connections();
    assert!(is_reset(read(&mut second).await));
    echoes(&mut TcpStream::connect(proxy.address()).await?, b"third").await?;
    Ok(())
}

#[tokio::test]
async fn connections_stall_for_good_while_new_ones_pass() -> Outcome {
    let (_echo, proxy) = echo_behind_proxy().await?;
    let mut old = TcpStream::connect(proxy.address()).await?;
    echoes(&mut old, b"old").await?;
    proxy.stall_connections();
    old.write_all(b"lost").await?;
    assert!(says_nothing(&mut old).await);
    let mut new = TcpStream::connect(proxy.address()).await?;
    echoes(&mut new, b"new").await?;
    proxy.set(Mode::Pass);
    assert!(says_nothing(&mut old).await);
    proxy.reset_connections();
    assert!(is_reset(read(&mut old).await) && is_reset(read(&mut new).await));
    Ok(())
}

#[tokio::test]
async fn answers_are_truncated() -> Outcome {
    let (_echo, proxy) = echo_behind_proxy().await?;
    proxy.set(Mode::Truncate(5));
    let mut connection = TcpStream::connect(proxy.address()).await?;
    connection.write_all(b"truncated").await?;
    assert_eq!(read(&mut connection).await?, b"trunc");
    assert_eq!(read(&mut connection).await?, b"");
    Ok(())
}

#[tokio::test]
async fn answers_in_the_servers_stead() -> Outcome {
    let (_echo, proxy) = echo_behind_proxy().await?;
    let mut present = TcpStream::connect(proxy.address()).await?;
    echoes(&mut present, b"before").await?;
    proxy.set(Mode::Answer(b"busy"));
    assert_eq!(read(&mut present).await?, b"");
    let mut new = TcpStream::connect(proxy.address()).await?;
    assert!(says_nothing(&mut new).await, "nobody has asked yet");
    new.write_all(b"request").await?;
    assert_eq!(read(&mut new).await?, b"busy");
    assert_eq!(read(&mut new).await?, b"");
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_away_is_a_reset_and_passes_again_when_it_is_back() -> Outcome {
    let target = TcpListener::bind("127.0.0.1:0").await?;
    let address = target.local_addr()?;
    drop(target);
    let proxy = Proxy::start(address)?;
    assert!(is_reset(knock(&proxy).await));

    let server = TcpListener::bind(address).await?;
    let mut connection = TcpStream::connect(proxy.address()).await?;
    let (mut accepted, _) = server.accept().await?;
    accepted.write_all(b"back").await?;
    assert_eq!(read(&mut connection).await?, b"back");
    Ok(())
}

#[tokio::test]
async fn nothing_is_open_when_it_is_dropped() -> Outcome {
    let (_echo, proxy) = echo_behind_proxy().await?;
    let address = proxy.address();
    let mut connection = TcpStream::connect(address).await?;
    echoes(&mut connection, b"before").await?;
    drop(proxy);
    assert_eq!(read(&mut connection).await.unwrap_or_default(), b"");
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[test]
fn the_answer_of_a_busy_store_says_its_length() {
    let text = String::from_utf8_lossy(SLOW_DOWN);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
}
