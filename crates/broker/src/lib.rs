//! `RabbitMQ`: tokens in, tokens out.
//!
//! A message is a token, not a job: "pool P has work". It has no body. Who holds one asks the ledger for a job, so a token that
//! is lost, doubled or out of order loses and doubles nothing. Each pool has one durable quorum queue, `dotmask.<pool>`, filled
//! through the default exchange. Every connection declares it, and a queue that was deleted comes back.
//!
//! Publishing and consuming use two connections: the broker blocks a publisher's connection when it runs out of memory or disk,
//! and acknowledgements must still get through. Nothing here depends on priorities, delays, dead letters or `x-death`, and all
//! of it works the same on `RabbitMQ` 3.10 and 4.

mod consumer;
mod errors;
mod publisher;
mod server;
mod stacks;

pub use consumer::{Token, Tokens, consume};
pub use errors::BrokerError;
pub use publisher::Publisher;
pub use server::Server;
pub use stacks::prepare_threads;
