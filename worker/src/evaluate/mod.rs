//! How good the method is on images of known truth: every method on the same random points, scored, in the paper's tables and figures.
//!
//! [`score`] does one image and knows no files; the rest keeps a data set's rows in a folder, whatever happens to the process.

pub mod case;
pub mod figures;
pub mod folder;
pub mod images;
pub mod jsonl;
pub mod progress;
pub mod results;
pub mod score;
pub mod trace;
