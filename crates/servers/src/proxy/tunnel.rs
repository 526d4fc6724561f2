//! What one connection of the proxy does, until the proxy ends it.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

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

/// What lets one connection's bytes pass or not.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) order: watch::Receiver<Order>,
    pub(super) generation: u64,
}

impl Gate {
    /// Waits until this direction may pass, and says in which mode.
    async fn passes(&mut self, direction: Direction) -> io::Result<Mode> {
        let generation = self.generation;
        let lets_pass = |order: &Order| match order.mode {
            _ if generation < order.stalled_before => false,
            Mode::Stall => false,
            Mode::StallAnswers => direction == Direction::Requests,
            _ => true,
        };
        let order = self.order.wait_for(lets_pass).await;
        order.map(|order| order.mode).map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }
}

/// Returns when both sides have said all, or the mode has it that nothing more comes; an error resets both sides. The connection
/// to the server is the caller's, who closes it.
pub(super) async fn run(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    target: SocketAddr,
    mut gate: Gate,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mode = gate.passes(Direction::Requests).await?;
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
    let is_answered = AtomicBool::new(true);
    let requests = forward(from_client, to_server, Direction::Requests, gate.clone(), &is_answered);
    let answers = forward(from_server.take(most), to_client, Direction::Answers, gate, &is_answered);
    tokio::try_join!(requests, answers).map(drop)
}

/// `is_answered` is of the connection, and true before its first request.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    mut gate: Gate,
    is_answered: &AtomicBool,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        // No client of ours sends a request before the one before it is answered: what comes after an answer is the next one.
        let was_answered = is_answered.swap(direction == Direction::Answers, Ordering::Relaxed);
        let begins_request = direction == Direction::Requests && was_answered;
        match gate.passes(direction).await? {
            Mode::DelayRequests(_) if !begins_request => {}
            Mode::Delay(delay) | Mode::DelayRequests(delay) => {
                tokio::time::sleep(delay).await;
                // It may hold back what it let pass before.
                gate.passes(direction).await?;
            }
            _ => {}
        }
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..length]).await?;
    }
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
