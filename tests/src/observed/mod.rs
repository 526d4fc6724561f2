//! What an operator sees: boards and rules as files, and a Prometheus that scrapes a real system.

mod boards;
mod catalogue;
mod monitor;
mod promql;

pub use boards::{Board, Panel, Source, Variable, boards, filled};
pub use catalogue::{Catalogue, named_in};
pub use monitor::{Monitor, serve_text};
pub use promql::selectors;
