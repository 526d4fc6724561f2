use std::time::Duration;

use lapin::{
    Channel, Connection, ConnectionProperties, Queue,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable, ShortString},
    uri::AMQPUri,
};

use crate::BrokerError;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long one answer of the server may take. A quorum queue elects a new leader within seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const HEARTBEAT_SECONDS: u16 = 10;

/// Checks an AMQP URL without connecting, for a program's start.
pub fn check_url(url: &str) -> Result<(), BrokerError> {
    Server::parse(url).map(drop)
}

/// The queue that holds a pool's tokens.
pub(crate) fn queue_name(pool: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(format!("dotmask.{pool}")).map_err(|_| BrokerError::PoolName { bytes: pool.len() })
}

/// Where the broker is, and how to log in.
#[derive(Clone)]
pub(crate) struct Server {
    uri: AMQPUri,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn parse(url: &str) -> Result<Self, BrokerError> {
        let mut uri: AMQPUri = url.parse().map_err(|reason| BrokerError::Url { reason })?;
        // By the letter, a URL that ends in a slash asks for the virtual host with the empty name, which nobody has.
        if uri.vhost.is_empty() {
            uri.vhost = "/".into();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let address = format!("{}:{}", uri.authority.host, uri.authority.port);
        Ok(Self { uri, address })
    }

    pub(crate) async fn connect(&self, name: &str) -> Result<Session, BrokerError> {
        let properties = ConnectionProperties::default().with_connection_name(format!("dotmask {name}").into());
        let connect = async {
            let connection = Connection::connect_uri(self.uri.clone(), properties).await?;
            let channel = connection.create_channel().await?;
            Ok(Session { address: self.address.clone(), channel, connection })
        };
        let too_late = |_| BrokerError::Unreachable {
            address: self.address.clone(),
            reason: format!("no answer within {} s", CONNECT_LIMIT.as_secs()),
        };
        let outcome = tokio::time::timeout(CONNECT_LIMIT, connect).await.map_err(too_late)?;
        outcome.map_err(|error| BrokerError::connect(&self.address, &error))
    }
}

/// One connection with one channel. The fields close in this order when it is dropped.
pub(crate) struct Session {
    pub(crate) channel: Channel,
    pub(crate) connection: Connection,
    pub(crate) address: String,
}

impl Session {
    /// Makes the queue, unless it is there already.
    pub(crate) async fn declare(&self, queue: &ShortString) -> Result<(), BrokerError> {
        self.ask_for(queue, QueueDeclareOptions::durable()).await.map(drop)
    }

    /// How a queue stands that must be there.
    pub(crate) async fn inspect(&self, queue: &ShortString) -> Result<Queue, BrokerError> {
        self.ask_for(queue, QueueDeclareOptions::durable().passive()).await
    }

    async fn ask_for(&self, queue: &ShortString, options: QueueDeclareOptions) -> Result<Queue, BrokerError> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let answer = self.within_limit(self.channel.queue_declare(queue.clone(), options, arguments)).await?;
        answer.map_err(|error| BrokerError::declare(&self.address, queue.as_str(), &error))
    }

    /// Waits for an answer of the server. A blocked connection sends nothing, so its answers never come.
    pub(crate) async fn within_limit<T>(&self, answer: impl Future<Output = T>) -> Result<T, BrokerError> {
        tokio::time::timeout(ANSWER_LIMIT, answer).await.map_err(|_| {
            let address = self.address.clone();
            if self.is_blocked() {
                BrokerError::Blocked { address }
            } else {
                BrokerError::TimedOut { address, seconds: ANSWER_LIMIT.as_secs() }
            }
        })
    }

    /// Whether the server takes no messages for now. A blocked connection sends nothing, not even its end.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }
}
