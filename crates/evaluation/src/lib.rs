//! How good masks are: data sets, random points on their truths, scores, and tables beside the paper's (section 4).
//!
//! Everything here is synchronous and knows neither a model nor a network: who evaluates takes [`datasets::cases`], draws points with
//! [`draw`], asks the segmenter, scores its masks and writes [`Row`]s and their [`table_markdown`].

pub mod datasets;
mod draw;
mod paper;
mod row;
mod scores;
mod statistics;
mod table;

pub use draw::{Skip, draw};
pub use paper::{Figure, figure};
pub use row::{Outcome, Row, RowsError, Scored, read_csv, write_csv, write_json};
pub use scores::{ScoreError, Scores, dice, iou, published_scores, scores};
pub use statistics::spearman;
pub use table::table_markdown;
