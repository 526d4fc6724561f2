use std::collections::VecDeque;

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

/// Sends tokens. After an error the next call connects anew.
pub struct Publisher {
    server: Server,
    session: Option<Session>,
}

impl Publisher {
    /// Connects to the server.
    pub async fn connect(url: &str) -> Result<Self, BrokerError> {
        let mut publisher = Self { server: Server::parse(url)?, session: None };
        publisher.session().await?;
        Ok(publisher)
    }

    /// Sends this many tokens to the pool. `Ok` means that the server has stored every one of them; after an error some may
    /// be stored, and sending all of them again does no harm.
    pub async fn publish(&mut self, pool: &str, tokens: u32) -> Result<(), BrokerError> {
        let queue = queue_name(pool)?;
        let outcome = send(self.session().await?, &queue, tokens).await;
        self.forget_session_on_error(outcome)
    }

    /// How many of the pool's tokens wait in the queue, not counting those that workers hold.
    pub async fn ready(&mut self, pool: &str) -> Result<u32, BrokerError> {
        let queue = queue_name(pool)?;
        let outcome = self.session().await?.declare(&queue).await.map(|queue| queue.message_count());
        self.forget_session_on_error(outcome)
    }

    async fn session(&mut self) -> Result<&Session, BrokerError> {
        let usable = self.session.take().filter(Session::is_usable);
        let session = match usable {
            Some(session) => session,
            None => connect_for_publishing(&self.server).await?,
        };
        Ok(self.session.insert(session))
    }

    /// An error closes the channel, or leaves it with confirmations nobody waits for.
    fn forget_session_on_error<T>(&mut self, outcome: Result<T, BrokerError>) -> Result<T, BrokerError> {
        if outcome.is_err() {
            self.session = None;
        }
        outcome
    }
}

async fn connect_for_publishing(server: &Server) -> Result<Session, BrokerError> {
    let session = server.connect("publisher").await?;
    let select = session.channel.confirm_select(ConfirmSelectOptions::default());
    session.within_limit(select).await?.map_err(|error| BrokerError::lost(&server.address, &error))?;
    Ok(session)
}

async fn send(session: &Session, queue: &ShortString, tokens: u32) -> Result<(), BrokerError> {
    session.declare(queue).await?;
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
        Ok(_) => Err(BrokerError::NotStored { address: session.address.clone(), queue: queue.to_string() }),
        Err(error) => Err(BrokerError::lost(&session.address, &error)),
    }
}
