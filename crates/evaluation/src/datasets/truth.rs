use std::collections::BTreeSet;

use image::GrayImage;
use images::{ImageLimits, decode_labels};

use super::{Case, DatasetError, outlines, stem_and_extension};

/// The truth of a case: 255 where its object is, at the image's size. `bytes` are a label map, or, if the file's name ends in `.xml`,
/// outlines of `Aperio ImageScope`. `image_size` is width and height in pixels.
pub fn truth(
    bytes: &[u8],
    file_name: &str,
    case: &Case,
    image_size: (u32, u32),
    limits: &ImageLimits,
) -> Result<GrayImage, DatasetError> {
    let file = file_name.to_owned();
    let empty = |what: String| Err(DatasetError::Empty { file: file_name.to_owned(), what });
    if stem_and_extension(file_name).is_some_and(|(_, extension)| extension == "xml") {
        let mask = outlines::mask(bytes, image_size, limits).map_err(|reason| DatasetError::Text { file, reason })?;
        return if is_empty(&mask) { empty("no outline has a pixel of the image inside".into()) } else { Ok(mask) };
    }
    let map =
        decode_labels(bytes, case.view.slice, limits).map_err(|reason| DatasetError::Truth { file: file.clone(), reason })?;
    if (map.width, map.height) != image_size {
        let (image_width, image_height) = image_size;
        return Err(DatasetError::Size { file, width: map.width, height: map.height, image_width, image_height });
    }
    let mask = map.mask(case.label);
    if !is_empty(&mask) {
        return Ok(mask);
    }
    match case.label {
        None => empty("every pixel has label 0".into()),
        Some(label) => {
            let labels: Vec<String> = first_labels(&map.values).iter().map(u32::to_string).collect();
            empty(format!("label {label} does not occur, its labels are {}", labels.join(", ")))
        }
    }
}

/// The smallest ones: each pixel may have one of its own.
fn first_labels(values: &[u32]) -> BTreeSet<u32> {
    const SHOWN: usize = 20;
    let mut labels = BTreeSet::new();
    for &value in values {
        if labels.insert(value) && labels.len() > SHOWN {
            labels.pop_last();
        }
    }
    labels
}

fn is_empty(mask: &GrayImage) -> bool {
    mask.iter().all(|&pixel| pixel == 0)
}
