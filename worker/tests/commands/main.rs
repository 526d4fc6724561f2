//! The worker's commands as a user runs them: processes with arguments, files, exit codes and two streams.

mod bench;
mod checkpoint;
mod common;
mod deletion_cost;
mod evaluate;
mod fetched_checkpoint;
mod outages;
mod run;
mod run_reads;
mod run_tasks;
mod segment;
mod system;
