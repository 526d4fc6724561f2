//! A TCP proxy in front of a server, which throws the faults of a network.

mod tunnel;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
};
use tracing::debug;

/// S3's answer to who asks too often; see [`Mode::Answer`].
pub const SLOW_DOWN: &[u8] =
    b"HTTP/1.1 503 Slow Down\r\nconnection: close\r\ncontent-type: application/xml\r\ncontent-length: 86\r\n\r\n\
    <Error><Code>SlowDown</Code><Message>Please reduce your request rate</Message></Error>";

/// What a proxy does with what passes. Each mode holds for the connections that are open and for new ones; the last four end
/// those that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards everything.
    Pass,
    /// Forwards everything; each piece of at most 16 KiB waits that long, in both directions.
    Delay(Duration),
    /// Forwards everything; the first bytes of each request wait that long, and so does what the client sends after them. The rest of it and
    /// the answer are not held up, whatever their size: a store that is slow to begin with each operation.
    DelayRequests(Duration),
    /// Takes connections and keeps them, and forwards nothing: a network that loses every packet. What was written waits, also
    /// the news that one side is gone.
    Stall,
    /// Forwards requests, and keeps the answers.
    StallAnswers,
    /// Closes each connection without a byte.
    Cut,
    /// Resets each connection without a byte.
    Reset,
    /// Forwards this many bytes of a new connection's answers, then closes it.
    Truncate(usize),
    /// Answers the first bytes of a new connection with these, in the server's stead, and closes it.
    Answer(&'static [u8]),
}

impl Mode {
    fn ends_connections(self) -> bool {
        matches!(self, Self::Cut | Self::Reset | Self::Truncate(_) | Self::Answer(_))
    }
}

/// A TCP proxy on the loopback interface in front of one server, which may stop and start meanwhile. Served by a thread of its own;
/// dropping it closes every connection.
pub struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Order>,
    accepted: Arc<AtomicU64>,
    // Its own, so that a test's single thread does not hold up what passes. None only while it is dropped.
    runtime: Option<Runtime>,
}

/// What the connections go by.
#[derive(Debug, Clone, Copy)]
struct Order {
    mode: Mode,
    /// Grows with every order to those connections alone that are open; each knows the generation it was born into.
    generation: u64,
    /// Older connections have to end.
    ended_before: u64,
    /// How they end: with a reset, or as a server closes them.
    by_reset: bool,
    /// Older connections forward nothing, whatever the mode.
    stalled_before: u64,
}

impl Order {
    /// To the connections that are open to end.
    fn end(&mut self, by_reset: bool) {
        self.generation += 1;
        self.ended_before = self.generation;
        self.by_reset = by_reset;
    }
}

impl Proxy {
    /// Listens on a free port, and forwards to `target`.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("proxy").enable_all().build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = {
            let _within = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (orders, order) =
            watch::channel(Order { mode: Mode::Pass, generation: 0, ended_before: 0, by_reset: false, stalled_before: 0 });
        let accepted = Arc::new(AtomicU64::new(0));
        runtime.spawn(serve(listener, target, order, accepted.clone()));
        Ok(Self { address, orders, accepted, runtime: Some(runtime) })
    }

    /// Where clients connect instead of to the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the mode, at once.
    pub fn set(&self, mode: Mode) {
        self.orders.send_modify(|order| {
            order.mode = mode;
            if mode.ends_connections() {
                order.end(mode == Mode::Reset);
            }
        });
    }

    /// Closes the connections that are open, whatever the mode.
    pub fn close_connections(&self) {
        self.orders.send_modify(|order| order.end(false));
    }

    /// Resets the connections that are open, whatever the mode.
    pub fn reset_connections(&self) {
        self.orders.send_modify(|order| order.end(true));
    }

    /// Has the connections that are open forward nothing any more, whatever the mode, until they are closed or reset: their server
    /// is gone without a word, and another one answers at its address.
    pub fn stall_connections(&self) {
        self.orders.send_modify(|order| {
            order.generation += 1;
            order.stalled_before = order.generation;
        });
    }

    /// How many connections were made to it since it began, also those that got nothing.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropping a runtime within another one panics.
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, order: watch::Receiver<Order>, accepted: Arc<AtomicU64>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(carry(client, target, order.clone()));
            }
            Err(error) => debug!(%error, "a connection to the proxy failed"),
        }
    }
}

/// One connection from its beginning to its end.
async fn carry(mut client: TcpStream, target: SocketAddr, order: watch::Receiver<Order>) {
    let generation = order.borrow().generation;
    let mut server = None;
    let by_reset = tokio::select! {
        by_reset = ended(order.clone(), generation) => by_reset,
        outcome = tunnel::run(&mut client, &mut server, target, tunnel::Gate { order, generation }) => outcome.is_err(),
    };
    if by_reset {
        for connection in std::iter::once(&client).chain(&server) {
            if let Err(error) = connection.set_zero_linger() {
                debug!(%error, "a connection of the proxy could not be reset");
            }
        }
    }
}

/// Waits until the connections of that generation have to end, and says whether by a reset.
async fn ended(mut order: watch::Receiver<Order>, generation: u64) -> bool {
    // The proxy is gone where it fails, and with it this task.
    order.wait_for(|order| generation < order.ended_before).await.is_ok_and(|order| order.by_reset)
}
