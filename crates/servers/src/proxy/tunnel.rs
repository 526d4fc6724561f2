//! What one connection of the proxy does, until the proxy ends it.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};

use super::{Mode, Order};

/// The largest piece that is forwarded at a time, in bytes.
const PIECE: usize = 16 * 1_024;

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Requests,
    Answers,
}

impl Mode {
    fn lets_pass(self, direction: Direction) -> bool {
        match self {
            Self::Stall => false,
            Self::StallAnswers => direction == Direction::Requests,
            _ => true,
        }
    }
}

/// Returns when both sides have said all, or the mode has it that nothing more comes; an error resets both sides. The connection
/// to the server is the caller's, who closes it.
pub(super) async fn run(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    target: SocketAddr,
    mut order: watch::Receiver<Order>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mode = passing(&mut order, Direction::Requests).await?;
    match mode {
        Mode::Cut => return Ok(()),
        Mode::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
        Mode::Answer(answer) => return answer_with(client, answer).await,
        _ => {}
    }
    // A server that is away resets its clients, the nearest to refusing them.
    let server = server.insert(TcpStream::connect(target).await?);
    server.set_nodelay(true)?;
    let most = if let Mode::Truncate(most) = mode { most as u64 } else { u64::MAX };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let requests = forward(from_client, to_server, Direction::Requests, order.clone());
    let answers = forward(from_server.take(most), to_client, Direction::Answers, order);
    tokio::try_join!(requests, answers).map(drop)
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    mut order: watch::Receiver<Order>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        if let Mode::Delay(delay) = passing(&mut order, direction).await? {
            tokio::time::sleep(delay).await;
            // It may hold back what it let pass before.
            passing(&mut order, direction).await?;
        }
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..length]).await?;
    }
}

/// Waits until the mode lets this direction pass, and says which mode it is.
async fn passing(order: &mut watch::Receiver<Order>, direction: Direction) -> io::Result<Mode> {
    let order = order.wait_for(|order| order.mode.lets_pass(direction)).await;
    order.map(|order| order.mode).map_err(|_| io::ErrorKind::ConnectionAborted.into())
}

/// Answers when the client has begun its request: none would take the answer for its own before. Then waits for the client to
/// close, because closing first, with bytes of the request unread, would reset the connection and with it the answer.
async fn answer_with(client: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut request = vec![0; PIECE];
    if client.read(&mut request).await? == 0 {
        return Ok(());
    }
    client.write_all(answer).await?;
    client.shutdown().await?;
    while client.read(&mut request).await? > 0 {}
    Ok(())
}
