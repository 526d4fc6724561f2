use image::GrayImage;

/// How well a mask agrees with the truth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Dice coefficient, from 0 to 1.
    pub dice: f64,
    /// Intersection over union, from 0 to 1.
    pub iou: f64,
}

/// Why a mask cannot be scored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// Masks of different images.
    #[error(
        "the mask is {mask_width} x {mask_height} pixels and the truth {truth_width} x {truth_height}; score masks at the image's own size"
    )]
    Size {
        /// In pixels.
        mask_width: u32,
        /// In pixels.
        mask_height: u32,
        /// In pixels.
        truth_width: u32,
        /// In pixels.
        truth_height: u32,
    },
    /// Nothing to find, so nothing to score by.
    #[error("the truth has no foreground pixel; leave this image out")]
    EmptyTruth,
}

/// Dice and IoU of a mask against the truth; a pixel is foreground where it is above 127.
pub fn scores(mask: &GrayImage, truth: &GrayImage) -> Result<Scores, ScoreError> {
    Ok(Counts::of(mask, None, truth)?.scores())
}

/// Dice coefficient of a mask against the truth; a pixel is foreground where it is above 127.
pub fn dice(mask: &GrayImage, truth: &GrayImage) -> Result<f64, ScoreError> {
    Ok(scores(mask, truth)?.dice)
}

/// Intersection over union of a mask and the truth; a pixel is foreground where it is above 127.
pub fn iou(mask: &GrayImage, truth: &GrayImage) -> Result<f64, ScoreError> {
    Ok(scores(mask, truth)?.iou)
}

/// Dice and IoU as the published code counts them (`get_dice_ji`): it up-samples a binary map and then counts only the pixels that are
/// still exactly 0 or 1, so the boundary, where the errors are, is left out. `undecided` is above 127 at the pixels it drops. Where
/// nothing is left to count both are 0, as there.
pub fn published_scores(mask: &GrayImage, undecided: &GrayImage, truth: &GrayImage) -> Result<Scores, ScoreError> {
    Ok(Counts::of(mask, Some(undecided), truth)?.scores())
}

/// Pixels.
#[derive(Default)]
struct Counts {
    true_positive: u64,
    false_positive: u64,
    false_negative: u64,
}

impl Counts {
    fn of(mask: &GrayImage, undecided: Option<&GrayImage>, truth: &GrayImage) -> Result<Self, ScoreError> {
        for mask in [Some(mask), undecided].into_iter().flatten() {
            if mask.dimensions() != truth.dimensions() {
                let ((mask_width, mask_height), (truth_width, truth_height)) = (mask.dimensions(), truth.dimensions());
                return Err(ScoreError::Size { mask_width, mask_height, truth_width, truth_height });
            }
        }
        if !truth.iter().copied().any(is_foreground) {
            return Err(ScoreError::EmptyTruth);
        }
        let mut counts = Self::default();
        for (index, (&mask, &truth)) in mask.iter().zip(truth.iter()).enumerate() {
            if undecided.is_some_and(|undecided| is_foreground(undecided.as_raw()[index])) {
                continue;
            }
            let (mask, truth) = (is_foreground(mask), is_foreground(truth));
            counts.true_positive += u64::from(mask && truth);
            counts.false_positive += u64::from(mask && !truth);
            counts.false_negative += u64::from(!mask && truth);
        }
        Ok(counts)
    }

    fn scores(&self) -> Scores {
        let union = self.true_positive + self.false_positive + self.false_negative;
        if union == 0 {
            return Scores { dice: 0.0, iou: 0.0 };
        }
        Scores {
            dice: 2.0 * self.true_positive as f64 / (union + self.true_positive) as f64,
            iou: self.true_positive as f64 / union as f64,
        }
    }
}

/// Masks are 0 and 255.
pub(crate) fn is_foreground(pixel: u8) -> bool {
    pixel > 127
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(pixels: [u8; 4]) -> GrayImage {
        GrayImage::from_raw(2, 2, pixels.to_vec()).unwrap()
    }

    #[test]
    fn counts_the_overlap_of_two_masks() {
        let (a, b) = (mask([255, 255, 0, 0]), mask([255, 0, 255, 0]));
        assert_eq!(scores(&a, &b), Ok(Scores { dice: 0.5, iou: 1.0 / 3.0 }));
        assert_eq!((dice(&a, &a), iou(&a, &a)), (Ok(1.0), Ok(1.0)));
        assert_eq!((dice(&mask([0; 4]), &a), iou(&mask([0; 4]), &a)), (Ok(0.0), Ok(0.0)));
    }

    #[test]
    fn the_published_count_drops_undecided_pixels_from_every_count() {
        let (mask_, truth) = (mask([255, 255, 0, 0]), mask([255, 0, 255, 0]));
        let published = |undecided| published_scores(&mask_, &mask(undecided), &truth).unwrap();
        assert_eq!(published([0; 4]), Scores { dice: 0.5, iou: 1.0 / 3.0 });
        assert_eq!(published([0, 255, 0, 0]), Scores { dice: 2.0 / 3.0, iou: 0.5 }, "a false positive is dropped");
        assert_eq!(published([0, 255, 255, 0]), Scores { dice: 1.0, iou: 1.0 }, "a false negative is dropped");
        assert_eq!(published([255, 255, 255, 0]), Scores { dice: 0.0, iou: 0.0 }, "nothing is left");
    }

    #[test]
    fn masks_of_two_sizes_are_an_error_that_names_both() {
        let (small, large) = (mask([255; 4]), GrayImage::new(3, 2));
        let error = scores(&large, &small).unwrap_err().to_string();
        assert!(error.contains("3 x 2") && error.contains("2 x 2"), "{error}");
        assert!(published_scores(&small, &large, &small).is_err());
    }

    #[test]
    fn an_empty_truth_is_an_error_and_no_number() {
        assert_eq!(scores(&mask([255; 4]), &mask([0; 4])), Err(ScoreError::EmptyTruth));
        assert_eq!(published_scores(&mask([0; 4]), &mask([0; 4]), &mask([0; 4])), Err(ScoreError::EmptyTruth));
    }
}
