//! `dispatcher submit --data`: an evaluation of a data set in the object store.
#![expect(clippy::doc_markdown, reason = "these comments are the help's text, where a backtick would be shown as one")]

use std::{num::NonZeroUsize, str::FromStr};

use anyhow::Context;
use clap::{Args, value_parser};
use evaluation::datasets::{Kind, Labels, Options, Split, UnknownKind};
use objects::ObjectsConfig;
use request::{MAX_REPEATS, Method, Parameters, Recipe, S3Uri, Setting, Window};
use secrets::names_user;
use tls::Authorities;

use super::BadSettings;

/// A data set, and what to ask of each of its images.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// Compare methods on a data set in the object store, in place of a manifest: folder, monuseg, glas or amos22, and where it is.
    #[arg(long, value_name = "KIND:s3://BUCKET/FOLDER", conflicts_with = "manifest")]
    pub data: Option<DataSet>,
    /// How many points to draw: positive/negative, several separated by commas.
    #[arg(
        long,
        conflicts_with = "manifest",
        value_name = "N/N,...",
        value_delimiter = ',',
        default_value = "1/0,1/1,2/0,3/0,2/2,4/0,5/0,3/3,4/4,5/5"
    )]
    pub points: Vec<Setting>,
    /// How often they are drawn on each image.
    #[arg(long, conflicts_with = "manifest", value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..=i64::from(MAX_REPEATS)))]
    pub repeats: u32,
    /// The same seed, the same points.
    #[arg(long, conflicts_with = "manifest", value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// all, or some of sam_points, sam_mask, initial_mask, super_clustering, untuned and finetuned, separated by commas.
    #[arg(long, conflicts_with = "manifest", value_name = "NAME,...", default_value = "all")]
    methods: String,
    /// Fine-tuning steps.
    #[arg(long, conflicts_with = "manifest", value_name = "N", default_value_t = Parameters::default().steps)]
    steps: u32,
    /// Adam's learning rate.
    #[arg(long, conflicts_with = "manifest", value_name = "RATE", default_value_t = Parameters::default().learning_rate, allow_negative_numbers = true)]
    learning_rate: f64,
    /// The method's other choices, by the name of their set: paper or published_code.
    #[arg(long, conflicts_with = "manifest", value_name = "RECIPE", default_value_t = Recipe::Paper)]
    recipe: Recipe,
    /// One choice made otherwise than the recipe has it, such as padding=excluded; may be given several times.
    #[arg(long, conflicts_with = "manifest", value_name = "NAME=VALUE")]
    choose: Vec<String>,
    /// Of a folder, which labels are cases: together (all labels of an image are one), each, or numbers separated by commas.
    #[arg(long, conflicts_with = "manifest", value_name = "LABELS", default_value = "together")]
    labels: Labels,
    /// Of MoNuSeg, GlaS and AMOS22: test or train.
    #[arg(long, conflicts_with = "manifest", value_name = "SPLIT", default_value = "test")]
    split: Split,
    /// AMOS22: at most so many slices an organ and volume.
    #[arg(long, conflicts_with = "manifest", value_name = "N")]
    slices: Option<NonZeroUsize>,
    /// Which values are shown; for CT in Hounsfield units, soft tissue is 40,400.
    #[arg(long, conflicts_with = "manifest", value_name = "CENTRE,WIDTH", allow_hyphen_values = true)]
    window: Option<Window>,
    /// Where the object store is, if it is not AWS.
    #[arg(long, env = "DOTMASK_S3_ENDPOINT", value_name = "URL")]
    s3_endpoint: Option<String>,
    /// The object store's region.
    #[arg(long, env = "AWS_REGION", value_name = "REGION", default_value = "us-east-1")]
    s3_region: String,
    /// Name buckets in the path and not in the host's name, as most stores other than AWS need.
    #[arg(long, env = "DOTMASK_S3_PATH_STYLE", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    s3_path_style: bool,
}

impl DataArgs {
    /// Which methods, in the tables' order.
    pub fn methods(&self) -> anyhow::Result<Vec<Method>> {
        Method::several(&self.methods).context("--methods")
    }

    /// How to segment.
    pub fn parameters(&self) -> anyhow::Result<Parameters> {
        Ok(Parameters::chosen(self.steps, self.learning_rate, self.recipe, &self.choose)?)
    }

    /// What of the data set becomes a case.
    pub fn options(&self) -> Options {
        let Self { labels, split, slices, window, data, .. } = self;
        let prefix = data.as_ref().map_or("", |data| data.prefix.trim_end_matches('/'));
        let folder_name = prefix.rsplit('/').next().unwrap_or_default().to_owned();
        let most_slices = slices.map(NonZeroUsize::get);
        Options { labels: labels.clone(), split: *split, window: *window, most_slices, folder_name, ..Options::default() }
    }

    /// How to reach the object store.
    pub fn store(&self, authorities: Authorities) -> Result<ObjectsConfig, BadSettings> {
        if self.s3_endpoint.as_deref().is_some_and(names_user) {
            return Err(BadSettings::UserInUrl { variable: "DOTMASK_S3_ENDPOINT (or --s3-endpoint)" });
        }
        Ok(ObjectsConfig {
            endpoint: self.s3_endpoint.clone(),
            region: self.s3_region.clone(),
            path_style: self.s3_path_style,
            authorities,
            ..ObjectsConfig::default()
        })
    }
}

/// A data set's kind and folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSet {
    /// How it is laid out.
    pub kind: Kind,
    /// The bucket's name.
    pub bucket: String,
    /// What the keys of its files begin with: empty, or with a slash at its end.
    pub prefix: String,
}

impl FromStr for DataSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected KIND:s3://BUCKET/FOLDER, such as folder:s3://scans/nuclei";
        let (kind, place) = text.split_once(':').ok_or(expected)?;
        let kind = kind.parse().map_err(|error: UnknownKind| error.to_string())?;
        let place = place.strip_prefix("s3://").ok_or(expected)?;
        let (bucket, folder) = place.split_once('/').unwrap_or((place, ""));
        let folder = folder.trim_end_matches('/');
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        // A file in it must have a place.
        S3Uri::new(bucket, &format!("{prefix}x")).map_err(|error| error.to_string())?;
        Ok(Self { kind, bucket: bucket.into(), prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_set_is_a_kind_and_a_folder_of_a_bucket() {
        let data_set = |prefix: &str| Ok(DataSet { kind: Kind::Glas, bucket: "scans".into(), prefix: prefix.into() });
        assert_eq!("glas:s3://scans".parse(), data_set(""));
        assert_eq!("glas:s3://scans/".parse(), data_set(""));
        assert_eq!("glas:s3://scans/a/b".parse(), data_set("a/b/"));
        assert_eq!("glas:s3://scans/a/b/".parse(), data_set("a/b/"));
        for text in ["", "glas", "glas:/data", "gals:s3://scans/a", "glas:s3://S/a", "glas:s3://"] {
            assert!(text.parse::<DataSet>().is_err(), "{text}");
        }
    }
}
