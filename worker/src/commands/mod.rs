//! One file a subcommand.

pub mod evaluate;
pub mod run;
pub mod segment;
