use std::collections::BTreeSet;

use request::View;

use super::{Case, DatasetError, Options, Split, folder_and_file};

/// `<part>_<number>.bmp` with `<part>_<number>_anno.bmp`, whose labels are glands, at any depth. The paper tests on testA and testB.
pub(super) fn cases(names: &[String], options: &Options) -> Result<Vec<Case>, DatasetError> {
    let known: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut cases = Vec::new();
    for truth in names {
        let Some(stem) = truth.strip_suffix("_anno.bmp") else { continue };
        let id = folder_and_file(stem).1;
        let is_wanted = match id.split_once('_') {
            Some(("testA" | "testB", _)) => options.split == Split::Test,
            Some(("train", _)) => options.split == Split::Train,
            _ => false,
        };
        if !is_wanted {
            continue;
        }
        let image = format!("{stem}.bmp");
        if !known.contains(image.as_str()) {
            return Err(DatasetError::NoImage { truth: truth.clone(), image });
        }
        let view = View { slice: None, window: options.window };
        cases.push(Case { id: id.to_owned(), group: "GlaS".into(), image, truth: truth.clone(), label: None, view });
    }
    Ok(cases)
}
