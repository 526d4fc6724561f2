//! How far a mask is to be trusted, without knowing the truth.

use image::GrayImage;
use request::{Label, Point, Points};

/// Contradicted points that a warning names.
const MAX_NAMED: usize = 5;

/// The dots against a mask of the image's size.
pub struct Verdict<'a> {
    points: &'a Points,
    mask: &'a GrayImage,
}

impl<'a> Verdict<'a> {
    pub fn new(points: &'a Points, mask: &'a GrayImage) -> Self {
        Self { points, mask }
    }

    /// The share of the dots on whose side the mask is, from 0 to 1.
    pub fn agreement(&self) -> f64 {
        self.share(self.points.as_slice().iter())
    }

    /// From 0 to 1, for a reviewer to begin at the lower end: the geometric mean of the answer's IoU with the initial mask and of its
    /// agreement with the dots, the latter averaged over the labels, so that ten negative dots do not hide a missed positive one. The
    /// fine-tuning ends far from the initial mask where the image does not bear it out. A mask that is all foreground or
    /// all background says nothing about the image: 0.
    ///
    /// It is an order, no probability.
    pub fn confidence(&self, iou: f64) -> f64 {
        let foreground = self.mask.as_raw().iter().filter(|&&value| value > 0).count();
        if foreground == 0 || foreground == self.mask.as_raw().len() {
            return 0.0;
        }
        let positive = self.share(self.points.of(Label::Positive));
        let balanced = if self.points.of(Label::Negative).next().is_none() {
            positive
        } else {
            f64::midpoint(positive, self.share(self.points.of(Label::Negative)))
        };
        (iou * balanced).sqrt()
    }

    /// Which dots the mask contradicts, by number and place.
    pub fn contradictions(&self) -> Option<String> {
        let numbered = (1..).zip(self.points.as_slice());
        let contradicted: Vec<(u32, &Point)> = numbered.filter(|(_, point)| !self.agrees_with(point)).collect();
        if contradicted.is_empty() {
            return None;
        }
        let name = |(number, point): &(u32, &Point)| {
            let label = match point.label {
                Label::Positive => "positive",
                Label::Negative => "negative",
            };
            format!("point {number} ({label}, {},{})", point.x, point.y)
        };
        let named: Vec<String> = contradicted.iter().take(MAX_NAMED).map(name).collect();
        let rest = contradicted.len() - named.len();
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let (count, all) = (contradicted.len(), self.points.as_slice().len());
        let verb = if count == 1 { "is" } else { "are" };
        Some(format!("{count} of {all} points {verb} on the other side of the mask: {}{more}", named.join(", ")))
    }

    fn share<'b>(&self, points: impl Iterator<Item = &'b Point>) -> f64 {
        let (mut agreeing, mut all) = (0_u32, 0_u32);
        for point in points {
            agreeing += u32::from(self.agrees_with(point));
            all += 1;
        }
        f64::from(agreeing) / f64::from(all)
    }

    fn agrees_with(&self, point: &Point) -> bool {
        let is_foreground = self.mask.get_pixel(point.x as u32, point.y as u32).0[0] > 0;
        is_foreground == (point.label == Label::Positive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten by ten, its left half foreground.
    fn left_half() -> GrayImage {
        GrayImage::from_fn(10, 10, |x, _| image::Luma([if x < 5 { 255 } else { 0 }]))
    }

    #[test]
    fn names_at_most_five_contradicted_points() {
        let mask = left_half();
        let points: Points = "1,1,1;4.9,2,0;5,3,1".parse().unwrap();
        assert_eq!(
            Verdict::new(&points, &mask).contradictions().unwrap(),
            "2 of 3 points are on the other side of the mask: point 2 (negative, 4.9,2), point 3 (positive, 5,3)"
        );
        let points: Points = "9,0,1;9,1,1;9,2,1;9,3,1;9,4,1;9,5,1;9,6,1;1,1,1".parse().unwrap();
        let warning = Verdict::new(&points, &mask).contradictions().unwrap();
        assert!(warning.starts_with("7 of 8 points are") && warning.ends_with("point 5 (positive, 9,4) and 2 more"), "{warning}");
        assert_eq!(Verdict::new(&"1,1,1;9,9,0".parse().unwrap(), &mask).contradictions(), None);
    }

    #[test]
    fn agreement_counts_dots_and_confidence_weighs_labels_alike() {
        let mask = left_half();
        let points: Points = "9,0,1;9,1,0;9,2,0;9,3,0".parse().unwrap();
        let verdict = Verdict::new(&points, &mask);
        assert!((verdict.agreement() - 0.75).abs() < 1e-12);
        assert!((verdict.confidence(0.5) - 0.5).abs() < 1e-12, "the root of 0.5 * (0 + 1) / 2");
        let points: Points = "1,1,1;9,1,0".parse().unwrap();
        assert!((Verdict::new(&points, &mask).confidence(1.0) - 1.0).abs() < 1e-12);
        assert!(Verdict::new(&points, &mask).confidence(0.0).abs() < 1e-12);
    }

    #[test]
    fn a_mask_that_says_nothing_earns_no_confidence() {
        for value in [0, 255] {
            let mask = GrayImage::from_pixel(10, 10, image::Luma([value]));
            assert!(Verdict::new(&"1,1,1".parse().unwrap(), &mask).confidence(1.0).abs() < 1e-12);
        }
    }
}
