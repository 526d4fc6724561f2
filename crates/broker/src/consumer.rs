use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use lapin::{
    Acker, Consumer,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use crate::{
    BrokerError,
    server::{Server, Session, queue_name},
};

/// Not much shorter: `RabbitMQ` 3.10 leaves a consumer without deliveries when its queue is made anew by another connection
/// within the moment that the news of the deletion takes to reach it.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// How long the end of deliveries may take. A server that does not answer gets its tokens back when the connection ends.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);
/// How long a token's answer may take to be sent. An answer given in the moment in which its connection is lost may never be told of
/// that: without a limit its caller would wait for good, with a place that others could use.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Receives the pool's tokens, at most `prefetch` of them at a time that are neither acknowledged nor given back.
///
/// One task connects, declares the queue and consumes. Whatever goes wrong, it begins again from the connection, with growing
/// pauses, until `shutdown`; an outage is logged once.
pub fn consume(server: Server, pool: String, prefetch: u16, shutdown: CancellationToken) -> Tokens {
    // One: what waits for the caller beyond that waits in the supervisor, where a lost connection sweeps it away.
    let (sender, receiver) = mpsc::channel(1);
    let connected = Arc::new(AtomicBool::new(false));
    let ended = CancellationToken::new();
    let supervisor = Supervisor {
        server,
        pool,
        prefetch: prefetch.max(1),
        tokens: sender,
        connected: connected.clone(),
        shutdown: shutdown.clone(),
    };
    tokio::spawn(supervisor.run(ended.clone().drop_guard()));
    Tokens { receiver, connected, shutdown, ended }
}

/// The tokens of one pool, as they arrive.
pub struct Tokens {
    receiver: mpsc::Receiver<Token>,
    connected: Arc<AtomicBool>,
    shutdown: CancellationToken,
    /// The supervisor receives nothing any more.
    ended: CancellationToken,
}

impl Tokens {
    /// The next token; `None` only after shutdown. Cancelling the wait loses no token.
    pub async fn next(&mut self) -> Option<Token> {
        loop {
            let token = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => None,
                token = self.receiver.recv() => token,
            };
            match token {
                // The connection it came by is gone, so the broker has it back and will deliver it again.
                Some(token) if !token.acker.usable() => {}
                Some(token) => return Some(token),
                None => break,
            }
        }
        self.give_back_waiting().await;
        None
    }

    /// Ends the deliveries; the tokens that wait here go back to the broker.
    pub async fn stop(mut self) {
        self.receiver.close();
        self.give_back_waiting().await;
    }

    async fn give_back_waiting(&mut self) {
        // Before that they would be delivered here again.
        self.ended.cancelled().await;
        while let Some(token) = self.receiver.recv().await {
            token.give_back().await;
        }
    }

    /// Whether tokens can arrive now.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}

/// Leave to ask for a job of the pool. The broker keeps it for others until it is acknowledged or given back, or until
/// the connection ends.
#[must_use = "a token that is neither acknowledged nor given back takes one place of the prefetch"]
pub struct Token {
    acker: Acker,
    /// Keeps the connection open, also after shutdown, until the last token that came by it is answered.
    #[expect(dead_code, reason = "only its lifetime matters")]
    session: Arc<Session>,
}

impl Token {
    /// Uses the token up. If the connection is gone the broker delivers the token again, which does no harm: a token without
    /// work finds no job.
    pub async fn ack(self) {
        self.answer(self.acker.ack(BasicAckOptions::default())).await;
    }

    /// Lets the broker deliver the token again, to whoever is next.
    pub async fn give_back(self) {
        self.answer(self.acker.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() })).await;
    }

    async fn answer(&self, answer: impl Future<Output = lapin::Result<bool>>) {
        match tokio::time::timeout(ANSWER_LIMIT, answer).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => debug!("a token's connection was gone before it was answered"),
            Ok(Err(error)) => debug!(%error, "a token was not answered"),
            Err(_) => debug!("a token's answer was not sent in time"),
        }
    }
}

struct Supervisor {
    server: Server,
    pool: String,
    prefetch: u16,
    tokens: mpsc::Sender<Token>,
    connected: Arc<AtomicBool>,
    shutdown: CancellationToken,
}

impl Supervisor {
    async fn run(self, _ended: DropGuard) {
        let mut failures = 0;
        while !self.shutdown.is_cancelled() {
            let outage = tokio::select! {
                () = self.is_over() => break,
                begun = self.begin() => match begun {
                    Ok((session, consumer)) => {
                        info!(pool = self.pool, server = session.address, "receiving tokens");
                        failures = 0;
                        self.connected.store(true, Ordering::Relaxed);
                        let outage = self.forward(Arc::new(session), consumer).await;
                        self.connected.store(false, Ordering::Relaxed);
                        outage
                    }
                    Err(error) => Some(error),
                },
            };
            let Some(error) = outage else { break };
            if failures == 0 {
                warn!(pool = self.pool, %error, "no tokens arrive until RabbitMQ is back");
            }
            tokio::select! {
                () = self.is_over() => break,
                () = tokio::time::sleep(delay(failures)) => failures += 1,
            }
        }
    }

    /// Waits until nobody wants tokens any more.
    async fn is_over(&self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = self.tokens.closed() => {}
        }
    }

    async fn begin(&self) -> Result<(Session, Consumer), BrokerError> {
        let queue = queue_name(&self.pool)?;
        let session = self.server.connect(&format!("consumer of {}", self.pool)).await?;
        session.declare(&queue).await?;
        // Before consuming: the client's own buffer has no limit.
        let qos = session.channel.basic_qos(self.prefetch, BasicQosOptions::default());
        session.within_limit(qos).await?.map_err(|error| BrokerError::lost(&session.address, &error))?;
        let consume =
            session.channel.basic_consume(queue, ShortString::default(), BasicConsumeOptions::default(), FieldTable::default());
        let consumer = session.within_limit(consume).await?.map_err(|error| BrokerError::lost(&session.address, &error))?;
        Ok((session, consumer))
    }

    /// Hands tokens over until the connection, the channel or the consumer ends, and says why; `None` when nobody wants tokens
    /// any more. It listens to the server also while the caller is busy, so that the end is noticed at once; the prefetch
    /// bounds what waits here meanwhile.
    async fn forward(&self, session: Arc<Session>, mut consumer: Consumer) -> Option<BrokerError> {
        let mut waiting = VecDeque::new();
        loop {
            tokio::select! {
                () = self.is_over() => break,
                delivery = consumer.next() => match delivery {
                    Some(Ok(delivery)) => waiting.push_back(Token { acker: delivery.acker, session: session.clone() }),
                    Some(Err(error)) => return Some(BrokerError::lost(&session.address, &error)),
                    // The server cancels a consumer when its queue is deleted.
                    None => {
                        let reason = "the server ended the consumer, as it does when the queue is deleted".into();
                        return Some(BrokerError::Lost { address: session.address.clone(), reason });
                    }
                },
                Ok(place) = self.tokens.reserve(), if !waiting.is_empty() => {
                    if let Some(token) = waiting.pop_front() {
                        place.send(token);
                    }
                }
            }
        }
        let end = async {
            // Awaited, or the tokens given back would be delivered here again. Where it fails the broker has them back already.
            if let Err(error) = session.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await {
                debug!(%error, "the consumer was not cancelled");
            }
            while let Some(Ok(delivery)) = consumer.next().await {
                waiting.push_back(Token { acker: delivery.acker, session: session.clone() });
            }
            for token in waiting {
                token.give_back().await;
            }
        };
        if tokio::time::timeout(CANCEL_LIMIT, end).await.is_err() {
            debug!("the server did not end the deliveries in time");
        }
        None
    }
}

/// Doubles with each failure; between half of it and all of it, so that a fleet of workers does not come back at once.
fn delay(failures: u32) -> Duration {
    let longest = FIRST_DELAY.saturating_mul(1 << failures.min(10)).min(LONGEST_DELAY);
    let chance = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
    longest.mul_f64(0.5 + chance / 2.0)
}
