use image::GrayImage;

/// Intersection over union of two masks of one size; a pixel is foreground where it is above 127. Two empty masks agree: 1.
///
/// # Panics
/// If the sizes differ.
pub fn iou(a: &GrayImage, b: &GrayImage) -> f64 {
    let Overlap { intersection, a, b } = Overlap::of(a, b);
    let union = a + b - intersection;
    if union == 0 { 1.0 } else { intersection as f64 / union as f64 }
}

/// Dice coefficient of two masks of one size; a pixel is foreground where it is above 127. Two empty masks agree: 1.
///
/// # Panics
/// If the sizes differ.
pub fn dice(a: &GrayImage, b: &GrayImage) -> f64 {
    let Overlap { intersection, a, b } = Overlap::of(a, b);
    if a + b == 0 { 1.0 } else { 2.0 * intersection as f64 / (a + b) as f64 }
}

/// Pixels of foreground.
struct Overlap {
    intersection: u64,
    a: u64,
    b: u64,
}

impl Overlap {
    fn of(a: &GrayImage, b: &GrayImage) -> Self {
        assert_eq!(a.dimensions(), b.dimensions(), "masks of different sizes cannot be compared");
        let mut overlap = Self { intersection: 0, a: 0, b: 0 };
        for (&a, &b) in a.as_raw().iter().zip(b.as_raw()) {
            let (a, b) = (a > 127, b > 127);
            overlap.intersection += u64::from(a && b);
            overlap.a += u64::from(a);
            overlap.b += u64::from(b);
        }
        overlap
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "the ratios are of small counts")]

    use super::*;

    fn mask(pixels: [u8; 4]) -> GrayImage {
        GrayImage::from_raw(2, 2, pixels.to_vec()).unwrap()
    }

    #[test]
    fn counts_the_overlap_of_two_masks() {
        let (a, b) = (mask([255, 255, 0, 0]), mask([255, 0, 255, 0]));
        assert_eq!(iou(&a, &b), 1.0 / 3.0);
        assert_eq!(dice(&a, &b), 0.5);
        assert_eq!((iou(&a, &a), dice(&a, &a)), (1.0, 1.0));
    }

    #[test]
    fn empty_masks_agree_with_each_other_and_with_nothing_else() {
        let (empty, full) = (mask([0; 4]), mask([255; 4]));
        assert_eq!((iou(&empty, &empty), dice(&empty, &empty)), (1.0, 1.0));
        assert_eq!((iou(&empty, &full), dice(&empty, &full)), (0.0, 0.0));
    }
}
