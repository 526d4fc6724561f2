use image::{GrayImage, Rgb, RgbImage};

const DARK: Rgb<u8> = Rgb([0, 0, 0]);

/// The image side, in pixels, for one pixel of line width.
const SIDE_PER_LINE_PIXEL: f64 = 512.0;

/// Distances are kept in thirds of a pixel: 3 to the pixel beside, 4 to the one across the corner (Borgefors 1986).
const BESIDE: u8 = 3;
const ACROSS: u8 = 4;

/// The image with a line of this colour, edged dark, along the mask's boundary: the mask's own outermost pixels. A mask pixel
/// is one above 127; the image's edge counts as boundary; what a smaller mask doesn't cover is outside it.
pub fn with_contour(image: &RgbImage, mask: &GrayImage, color: Rgb<u8>) -> RgbImage {
    let mut picture = image.clone();
    let line_width = (f64::from(image.width().max(image.height())) / SIDE_PER_LINE_PIXEL).clamp(1.0, 30.0);
    let line_reach = f64::from(BESIDE) * (line_width / 2.0);
    let edge_reach = line_reach + f64::from(BESIDE) * (line_width / 2.0).max(1.0);
    let distances = distances_to_boundary(image.width(), image.height(), mask);
    for (pixel, distance) in picture.pixels_mut().zip(distances) {
        let distance = f64::from(distance);
        if distance <= line_reach {
            *pixel = color;
        } else if distance <= edge_reach {
            *pixel = DARK;
        }
    }
    picture
}

/// For each pixel, row by row, the distance to the nearest boundary pixel in thirds of a pixel; 255 is that far or farther.
fn distances_to_boundary(width: u32, height: u32, mask: &GrayImage) -> Vec<u8> {
    let inside = |x: u32, y: u32| x < width && y < height && mask.get_pixel_checked(x, y).is_some_and(|pixel| pixel.0[0] > 127);
    let is_boundary = |x: u32, y: u32| {
        // Left of 0 wraps to the largest number, which is outside too.
        let beside = [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)];
        inside(x, y) && !beside.into_iter().all(|(x, y)| inside(x, y))
    };
    let mut distances: Vec<u8> =
        (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| if is_boundary(x, y) { 0 } else { 255 }).collect();

    // Down with the neighbours above and left, then up with those below and right.
    let (width, height) = (width as usize, height as usize);
    for y in 0..height {
        for x in 0..width {
            let here = y * width + x;
            let mut least = distances[here];
            if x > 0 {
                least = least.min(distances[here - 1].saturating_add(BESIDE));
            }
            if y > 0 {
                least = least.min(least_of_row(&distances[here - x - width..here - x], x));
            }
            distances[here] = least;
        }
    }
    for y in (0..height).rev() {
        for x in (0..width).rev() {
            let here = y * width + x;
            let mut least = distances[here];
            if x + 1 < width {
                least = least.min(distances[here + 1].saturating_add(BESIDE));
            }
            if y + 1 < height {
                least = least.min(least_of_row(&distances[here - x + width..here - x + 2 * width], x));
            }
            distances[here] = least;
        }
    }
    distances
}

/// The shortest way to the boundary through the three nearest pixels of a neighbouring row.
fn least_of_row(row: &[u8], x: usize) -> u8 {
    let mut least = row[x].saturating_add(BESIDE);
    if x > 0 {
        least = least.min(row[x - 1].saturating_add(ACROSS));
    }
    if x + 1 < row.len() {
        least = least.min(row[x + 1].saturating_add(ACROSS));
    }
    least
}

#[cfg(test)]
mod tests {
    use image::Luma;

    use super::*;

    const CYAN: Rgb<u8> = Rgb([0, 255, 255]);
    const GROUND: Rgb<u8> = Rgb([90, 90, 90]);

    fn disc(x: u32, y: u32) -> bool {
        (f64::from(x) - 50.0).hypot(f64::from(y) - 40.0) < 20.0
    }

    fn mask_of(width: u32, height: u32, inside: impl Fn(u32, u32) -> bool) -> GrayImage {
        GrayImage::from_fn(width, height, |x, y| Luma([if inside(x, y) { 255 } else { 0 }]))
    }

    #[test]
    fn the_line_is_the_masks_outermost_pixels() {
        let picture = with_contour(&RgbImage::from_pixel(100, 80, GROUND), &mask_of(100, 80, disc), CYAN);
        for (x, y, pixel) in picture.enumerate_pixels() {
            let outermost = disc(x, y) && !(disc(x - 1, y) && disc(x + 1, y) && disc(x, y - 1) && disc(x, y + 1));
            assert_eq!(*pixel == CYAN, outermost, "at {x}, {y}");
        }
    }

    #[test]
    fn the_line_is_edged_dark_on_both_sides() {
        let picture = with_contour(&RgbImage::from_pixel(100, 80, GROUND), &mask_of(100, 80, disc), CYAN);
        let across: Vec<Rgb<u8>> = (28..34).map(|x| *picture.get_pixel(x, 40)).collect();
        assert_eq!(across, [GROUND, GROUND, DARK, CYAN, DARK, GROUND]);
    }

    #[test]
    fn an_empty_mask_draws_nothing_and_a_full_one_a_frame() {
        let image = RgbImage::from_pixel(30, 20, GROUND);
        assert_eq!(with_contour(&image, &GrayImage::new(30, 20), CYAN), image);
        let framed = with_contour(&image, &mask_of(30, 20, |_, _| true), CYAN);
        assert_eq!((framed.get_pixel(0, 7), framed.get_pixel(29, 19), framed.get_pixel(15, 10)), (&CYAN, &CYAN, &GROUND));
    }

    #[test]
    fn the_line_grows_with_the_image() {
        let picture = with_contour(&RgbImage::new(4_096, 16), &mask_of(4_096, 16, |x, _| x < 2_000), CYAN);
        let width = (1_900..2_100).filter(|&x| picture.get_pixel(x, 8) == &CYAN).count();
        assert_eq!(width, 9, "8 pixels for 4096, and the middle one");
    }
}
