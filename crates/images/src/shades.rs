//! Values of any range to the 8 bits of a picture.

use image::RgbImage;
use request::Window;

/// One value a pixel, row by row, before it is decided what is black and what is white.
#[derive(Debug)]
pub struct Plane {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Width times height.
    pub values: Vec<f64>,
}

impl Plane {
    /// Greys by the window, else by the least and greatest value.
    pub fn into_rgb(self, window: Option<Window>) -> RgbImage {
        let range = window.map_or_else(|| Range::of(&self.values), Range::from);
        let pixels = self.values.iter().flat_map(|&value| [range.shade(value); 3]).collect();
        RgbImage::from_raw(self.width, self.height, pixels).expect("a plane has as many values as pixels")
    }
}

/// Which values become black and white.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    black: f64,
    white: f64,
}

impl Range {
    /// From black to white.
    pub fn new(black: f64, white: f64) -> Self {
        Self { black, white }
    }

    /// From the least to the greatest of the finite values.
    pub fn of(values: &[f64]) -> Self {
        let finite = values.iter().copied().filter(|value| value.is_finite());
        let (black, white) =
            finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, greatest), value| (least.min(value), greatest.max(value)));
        Self { black, white }
    }

    /// This value's shade; of a range without width, black up to it and white above. What is no number is black.
    pub fn shade(self, value: f64) -> u8 {
        let Self { black, white } = self;
        if value <= black || value.is_nan() {
            return 0;
        }
        if value >= white {
            return 255;
        }
        // Halves, because the width of a range of f64 need not be one.
        ((value / 2.0 - black / 2.0) / (white / 2.0 - black / 2.0) * 255.0).round() as u8
    }
}

impl From<Window> for Range {
    fn from(window: Window) -> Self {
        let (centre, half) = (window.centre(), window.width() / 2.0);
        Self { black: centre - half, white: centre + half }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_black_and_white_at_its_ends_and_grey_in_its_middle() {
        let range = Range::from(Window::new(40.0, 400.0).unwrap());
        let shades = [f64::NEG_INFINITY, -161.0, -160.0, 40.0, 240.0, 1e9, f64::NAN].map(|value| range.shade(value));
        assert_eq!(shades, [0, 0, 0, 128, 255, 255, 0]);
    }

    #[test]
    fn a_range_is_of_finite_values_and_may_be_as_wide_as_numbers_are() {
        let range = Range::of(&[f64::NAN, -f64::MAX, 0.0, f64::MAX, f64::INFINITY]);
        assert_eq!([-f64::MAX, 0.0, f64::MAX].map(|value| range.shade(value)), [0, 128, 255]);
        assert_eq!(Range::of(&[7.0; 3]).shade(7.0), 0, "a constant image is black");
        assert_eq!(Range::of(&[f64::NAN]).shade(f64::NAN), 0);
    }
}
