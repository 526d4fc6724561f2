use std::collections::{HashSet, VecDeque};

use lapin::{
    BasicProperties, Confirmation, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};

use crate::{
    BrokerError,
    server::{Server, Session, queue_name},
};

/// How many tokens may be on their way without the server's confirmation.
const WINDOW: usize = 500;
/// The server keeps the message over a restart.
const PERSISTENT: u8 = 2;

/// Sends tokens. After an error the next call connects anew; while the server blocks publishers, calls fail at once and the
/// connection is kept until the server takes messages again.
pub struct Publisher {
    server: Server,
    session: Option<Session>,
    /// Declared by this session. A queue that is deleted meanwhile fails one call and is made anew by the next, not at once:
    /// its consumers must have heard of its end by then.
    declared: HashSet<ShortString>,
}

impl Publisher {
    /// Connects to the server.
    pub async fn connect(server: Server) -> Result<Self, BrokerError> {
        let session = connect_for_publishing(&server).await?;
        Ok(Self { server, session: Some(session), declared: HashSet::new() })
    }

    /// Sends this many tokens to the pool. `Ok` means that the server has stored every one of them; after an error some may
    /// be stored, and sending all of them again does no harm. What `RabbitMQ` 3 stores a few seconds late is a new queue
    /// itself: killed right after the queue was made, it comes back without queue and tokens.
    pub async fn publish(&mut self, pool: &str, tokens: u32) -> Result<(), BrokerError> {
        let queue = queue_name(pool)?;
        let session = self.begin(&queue).await?;
        let outcome = send(&session, &queue, tokens).await;
        self.put_back(session, outcome)
    }

    /// How many of the pool's tokens wait in the queue, not counting those that workers hold.
    pub async fn ready(&mut self, pool: &str) -> Result<u32, BrokerError> {
        let queue = queue_name(pool)?;
        let session = self.begin(&queue).await?;
        let outcome = session.inspect(&queue).await;
        self.put_back(session, outcome).map(|queue| queue.message_count())
    }

    /// Keeps the session where nothing went wrong, and one that is blocked: it cannot be closed and would stay, with what waits in it,
    /// beside each new one, which is blocked as soon.
    fn put_back<T>(&mut self, session: Session, outcome: Result<T, BrokerError>) -> Result<T, BrokerError> {
        if matches!(outcome, Ok(_) | Err(BrokerError::Blocked { .. })) {
            self.session = Some(session);
        }
        outcome
    }

    /// Takes the session, with the queue in place. Who is done puts it back; after an error it is gone, because errors close
    /// the channel or leave confirmations that nobody waits for. One that is blocked stays, and is of no use for now.
    async fn begin(&mut self, queue: &ShortString) -> Result<Session, BrokerError> {
        if let Some(session) = self.session.as_ref().filter(|session| session.is_usable() && session.is_blocked()) {
            return Err(BrokerError::Blocked { address: session.address.clone() });
        }
        let session = if let Some(session) = self.session.take().filter(Session::is_usable) {
            session
        } else {
            self.declared.clear();
            connect_for_publishing(&self.server).await?
        };
        if !self.declared.contains(queue) {
            if let Err(error) = session.declare(queue).await {
                return self.put_back(session, Err(error));
            }
            self.declared.insert(queue.clone());
        }
        Ok(session)
    }
}

async fn connect_for_publishing(server: &Server) -> Result<Session, BrokerError> {
    let session = server.connect("publisher").await?;
    let select = session.channel.confirm_select(ConfirmSelectOptions::default());
    session.within_limit(select).await?.map_err(|error| BrokerError::lost(&server.address, &error))?;
    Ok(session)
}

async fn send(session: &Session, queue: &ShortString, tokens: u32) -> Result<(), BrokerError> {
    let mut unconfirmed = VecDeque::with_capacity(WINDOW);
    for _ in 0..tokens {
        if unconfirmed.len() == WINDOW
            && let Some(oldest) = unconfirmed.pop_front()
        {
            confirmed(session, queue, oldest).await?;
        }
        // Mandatory: a token that no queue takes comes back, where it would vanish with a confirmation otherwise.
        let publish = session.channel.basic_publish(
            ShortString::default(),
            queue.clone(),
            BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() },
            &[],
            BasicProperties::default().with_delivery_mode(PERSISTENT),
        );
        let sent = session.within_limit(publish).await?;
        unconfirmed.push_back(sent.map_err(|error| BrokerError::lost(&session.address, &error))?);
    }
    for token in unconfirmed {
        confirmed(session, queue, token).await?;
    }
    Ok(())
}

async fn confirmed(session: &Session, queue: &ShortString, token: PublisherConfirm) -> Result<(), BrokerError> {
    match session.within_limit(token).await? {
        Ok(Confirmation::Ack(None)) => Ok(()),
        Ok(Confirmation::Ack(Some(_returned))) => {
            Err(BrokerError::QueueGone { address: session.address.clone(), queue: queue.to_string() })
        }
        Ok(_) => Err(BrokerError::NotStored { address: session.address.clone(), queue: queue.to_string() }),
        Err(error) => Err(BrokerError::lost(&session.address, &error)),
    }
}
