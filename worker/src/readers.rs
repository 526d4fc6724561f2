//! What reads the files that this program has written before, which may have changed since: for the fuzzer, which has bytes and no store.

use std::path::Path;

pub use crate::checkpoint::CheckpointPlace;
use crate::{
    evaluate::{folder::Entry, jsonl, trace},
    reuse::LentReceipt,
};

/// A `receipt.json` whose masks are to be taken over.
pub fn receipt(bytes: &[u8]) -> anyhow::Result<()> {
    LentReceipt::read(bytes).map(drop)
}

/// An image's file of rows, with which `worker evaluate` goes on.
pub fn rows(bytes: &[u8]) -> anyhow::Result<()> {
    lines::<Entry>(bytes).map(drop)
}

/// An image's file of steps, and their summary.
pub fn steps(bytes: &[u8]) -> anyhow::Result<()> {
    lines(bytes).map(|traces| drop(trace::summary(&[traces], 100)))
}

fn lines<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> anyhow::Result<Vec<T>> {
    let path = Path::new("lines.jsonl");
    jsonl::parse(path, &jsonl::whole(path, bytes.to_vec())?)
}
