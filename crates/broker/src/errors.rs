use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};

/// Why tokens could not be sent or received. The text names the server as host:port, never the password.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL is no AMQP URL.
    #[error("AMQP_URL is not valid: {reason}; expected amqp://user:password@host:5672/%2f")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// The pool's name does not fit into a queue's name.
    #[error("the pool's name has {bytes} bytes, too many for a queue's name")]
    PoolName {
        /// The name's length.
        bytes: usize,
    },
    /// Nothing answers, or not in time.
    #[error("cannot reach RabbitMQ at {address}: {reason}; check that it runs and that AMQP_URL is right")]
    Unreachable {
        /// The server, as host:port.
        address: String,
        /// What was seen.
        reason: String,
    },
    /// A server that cannot be told from one that others put in its place, or that speaks no TLS where it should.
    #[error("cannot connect to RabbitMQ at {address} by TLS: {reason}")]
    Tls {
        /// The server, as host:port.
        address: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The server does not let this user in.
    #[error("RabbitMQ at {address} refuses this user: {reason}; check the user, the password and the virtual host in AMQP_URL")]
    Denied {
        /// The server, as host:port.
        address: String,
        /// The server's own words.
        reason: String,
    },
    /// The queue exists with other properties, or may not be made.
    #[error(
        "RabbitMQ at {address} does not give the durable quorum queue {queue}: {reason}; if it exists as another kind of queue, \
         delete it: it holds no jobs, and is filled again"
    )]
    Queue {
        /// The server, as host:port.
        address: String,
        /// The queue's name.
        queue: String,
        /// The server's own words.
        reason: String,
    },
    /// The connection was lost while it was used.
    #[error("the connection to RabbitMQ at {address} was lost: {reason}")]
    Lost {
        /// The server, as host:port.
        address: String,
        /// What was seen.
        reason: String,
    },
    /// The server takes no messages because it is short of memory or disk space.
    #[error("RabbitMQ at {address} blocks publishers; free memory or disk space there")]
    Blocked {
        /// The server, as host:port.
        address: String,
    },
    /// The server did not answer in time.
    #[error(
        "RabbitMQ at {address} did not answer within {seconds} s; if one queue stays silent while others work, delete it: it holds \
         no jobs, and is filled again"
    )]
    TimedOut {
        /// The server, as host:port.
        address: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The queue was deleted since it was declared.
    #[error("the queue {queue} was deleted from RabbitMQ at {address}; the next attempt makes it anew")]
    QueueGone {
        /// The server, as host:port.
        address: String,
        /// The queue's name.
        queue: String,
    },
    /// The queue could not store a token.
    #[error("RabbitMQ at {address} could not store a token in {queue}; check that most of the queue's replicas run")]
    NotStored {
        /// The server, as host:port.
        address: String,
        /// The queue's name.
        queue: String,
    },
}

impl BrokerError {
    pub(crate) fn connect(address: &str, error: &lapin::Error) -> Self {
        let (address, reason) = (address.to_owned(), error.to_string());
        match error.kind() {
            ErrorKind::ProtocolError(refusal) => match refusal.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                    Self::Denied { address, reason }
                }
                _ => Self::Unreachable { address, reason },
            },
            ErrorKind::IOError(error) => match tls::explain(error.as_ref()) {
                Some(reason) => Self::Tls { address, reason },
                None => Self::Unreachable { address, reason },
            },
            _ => Self::Unreachable { address, reason },
        }
    }

    pub(crate) fn declare(address: &str, queue: &str, error: &lapin::Error) -> Self {
        let (address, queue) = (address.to_owned(), queue.to_owned());
        match error.kind() {
            ErrorKind::ProtocolError(refusal) => match refusal.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Self::QueueGone { address, queue },
                _ => Self::Queue { address, queue, reason: error.to_string() },
            },
            _ => Self::Lost { address, reason: error.to_string() },
        }
    }

    pub(crate) fn lost(address: &str, error: &lapin::Error) -> Self {
        Self::Lost { address: address.into(), reason: error.to_string() }
    }
}
