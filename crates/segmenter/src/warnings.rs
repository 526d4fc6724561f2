//! What a user should know about an initial mask.

use image::GrayImage;
use request::Method;

use crate::{grid::Part, sam::Extent};

/// What is said where there is no initial mask and the method needs none.
pub const NO_INITIAL_MASK: &str = "the image looks the same everywhere to the model, so there is no initial mask to compare the answer \
                                   with, and it is shown empty; check that the image is not blank";

/// Why an initial mask is nothing to fine-tune towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    Empty,
    Full,
}

impl Unusable {
    /// Looks only at the part of the initial mask that is not padding.
    pub fn of(initial_mask: &GrayImage, extent: &Extent) -> Option<Self> {
        let Part { height, width } = Part::of_image(extent, i64::from(initial_mask.width()));
        let rows = initial_mask.rows().take(height as usize);
        let mut pixels = rows.flat_map(|row| row.take(width as usize)).map(|pixel| pixel.0[0] > 0);
        let first = pixels.next()?;
        match (first, pixels.all(|pixel| pixel == first)) {
            (_, false) => None,
            (false, true) => Some(Self::Empty),
            (true, true) => Some(Self::Full),
        }
    }

    /// For a method that builds on the initial mask.
    pub fn warning(self, method: Method) -> String {
        let consequence = match (method, self) {
            (Method::Finetuned, Self::Empty) => " the answer is this empty mask, not fine-tuned;",
            (Method::Finetuned, Self::Full) => " the answer is this full mask, not fine-tuned;",
            _ => "",
        };
        match self {
            Self::Empty => format!(
                "the initial mask is empty: the negative points resemble everything at least as much as the positive ones \
                 do;{consequence} check the points' labels or place them on clearer examples"
            ),
            Self::Full => format!(
                "the initial mask is the whole image: everything resembles the positive points;{consequence} \
                 add negative points on the background"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(foreground: impl Fn(u32, u32) -> bool) -> Option<Unusable> {
        // The image is the upper half of the square.
        let mask = GrayImage::from_fn(16, 16, |x, y| image::Luma([if foreground(x, y) { 255 } else { 0 }]));
        Unusable::of(&mask, &Extent::new(200, 100, 64))
    }

    #[test]
    fn an_initial_mask_that_says_nothing_within_the_image_is_no_target() {
        assert_eq!(verdict(|_, _| false), Some(Unusable::Empty));
        assert_eq!(verdict(|_, _| true), Some(Unusable::Full));
        assert_eq!(verdict(|_, y| y < 8), Some(Unusable::Full), "the padding does not count");
        assert_eq!(verdict(|_, y| y >= 8), Some(Unusable::Empty), "the padding does not count");
        assert_eq!(verdict(|x, y| (x, y) == (15, 7)), None);
        assert_eq!(verdict(|x, y| (x, y) != (0, 0)), None);
    }
}
