//! The worker's commands as a user runs them: processes with arguments, files, exit codes and two streams.

mod checkpoint;
mod common;
mod run;
mod segment;
mod system;
