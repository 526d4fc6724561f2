use std::collections::{BTreeMap, BTreeSet};

use images::label_slices;
use request::{View, Window};

use super::{Case, DatasetError, Files, Options, Split, folder_and_file, inside};

/// The organs of the paper's table 1 in its order, which is that of the labels from 1. AMOS22's label 15, prostate or uterus, is not in
/// the table.
pub const ORGANS: [&str; 14] = [
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "postcava",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
    "duodenum",
    "bladder",
];

/// Volumes with higher numbers are MRI; the paper's are CT.
const LAST_CT: u32 = 500;

/// See [`Options::least_pixels`].
const LEAST_PIXELS: u64 = 100;

/// Soft tissue, in Hounsfield units: centre and width.
const SOFT_TISSUE: [f64; 2] = [40.0, 400.0];

/// Every organ on every axial slice of the CT volumes that shows enough of it: `labels<part>/amos_<number>.nii.gz` with
/// `images<part>/amos_<number>.nii.gz`, part Tr for training, Va or Ts for testing.
pub(super) fn cases(files: &dyn Files, names: &[String], options: &Options) -> Result<Vec<Case>, DatasetError> {
    let known: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let soft_tissue = Window::try_from(SOFT_TISSUE).expect("a width above zero");
    let window = Some(options.window.unwrap_or(soft_tissue));
    let mut cases = Vec::new();
    for truth in names {
        let Some(Volume { name, image }) = volume(truth, options.split) else { continue };
        if !known.contains(image.as_str()) {
            return Err(DatasetError::NoImage { truth: truth.clone(), image });
        }
        let slices = label_slices(&files.read(truth)?, &options.limits)
            .map_err(|reason| DatasetError::Truth { file: truth.clone(), reason })?;
        for (label, organ) in (1..).zip(ORGANS) {
            for slice in slices_of(label, &slices, options) {
                cases.push(Case {
                    id: format!("{name}_slice_{slice:03}_{}", organ.replace(' ', "_")),
                    group: organ.into(),
                    image: image.clone(),
                    truth: truth.clone(),
                    label: Some(label),
                    view: View { slice: Some(slice), window },
                });
            }
        }
    }
    Ok(cases)
}

struct Volume<'a> {
    /// `amos_<number>`
    name: &'a str,
    image: String,
}

/// What a file of labels belongs to, if it is one of the split's, and of CT.
fn volume(truth: &str, split: Split) -> Option<Volume<'_>> {
    let (folder, file) = folder_and_file(truth);
    let (parent, last) = folder_and_file(folder);
    let part = last.strip_prefix("labels")?;
    let is_wanted = match split {
        Split::Test => matches!(part, "Va" | "Ts"),
        Split::Train => part == "Tr",
    };
    let name = file.strip_suffix(".nii.gz")?;
    let number: u32 = name.strip_prefix("amos_")?.parse().ok()?;
    (is_wanted && number <= LAST_CT).then(|| Volume { name, image: inside(parent, &format!("images{part}/{file}")) })
}

/// The slices on which a label is large enough, or as many of them as are wanted, evenly spread.
fn slices_of(label: u32, slices: &[BTreeMap<u32, u64>], options: &Options) -> Vec<u32> {
    let least = options.least_pixels.unwrap_or(LEAST_PIXELS).max(1);
    let pixels = |slice: &BTreeMap<u32, u64>| slice.get(&label).copied().unwrap_or(0);
    let large: Vec<u32> = (0..).zip(slices).filter(|(_, slice)| pixels(slice) >= least).map(|(slice, _)| slice).collect();
    let count = options.most_slices.unwrap_or(large.len()).min(large.len());
    // The middle slice of each of `count` equal stretches.
    (0..count).map(|stretch| large[(2 * stretch + 1) * large.len() / (2 * count)]).collect()
}
