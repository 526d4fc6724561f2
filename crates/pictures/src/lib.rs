//! Pictures for people: dots and masks drawn on an image, images laid out beside each other with captions, and an evaluation's
//! figures.
//!
//! Pure functions over the `image` crate's buffers. Whatever they are given, they draw what lies inside the picture and leave
//! out the rest: no size, no point and no mask makes them fail.

mod contour;
mod dots;
mod grid;
mod paint;
mod panels;
mod scatter;
mod text;

use image::{GrayImage, Rgb, RgbImage};
use request::Points;

pub use contour::with_contour;
pub use dots::with_dots;
pub use grid::{Cell, GridRow, grid};
pub use panels::{Panel, row, sheet};
pub use scatter::{ScatterPanel, scatter};

/// Cyan: far from tissue, stains, and from the dots' green and red.
pub const CONTOUR_COLOR: Rgb<u8> = Rgb([0, 255, 255]);

/// The image with every object's contour in [`CONTOUR_COLOR`] and all dots above them. A mask has the image's size.
pub fn overlay(image: &RgbImage, objects: &[(&Points, &GrayImage)]) -> RgbImage {
    let contours = objects.iter().fold(image.clone(), |picture, (_, mask)| with_contour(&picture, mask, CONTOUR_COLOR));
    objects.iter().fold(contours, |picture, (points, _)| with_dots(&picture, points))
}

#[cfg(test)]
mod tests {
    use image::Luma;

    use super::*;

    #[test]
    fn overlay_shows_the_dots_above_the_contour() {
        let image = RgbImage::new(64, 64);
        let mask = GrayImage::from_fn(64, 64, |x, _| Luma([if x < 32 { 255 } else { 0 }]));
        let points: Points = "31,32,1".parse().expect("valid");
        let (elsewhere, right) =
            ("60,4,1".parse().expect("valid"), GrayImage::from_fn(64, 64, |x, _| Luma([u8::from(x > 48) * 255])));
        let overlay = overlay(&image, &[(&points, &mask), (&elsewhere, &right)]);
        assert_eq!(overlay.get_pixel(31, 60), &CONTOUR_COLOR);
        assert_eq!(overlay.get_pixel(49, 60), &CONTOUR_COLOR, "the other object's");
        assert_ne!(overlay.get_pixel(31, 32), &CONTOUR_COLOR);
    }

    #[test]
    fn draws_on_images_of_every_size_and_at_every_edge() {
        for (width, height) in [(0, 0), (1, 1), (2, 1), (1, 300), (300, 1), (33, 17)] {
            let image = RgbImage::new(width, height);
            let (right, bottom) = (f64::from(width.max(1)) - 0.01, f64::from(height.max(1)) - 0.01);
            let points: Points = format!("0,0,1;{right},0,0;0,{bottom},1;{right},{bottom},0;1e9,1e9,1").parse().expect("valid");
            let full = GrayImage::from_pixel(width, height, Luma([255]));
            for mask in [GrayImage::new(width, height), full, GrayImage::new(1, 1)] {
                let picture = overlay(&image, &[(&points, &mask), (&points, &mask)]);
                assert_eq!(picture.dimensions(), (width, height));
                sheet(&[("row".into(), row(&[Panel { caption: "a".into(), picture }], 40))]);
            }
        }
    }
}
