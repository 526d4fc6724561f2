//! Against a real object store. Each test is a process of its own under nextest, and the environment holds its credentials.

mod faults;
mod object_store;
mod support;
mod tls;
