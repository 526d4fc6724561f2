//! What a manifest may cost.

use clap::{Args, value_parser};
use request::{MAX_OBJECTS, MAX_POINTS};

use crate::api::Limits;

/// What a manifest may cost, whoever sends it.
#[derive(Args)]
#[expect(clippy::struct_field_names, reason = "the flags' names")]
pub struct LimitArgs {
    /// The largest manifest, in bytes. Larger ones hold one Postgres transaction open for longer.
    #[arg(long, env = "DOTMASK_MAX_MANIFEST_BYTES", value_name = "BYTES", default_value_t = 2 << 30)]
    max_manifest_bytes: u64,
    /// The most lines of a manifest.
    #[arg(long, env = "DOTMASK_MAX_MANIFEST_LINES", value_name = "LINES", default_value_t = 10_000_000, value_parser = value_parser!(u64).range(1..))]
    max_manifest_lines: u64,
    /// The most objects that a request may ask for, 1 to 64. Each costs all its fine-tuning steps.
    #[arg(long, env = "DOTMASK_MAX_OBJECTS", value_name = "OBJECTS", default_value_t = MAX_OBJECTS, value_parser = up_to::<MAX_OBJECTS>)]
    max_objects: usize,
    /// The most points that an object may have, 1 to 1000.
    #[arg(long, env = "DOTMASK_MAX_POINTS", value_name = "POINTS", default_value_t = MAX_POINTS, value_parser = up_to::<MAX_POINTS>)]
    max_points: usize,
}

impl LimitArgs {
    /// As the API takes them.
    pub fn limits(&self) -> Limits {
        Limits {
            manifest_bytes: self.max_manifest_bytes,
            manifest_lines: self.max_manifest_lines,
            objects: self.max_objects,
            points: self.max_points,
        }
    }
}

fn up_to<const MOST: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("expected 1 to {MOST}"))
}
