use std::collections::BTreeSet;

use request::View;

use super::{Case, DatasetError, Options, Split, folder_and_file, inside};

/// `Annotations/<id>.xml` with `Tissue Images/<id>.tif`, as the training images come, or both side by side, as the test images do. What
/// lies in a folder with "train" in its name, which may be the data set's own folder, is the training split, everything else the test split.
pub(super) fn cases(names: &[String], options: &Options) -> Result<Vec<Case>, DatasetError> {
    let known: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut cases = Vec::new();
    for truth in names {
        let (folder, file) = folder_and_file(truth);
        let Some(id) = file.strip_suffix(".xml") else { continue };
        let split =
            if inside(&options.folder_name, folder).to_lowercase().contains("train") { Split::Train } else { Split::Test };
        if split != options.split {
            continue;
        }
        let (parent, last) = folder_and_file(folder);
        let image_folder = if last == "Annotations" { inside(parent, "Tissue Images") } else { folder.to_owned() };
        let image = inside(&image_folder, &format!("{id}.tif"));
        if !known.contains(image.as_str()) {
            return Err(DatasetError::NoImage { truth: truth.clone(), image });
        }
        let view = View { slice: None, window: options.window };
        cases.push(Case { id: id.to_owned(), group: "MoNuSeg".into(), image, truth: truth.clone(), label: None, view });
    }
    Ok(cases)
}
