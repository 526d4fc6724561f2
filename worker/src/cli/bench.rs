//! `worker bench`'s part of the command line.

use std::{path::PathBuf, str::FromStr};

use anyhow::ensure;
use clap::Args;
use request::{MAX_OBJECTS, MAX_POINTS, Parameters, Setting};
use segmenter::sam::OfficialSize;
use serde::Serialize;

use super::{ComputeArgs, ParameterArgs};

/// `worker bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Which weights.
    #[command(flatten)]
    pub weights: WeightsArgs,
    /// Where it runs.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// The size of the picture that is drawn: bright discs on a dark ground.
    #[arg(long, default_value = "900x700", value_name = "WIDTHxHEIGHT")]
    pub image: PictureSize,
    /// Objects on it, each with a mask of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_OBJECTS as i64))]
    pub objects: u32,
    /// The dots of each object: positive/negative.
    #[arg(long, default_value = "2/2", value_name = "N/N")]
    pub points: Setting,
    /// How often the image is segmented.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub images: u32,
    /// Steps at the beginning that no figure of a step counts: they find cold caches and fresh memory.
    #[arg(long, default_value_t = 1, value_name = "STEPS")]
    pub warm_up: u32,
    /// How to segment.
    #[command(flatten)]
    pub parameters: ParameterArgs,
    /// Leave image.png, and with --random checkpoint.safetensors, in this folder for another program to be measured with.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Print one JSON object, which has every stage of every image, instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// The weights to measure with.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct WeightsArgs {
    /// SAM's weights: .safetensors, or a .pth as published.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Weights of a published size that nobody trained, the same every time: `vit_b`, `vit_l` or `vit_h`.
    #[arg(long, value_name = "SIZE")]
    pub random: Option<OfficialSize>,
}

impl BenchArgs {
    /// The parameters, if they can be used and leave a step to measure.
    pub fn checked(&self) -> anyhow::Result<Parameters> {
        let parameters = self.parameters.checked()?;
        let points = self.points.positive() + self.points.negative();
        ensure!(points as usize <= MAX_POINTS, "--points: {points} points, expected at most {MAX_POINTS}");
        // The last step of a fine-tuning needs no update, so it is none to measure.
        let whole = u64::from(parameters.steps - 1) * u64::from(self.images) * u64::from(self.objects);
        ensure!(
            whole > u64::from(self.warm_up),
            "--steps {}: that makes {whole} steps with an update (a fine-tuning's last has none), and --warm-up {} leaves none of them \
             to measure; ask for more --steps",
            parameters.steps,
            self.warm_up,
        );
        Ok(parameters)
    }
}

/// Pixels of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PictureSize {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl PictureSize {
    const SIDES: std::ops::RangeInclusive<u32> = 32..=16_384;
}

impl FromStr for PictureSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| text.parse().ok().filter(|side| Self::SIDES.contains(side));
        let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
        match sides {
            Some((width, height)) => Ok(Self { width, height }),
            None => Err(format!("expected WIDTHxHEIGHT, each from {} to {} pixels", Self::SIDES.start(), Self::SIDES.end())),
        }
    }
}
