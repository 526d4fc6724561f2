//! `worker evaluate`'s part of the command line.

use std::{num::NonZeroUsize, path::PathBuf, str::FromStr};

use anyhow::{Context, ensure};
use clap::Args;
use evaluation::datasets::{Kind, Labels, Options, Split};
use request::{Method, Setting, Window};

use super::{LimitArgs, ModelArgs, ParameterArgs};

/// `worker evaluate`.
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// Which model, and where it runs.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The data set: folder, monuseg, glas or amos22, and where it is, such as folder:data/nuclei.
    #[arg(long, value_name = "KIND:PATH")]
    pub data: DataSet,
    /// How many points to draw: positive/negative, several separated by commas.
    #[arg(long, value_name = "N/N,...", value_delimiter = ',', default_value = "1/0,1/1,2/0,3/0,2/2,4/0,5/0,3/3,4/4,5/5")]
    points: Vec<Setting>,
    /// How often they are drawn on each image.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub repeats: u32,
    /// The same seed, the same points.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// all, or some of `sam_points`, `sam_mask`, `initial_mask`, `super_clustering`, `untuned` and `finetuned`, separated by commas.
    #[arg(long, default_value = "all", value_name = "NAME,...")]
    methods: String,
    /// How to segment.
    #[command(flatten)]
    pub parameters: ParameterArgs,
    /// What an image and a truth may cost.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Of a folder, which labels are cases: together (all labels of an image are one), each, or numbers separated by commas.
    #[arg(long, default_value = "together", value_name = "LABELS")]
    labels: Labels,
    /// Of MoNuSeg, GlaS and AMOS22: test or train.
    #[arg(long, default_value = "test")]
    split: Split,
    /// AMOS22: at most so many slices an organ and volume.
    #[arg(long, value_name = "N")]
    slices: Option<NonZeroUsize>,
    /// Which values are shown; for CT in Hounsfield units, soft tissue is 40,400.
    #[arg(long, value_name = "CENTRE,WIDTH", allow_hyphen_values = true)]
    window: Option<Window>,
    /// At most so many cases of each group: a sub-folder, an organ.
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Do one of N shares only, I from 0: so several processes can fill one folder. The last to end writes the tables.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// The folder for rows, tables and figures. One that this evaluation began is gone on with.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Score every step of every fine-tuning, and summarise them in trace.md.
    #[arg(long)]
    pub trace: bool,
}

impl EvaluateArgs {
    /// How many points, each once.
    pub fn settings(&self) -> Vec<Setting> {
        each_once(self.points.iter().copied())
    }

    /// Which methods, each once, in the tables' order.
    pub fn methods(&self) -> anyhow::Result<Vec<Method>> {
        Method::several(&self.methods).context("--methods")
    }

    /// At most so many cases of each group.
    pub fn limit(&self) -> Option<usize> {
        self.limit.map(NonZeroUsize::get)
    }

    /// What of the data set becomes a case.
    pub fn options(&self) -> Options {
        let Self { labels, split, window, slices, data, .. } = self;
        let folder_name = data.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let most_slices = slices.map(NonZeroUsize::get);
        let limits = self.limits.limits();
        Options { labels: labels.clone(), split: *split, window: *window, most_slices, folder_name, limits, ..Options::default() }
    }
}

fn each_once<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut once = Vec::new();
    for value in values {
        if !once.contains(&value) {
            once.push(value);
        }
    }
    once
}

/// A data set's kind and folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSet {
    /// How it is laid out.
    pub kind: Kind,
    /// Where it is.
    pub folder: PathBuf,
}

impl FromStr for DataSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, folder) = text.split_once(':').ok_or("expected KIND:PATH, such as folder:data/nuclei")?;
        let kind = kind.parse().map_err(|error: evaluation::datasets::UnknownKind| error.to_string())?;
        if folder.is_empty() { Err("expected a folder after the colon".into()) } else { Ok(Self { kind, folder: folder.into() }) }
    }
}

/// One share of the cases: those whose number, from 0, leaves `index` when divided by `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Whether the case of this number is in this share.
    pub fn has(self, number: usize) -> bool {
        number % self.count == self.index
    }
}

impl FromStr for Shard {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let expected = "expected I/N such as 0/2, with I from 0 to N - 1";
        let (index, count) = text.split_once('/').context(expected)?;
        let (index, count) = (index.parse().context(expected)?, count.parse().context(expected)?);
        ensure!(index < count, expected);
        Ok(Self { index, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_in_one_share() {
        let shards: Vec<Shard> = ["0/3", "1/3", "2/3"].map(|text| text.parse().unwrap()).into();
        for number in 0..10 {
            assert_eq!(shards.iter().filter(|shard| shard.has(number)).count(), 1);
        }
    }

    #[test]
    fn refuses_a_share_and_a_data_set_that_are_none() {
        for text in ["", "1", "2/2", "0/0", "-1/2", "a/b"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
        for text in ["", "data/nuclei", "folders:data", "glas:"] {
            assert!(text.parse::<DataSet>().is_err(), "{text}");
        }
        assert_eq!("glas:/a:b".parse(), Ok(DataSet { kind: Kind::Glas, folder: "/a:b".into() }));
    }
}
