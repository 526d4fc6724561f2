//! Against a real `RabbitMQ`, which crashes and comes back, and is cut off.

mod faults;
mod support;
mod tls;
mod tokens;
