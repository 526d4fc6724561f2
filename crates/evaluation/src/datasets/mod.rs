//! Data sets as people download them, as lists of cases: which image, which truth, which of its labels.

mod amos22;
mod errors;
mod files;
mod folder;
mod glas;
mod monuseg;
mod outlines;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod truth;

use std::{fmt, str::FromStr};

use images::ImageLimits;
use request::{View, Window};

pub use amos22::ORGANS;
pub use errors::DatasetError;
pub use files::{Files, FilesError, LocalFolder};
pub use truth::truth;

/// How a data set is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any folder of images, each with its truth beside it: `<id>.png` and `<id>_labels.png` or `<id>_mask.png`.
    Folder,
    /// MoNuSeg: `<id>.tif` and outlines of its nuclei in `<id>.xml`.
    MonuSeg,
    /// GlaS: `testA_1.bmp` and `testA_1_anno.bmp`.
    Glas,
    /// AMOS22: `imagesVa/amos_0008.nii.gz` and `labelsVa/amos_0008.nii.gz`.
    Amos22,
}

/// A name that no kind of data set has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kind {name:?} of data set is unknown, expected folder, monuseg, glas or amos22")]
pub struct UnknownKind {
    name: String,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Folder, Self::MonuSeg, Self::Glas, Self::Amos22];

    /// As on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::MonuSeg => "monuseg",
            Self::Glas => "glas",
            Self::Amos22 => "amos22",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        let unknown = || UnknownKind { name: name.chars().take(80).collect() };
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(unknown)
    }
}

/// Which of a folder's labels are cases.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Labels {
    /// All labels of an image together, as one case: many objects of one kind.
    #[default]
    Together,
    /// Every label a case: class maps, such as organs.
    Each,
    /// These labels, each a case on the images that have it.
    Only(Vec<u32>),
}

/// Why a text says nothing of labels or of a split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct OptionError {
    expected: &'static str,
}

/// `together`, `each`, or numbers separated by commas.
impl FromStr for Labels {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        match text {
            "together" => Ok(Self::Together),
            "each" => Ok(Self::Each),
            numbers => {
                let numbers: Result<Vec<u32>, _> = numbers.split(',').map(|number| number.trim().parse()).collect();
                let expected = "together, each, or numbers from 1 separated by commas (0 is the background)";
                match numbers {
                    Ok(numbers) if !numbers.contains(&0) => Ok(Self::Only(numbers)),
                    _ => Err(OptionError { expected }),
                }
            }
        }
    }
}

/// Which part of a published data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// The test images (of AMOS22, whose test truths are not public, the validation images too).
    #[default]
    Test,
    /// The training images.
    Train,
}

impl FromStr for Split {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        match text {
            "test" => Ok(Self::Test),
            "train" => Ok(Self::Train),
            _ => Err(OptionError { expected: "test or train" }),
        }
    }
}

/// What of a data set becomes a case.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Of a folder.
    pub labels: Labels,
    /// Of MoNuSeg, GlaS and AMOS22.
    pub split: Split,
    /// Which values the image shows. AMOS22 without one: [40, 400], soft tissue.
    pub window: Option<Window>,
    /// A label with fewer pixels on an image is no case there. Without one: of a folder 0.5 % of the image's pixels, when labels are
    /// cases of their own; of AMOS22 100 pixels, below which even ten points leave little to find.
    pub least_pixels: Option<u64>,
    /// AMOS22: at most so many slices an organ and volume, evenly spread over those that qualify. Without one: all.
    pub most_slices: Option<usize>,
    /// The name of the folder itself, which may say which split it holds: "MoNuSeg 2018 Training Data".
    pub folder_name: String,
    /// What a truth may cost, where it has to be decoded to know its labels.
    pub limits: ImageLimits,
}

/// One object, or all objects of one kind, on one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Unique within the data set.
    pub id: String,
    /// The block of the table it belongs to: an organ, a sub-folder, or the data set.
    pub group: String,
    /// The image's name in [`Files`].
    pub image: String,
    /// The truth's name in [`Files`].
    pub truth: String,
    /// Which label of the truth; without one, any.
    pub label: Option<u32>,
    /// Slice and window of the image; the slice also of the truth.
    pub view: View,
}

/// The cases of a data set, sorted by id.
pub fn cases(kind: Kind, files: &dyn Files, options: &Options) -> Result<Vec<Case>, DatasetError> {
    let mut names = files.list()?;
    // What systems and archives put beside a data set's files: .DS_Store, __MACOSX/._a.xml.
    names.retain(|name| name.split('/').all(|part| !part.starts_with('.') && part != "__MACOSX"));
    let mut cases = match kind {
        Kind::Folder => folder::cases(files, &names, options)?,
        Kind::MonuSeg => monuseg::cases(&names, options)?,
        Kind::Glas => glas::cases(&names, options)?,
        Kind::Amos22 => amos22::cases(files, &names, options)?,
    };
    if cases.is_empty() {
        return Err(DatasetError::Layout { kind: kind.name(), expected: expected(kind), found: found(&names) });
    }
    cases.sort_by(|a, b| a.id.cmp(&b.id));
    let twins = cases.windows(2).find_map(|pair| match pair {
        [first, second] if first.id == second.id => Some((first.truth.clone(), second.truth.clone())),
        _ => None,
    });
    if let Some((first, second)) = twins {
        return Err(DatasetError::Ambiguous { role: "truth", first, second });
    }
    Ok(cases)
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Folder => {
            "images <id>.png, .jpg, .tif or .bmp with <id>_labels.png, <id>_labels.tif or <id>_mask.png, .tif, .bmp beside them; where \
             labels are cases of their own, one that is asked for and covers 0.5 % of its image"
        }
        Kind::MonuSeg => {
            "<id>.xml beside <id>.tif, or Annotations/<id>.xml beside Tissue Images/<id>.tif (in a folder with \"train\" in its name for \
             the training split, and only for it)"
        }
        Kind::Glas => "testA_1.bmp with testA_1_anno.bmp, or train_1.bmp with train_1_anno.bmp for the training split",
        Kind::Amos22 => {
            "labelsVa/amos_0008.nii.gz with imagesVa/amos_0008.nii.gz, or labelsTr with imagesTr for the training split, with a number of \
             at most 500 (CT), and in it an organ of 100 pixels on a slice"
        }
    }
}

/// How many files there are, and the first of them.
fn found(names: &[String]) -> String {
    const SHOWN: usize = 5;
    if names.is_empty() {
        return "no file".into();
    }
    let rest = if names.len() > SHOWN { ", ..." } else { "" };
    format!("{} files: {}{rest}", names.len(), names[..names.len().min(SHOWN)].join(", "))
}

/// A name's folder (without its last `/`, empty for the root) and the rest.
fn folder_and_file(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

/// A file within a folder, which may be the root.
fn inside(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}

/// A name without its extension, and the extension in lower case.
fn stem_and_extension(name: &str) -> Option<(&str, String)> {
    name.rsplit_once('.').map(|(stem, extension)| (stem, extension.to_lowercase()))
}
