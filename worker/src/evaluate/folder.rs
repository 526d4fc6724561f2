//! The folder an evaluation grows in: what it was begun with, a file of rows for each image, and at the end the tables and figures.
//!
//! Any number of processes may work in one folder, each on its own images; a process that is killed leaves whole rows behind.

use std::{
    fs::{self, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use evaluation::{Row, datasets::Case};
use request::{Method, Parameters, Setting};
use serde::{Deserialize, Serialize};

use super::{jsonl, score::Question};

/// What decides an evaluation's figures. A folder takes rows of one of these only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// The program's version.
    pub version: String,
    /// The kind of the data set.
    pub data: String,
    /// How many images it has, and the SHA-256 of their list: names of files, labels, slices.
    pub cases: (usize, String),
    /// SHA-256 of the checkpoint's file.
    pub checkpoint_sha256: String,
    /// `cpu` or `cuda`: their rounding differs.
    pub device: String,
    /// How many points.
    pub points: Vec<Setting>,
    /// How often they are drawn.
    pub repeats: u32,
    /// The points' seed.
    pub seed: u64,
    /// Which methods.
    pub methods: Vec<Method>,
    /// How to segment.
    pub parameters: Parameters,
    /// Whether every step is scored.
    pub trace: bool,
}

impl Begun {
    /// What is not as it was, by name.
    fn differences(&self, before: &Self) -> Vec<String> {
        let fields = |begun| match serde_json::to_value(begun) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => unreachable!("a struct of numbers and names is a JSON object"),
        };
        let before = fields(before);
        let differs = |(name, value): (String, serde_json::Value)| {
            (before[&name] != value).then(|| format!("{name} was {}, is {value}", before[&name]))
        };
        fields(self).into_iter().filter_map(differs).collect()
    }
}

/// One line of an image's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The SHA-256 of the files that the rows below are of.
    Files {
        /// The image's.
        image: String,
        /// The truth's.
        truth: String,
    },
    /// An answer's scores.
    Row(Box<Row>),
    /// Why there are no scores; another run tries again.
    Problem(String),
}

/// What is known of one image so far.
#[derive(Debug, Default)]
pub struct Known(pub Vec<Entry>);

impl Known {
    /// The SHA-256 of the image's and the truth's file.
    pub fn files(&self) -> Option<(&str, &str)> {
        self.0.iter().find_map(|entry| match entry {
            Entry::Files { image, truth } => Some((image.as_str(), truth.as_str())),
            _ => None,
        })
    }

    /// The scores, in the order in which they were found.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().filter_map(|entry| match entry {
            Entry::Row(row) => Some(&**row),
            _ => None,
        })
    }

    /// Why the image cannot be scored, if that is the last that was found.
    pub fn problem(&self) -> Option<&str> {
        match self.0.last() {
            Some(Entry::Problem(reason)) => Some(reason),
            _ => None,
        }
    }
}

/// An evaluation's folder.
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes the folder or finds it as this evaluation left it.
    pub fn begin(root: &Path, begun: &Begun) -> anyhow::Result<Self> {
        let shown = root.display();
        let cannot_write = || format!("cannot write to the output folder {shown}; choose another --out");
        for folder in ["rows", "masks", "trace"] {
            fs::create_dir_all(root.join(folder)).with_context(cannot_write)?;
        }
        let folder = Self { root: root.into() };
        let path = root.join("settings.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let before: Begun = serde_json::from_slice(&bytes)
                    .with_context(|| format!("{} was not written by this program; choose another --out", path.display()))?;
                let differences = begun.differences(&before);
                ensure!(
                    differences.is_empty(),
                    "the folder {shown} has rows of another evaluation: {}; choose another --out, or go on with what it was begun with",
                    differences.join("; "),
                );
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text = serde_json::to_string_pretty(begun).context("cannot write as JSON")? + "\n";
                folder.write("settings.json", text.as_bytes())?;
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
        tempfile::tempfile_in(root).with_context(cannot_write)?;
        Ok(folder)
    }

    /// Where a file of this folder is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes a file whole: whoever reads it meanwhile has the old one.
    pub fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.path(name);
        let cannot_write = || format!("cannot write {}", path.display());
        // The umask takes away from these permissions what the user's other files lack as well.
        let permissions = Permissions::from_mode(0o666);
        let mut file = tempfile::Builder::new().permissions(permissions).tempfile_in(&self.root).with_context(cannot_write)?;
        file.write_all(bytes).with_context(cannot_write)?;
        file.persist(&path).map_err(|error| error.error).with_context(cannot_write)?;
        Ok(())
    }

    /// The files of the image at this place of the data set's list.
    pub fn of_case(&self, index: usize, case: &Case) -> CaseFiles {
        let plain = |character: char| if character.is_ascii_alphanumeric() || ".-".contains(character) { character } else { '_' };
        let name: String = case.id.chars().map(plain).take(100).collect();
        CaseFiles { root: self.root.clone(), stem: format!("{index:05}-{name}") }
    }
}

/// Where everything about one image lies.
pub struct CaseFiles {
    root: PathBuf,
    stem: String,
}

impl CaseFiles {
    /// Its rows, a line each.
    pub fn rows(&self) -> PathBuf {
        self.root.join("rows").join(format!("{}.jsonl", self.stem))
    }

    /// Its fine-tunings' steps, a line for each fine-tuning.
    pub fn trace(&self) -> PathBuf {
        self.root.join("trace").join(format!("{}.jsonl", self.stem))
    }

    /// The answer to one question, a PNG. Kept for the images that are in the figures.
    pub fn mask(&self, Question { repeat, setting, method }: Question) -> PathBuf {
        let name = format!("{repeat}-{}p{}n-{method}.png", setting.positive(), setting.negative());
        self.root.join("masks").join(&self.stem).join(name)
    }

    /// What is known so far.
    pub fn known(&self) -> anyhow::Result<Known> {
        Ok(Known(jsonl::read(&self.rows())?))
    }
}
