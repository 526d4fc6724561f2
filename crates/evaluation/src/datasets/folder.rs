use std::collections::BTreeMap;

use images::decode_labels;
use request::View;
use serde::Deserialize;

use super::{Case, DatasetError, Files, Labels, Options, folder_and_file, inside, stem_and_extension};

const IMAGE_EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "tif", "tiff", "bmp"];
const TRUTH_EXTENSIONS: [&str; 4] = ["png", "tif", "tiff", "bmp"];
const TRUTH_SUFFIXES: [&str; 2] = ["_labels", "_mask"];

/// What a folder's labels are called, by value; it lies beside the images.
const NAMES_OF_LABELS: &str = "labels.json";

/// A label of a class map needs this share of the image's pixels to be a case, unless the options say otherwise.
const LEAST_SHARE: f64 = 0.005;

/// An image and its truth, by name.
struct Pair<'a> {
    /// Both names' common beginning.
    id: &'a str,
    image: &'a str,
    truth: &'a str,
}

/// Any folder of images with truths beside them; what pairs with nothing is left alone.
pub(super) fn cases(files: &dyn Files, names: &[String], options: &Options) -> Result<Vec<Case>, DatasetError> {
    let pairs = pairs(names)?;
    let view = View { slice: None, window: options.window };
    if options.labels == Labels::Together {
        let case = |pair: &Pair<'_>| Case {
            id: pair.id.to_owned(),
            group: group(pair.id),
            image: pair.image.to_owned(),
            truth: pair.truth.to_owned(),
            label: None,
            view,
        };
        return Ok(pairs.iter().map(case).collect());
    }
    let mut cases = Vec::new();
    let mut names_by_folder = BTreeMap::new();
    for pair in pairs {
        let folder = folder_and_file(pair.id).0;
        if !names_by_folder.contains_key(folder) {
            names_by_folder.insert(folder, names_of_labels(files, names, folder)?);
        }
        for label in labels(files, pair.truth, options)? {
            cases.push(Case {
                id: format!("{}_label_{label}", pair.id),
                group: match &names_by_folder[folder] {
                    Some(names) => names.get(&label).cloned().unwrap_or_else(|| format!("label {label}")),
                    None => group(pair.id),
                },
                image: pair.image.to_owned(),
                truth: pair.truth.to_owned(),
                label: Some(label),
                view,
            });
        }
    }
    Ok(cases)
}

/// The sub-folder's name; of the root, `images`.
fn group(id: &str) -> String {
    match folder_and_file(id).0 {
        "" => "images".into(),
        folder => folder.to_owned(),
    }
}

fn pairs(names: &[String]) -> Result<Vec<Pair<'_>>, DatasetError> {
    let (mut images, mut truths) = (BTreeMap::new(), BTreeMap::new());
    for name in names {
        let Some((stem, extension)) = stem_and_extension(name) else { continue };
        match TRUTH_SUFFIXES.iter().find_map(|suffix| stem.strip_suffix(suffix)) {
            Some(id) if TRUTH_EXTENSIONS.contains(&extension.as_str()) => add(&mut truths, id, name, "truth")?,
            None if IMAGE_EXTENSIONS.contains(&extension.as_str()) => add(&mut images, stem, name, "image")?,
            _ => {}
        }
    }
    Ok(truths.into_iter().filter_map(|(id, truth)| images.get(id).map(|&image| Pair { id, image, truth })).collect())
}

fn add<'a>(found: &mut BTreeMap<&'a str, &'a str>, id: &'a str, name: &'a str, role: &'static str) -> Result<(), DatasetError> {
    match found.insert(id, name) {
        None => Ok(()),
        Some(first) => Err(DatasetError::Ambiguous { role, first: first.into(), second: name.into() }),
    }
}

/// The labels of a truth that are cases of their own.
fn labels(files: &dyn Files, truth: &str, options: &Options) -> Result<Vec<u32>, DatasetError> {
    let map = decode_labels(&files.read(truth)?, None, &options.limits)
        .map_err(|reason| DatasetError::Truth { file: truth.into(), reason })?;
    let share = f64::from(map.width) * f64::from(map.height) * LEAST_SHARE;
    let least = options.least_pixels.unwrap_or(share.ceil() as u64).max(1);
    let is_wanted = |label: u32| match &options.labels {
        Labels::Only(wanted) => wanted.contains(&label),
        Labels::Together | Labels::Each => true,
    };
    let large = map.counts().into_iter().filter(|&(label, pixels)| label != 0 && pixels >= least && is_wanted(label));
    Ok(large.map(|(label, _)| label).collect())
}

/// `{"5": "liver"}` or `{"5": {"name": "liver", ...}}`.
#[derive(Deserialize)]
#[serde(untagged)]
enum NameOfLabel {
    Plain(String),
    Described { name: String },
}

fn names_of_labels(files: &dyn Files, names: &[String], folder: &str) -> Result<Option<BTreeMap<u32, String>>, DatasetError> {
    let file = inside(folder, NAMES_OF_LABELS);
    if !names.contains(&file) {
        return Ok(None);
    }
    let read: BTreeMap<u32, NameOfLabel> = serde_json::from_slice(&files.read(&file)?)
        .map_err(|error| DatasetError::Text { file, reason: format!("{error}; expected {{\"5\": \"liver\", ...}}") })?;
    let name = |name| match name {
        NameOfLabel::Plain(name) | NameOfLabel::Described { name } => name,
    };
    Ok(Some(read.into_iter().map(|(label, described)| (label, name(described))).collect()))
}
