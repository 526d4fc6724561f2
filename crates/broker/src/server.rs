use std::{str::FromStr, time::Duration};

use lapin::{
    Channel, Connection, ConnectionProperties, Queue,
    options::QueueDeclareOptions,
    tcp::OwnedTLSConfig,
    types::{AMQPValue, FieldTable, ShortString},
    uri::{AMQPScheme, AMQPUri},
};
use tls::Authorities;

use crate::BrokerError;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long one answer of the server may take. A quorum queue elects a new leader within seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const HEARTBEAT_SECONDS: u16 = 10;

/// The queue that holds a pool's tokens.
pub(crate) fn queue_name(pool: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(format!("dotmask.{pool}")).map_err(|_| BrokerError::PoolName { bytes: pool.len() })
}

/// Where the broker is, how to log in, and how to know it.
#[derive(Clone)]
pub struct Server {
    uri: AMQPUri,
    authorities: Authorities,
    pub(crate) address: String,
}

impl Server {
    /// Reads a URL. `amqps` is TLS, and the server's certificate must be for its host's name and of an authority that the system trusts, or
    /// one of these.
    pub fn new(url: &str, authorities: &Authorities) -> Result<Self, BrokerError> {
        secrets::check_url(url, &["amqp", "amqps"]).map_err(|reason| BrokerError::Url { reason: reason.into() })?;
        let mut uri: AMQPUri = url.parse().map_err(|reason| BrokerError::Url { reason })?;
        // By the letter, a URL that ends in a slash asks for the virtual host with the empty name, which nobody has.
        if uri.vhost.is_empty() {
            uri.vhost = "/".into();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let address = format!("{}:{}", uri.authority.host, uri.authority.port);
        Ok(Self { uri, authorities: authorities.clone(), address })
    }

    /// Says so in the log where who is on the way can read and change everything: for a program's start.
    pub fn warn_of_plain(&self) {
        if self.uri.scheme == AMQPScheme::AMQP && !tls::is_loopback(&self.uri.authority.host) {
            tls::warn_of_plain("rabbitmq", &self.address, "give AMQP_URL as amqps://");
        }
    }

    pub(crate) async fn connect(&self, name: &str) -> Result<Session, BrokerError> {
        let properties = ConnectionProperties::default().with_connection_name(format!("dotmask {name}").into());
        let connect = async {
            let trusted = OwnedTLSConfig { cert_chain: self.authorities.pem().map(Into::into), ..OwnedTLSConfig::default() };
            let runtime = lapin::runtime::default_runtime()?;
            let connection = Connection::connect_uri_with_config(self.uri.clone(), properties, trusted, runtime).await?;
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

/// Trusts the system's authorities.
impl FromStr for Server {
    type Err = BrokerError;

    fn from_str(url: &str) -> Result<Self, BrokerError> {
        Self::new(url, &Authorities::default())
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
