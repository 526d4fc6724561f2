use image::{Rgb, RgbImage};
use request::{Label, Point, Points};

use crate::paint::paint;

const GREEN: Rgb<u8> = Rgb([0, 160, 60]);
const RED: Rgb<u8> = Rgb([220, 20, 30]);
const WHITE: Rgb<u8> = Rgb([255, 255, 255]);
const BLACK: Rgb<u8> = Rgb([0, 0, 0]);

/// A dot's radius as a part of the image's longest side, and the least radius, in pixels, at which its sign can be read.
const RADIUS_PER_SIDE: f64 = 1.0 / 72.0;
const LEAST_RADIUS: f64 = 5.0;

/// The image with a green dot with a plus at each positive point and a red one with a minus at each negative point. A light
/// ring within a dark one keeps them visible on any ground.
pub fn with_dots(image: &RgbImage, points: &Points) -> RgbImage {
    let mut picture = image.clone();
    let radius = (f64::from(image.width().max(image.height())) * RADIUS_PER_SIDE).max(LEAST_RADIUS);
    for point in points.as_slice() {
        draw_dot(&mut picture, point, radius);
    }
    picture
}

fn draw_dot(picture: &mut RgbImage, point: &Point, radius: f64) {
    let fill = match point.label {
        Label::Positive => GREEN,
        Label::Negative => RED,
    };
    let ring = radius / 5.0;
    let reach = (radius + 2.0 * ring).ceil() as i64 + 1;
    let (column, row) = (point.x.floor() as i64, point.y.floor() as i64);
    if column - reach > i64::from(picture.width()) || row - reach > i64::from(picture.height()) {
        return;
    }
    for y in row - reach..=row + reach {
        for x in column - reach..=column + reach {
            // From the dot to the pixel's centre; half a pixel's fade at each border smooths the circles.
            let (right, down) = (x as f64 + 0.5 - point.x, y as f64 + 0.5 - point.y);
            let distance = right.hypot(down);
            let within = |border: f64| border - distance + 0.5;
            paint(picture, x, y, BLACK, within(radius + 2.0 * ring));
            paint(picture, x, y, WHITE, within(radius + ring));
            paint(picture, x, y, fill, within(radius));
            paint(picture, x, y, WHITE, sign_coverage(point.label, right.abs(), down.abs(), radius));
        }
    }
}

/// How much of the pixel at this distance right of and below the dot's centre its plus or minus covers.
fn sign_coverage(label: Label, right: f64, down: f64, radius: f64) -> f64 {
    let (arm, half_width) = (radius * 0.62, radius * 0.17);
    let bar = |along: f64, across: f64| (arm - along + 0.5).min(half_width - across + 0.5);
    match label {
        Label::Positive => bar(right, down).max(bar(down, right)),
        Label::Negative => bar(right, down),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(ground: u8, points: &str) -> RgbImage {
        with_dots(&RgbImage::from_pixel(720, 360, Rgb([ground; 3])), &points.parse().expect("valid"))
    }

    #[test]
    fn a_dot_is_where_its_point_is_and_nowhere_else() {
        let picture = drawn(128, "100,50,1");
        let drawn: Vec<(u32, u32)> =
            picture.enumerate_pixels().filter(|(_, _, pixel)| pixel.0 != [128; 3]).map(|(x, y, _)| (x, y)).collect();
        let (left, right) = (drawn.iter().map(|p| p.0).min(), drawn.iter().map(|p| p.0).max());
        let (top, bottom) = (drawn.iter().map(|p| p.1).min(), drawn.iter().map(|p| p.1).max());
        assert_eq!((left, right, top, bottom), (Some(86), Some(113), Some(36), Some(63)));
    }

    #[test]
    fn positive_is_green_with_a_plus_and_negative_red_with_a_minus() {
        let picture = drawn(128, "100,50,1;300,200,0");
        assert_eq!(picture.get_pixel(96, 46), &GREEN);
        assert_eq!(picture.get_pixel(296, 196), &RED);
        assert_eq!(picture.get_pixel(104, 50), &WHITE, "the bar across");
        assert_eq!(picture.get_pixel(304, 200), &WHITE, "the bar across");
        assert_eq!(picture.get_pixel(100, 54), &WHITE, "the bar down makes it a plus");
        assert_eq!(picture.get_pixel(300, 204), &RED, "a minus has no bar down");
    }

    #[test]
    fn a_dot_stands_out_from_every_ground() {
        for ground in [0, 128, 255] {
            let picture = drawn(ground, "100,50,1");
            let ring = |x: u32| u8::abs_diff(picture.get_pixel(x, 50).0[0], ground);
            assert!((110..115).map(ring).max() >= Some(120), "on {ground}");
        }
    }
}
