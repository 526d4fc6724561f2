//! One file a subcommand.

pub mod run;
pub mod segment;
