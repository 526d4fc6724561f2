//! Private servers for the demo and the tests: Postgres, `RabbitMQ` and an S3 store, on free ports of the loopback interface,
//! with their data in a folder you choose. They run beside packaged servers on the standard ports, and end with this program
//! however it ends. A [`Proxy`] in front of a server throws the faults of a network; a [`Prometheus`] looks on.

mod authority;
mod errors;
mod garage;
mod object_store;
mod ports;
mod postgres;
mod process;
mod program;
mod prometheus;
mod proxy;
mod rabbitmq;
mod secret;
mod stack;

pub use authority::{Authority, Certificate};
pub use errors::ServerError;
pub use garage::Garage;
pub use object_store::ObjectStore;
pub use ports::free_ports;
pub use postgres::Postgres;
pub use program::Program;
pub use prometheus::{Prometheus, ScrapeTarget};
pub use proxy::{Mode, Proxy, SLOW_DOWN};
pub use rabbitmq::RabbitMq;
pub use stack::{Proxies, Stack};
