//! One file a subcommand.

pub mod bench;
pub mod evaluate;
pub mod run;
pub mod segment;
