use image::{Rgb, RgbImage};

/// Mixes a colour into one pixel: a coverage of 0 leaves it as it is, 1 replaces it. Outside the image nothing happens.
pub(crate) fn paint(image: &mut RgbImage, x: i64, y: i64, color: Rgb<u8>, coverage: f64) {
    let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
    let Some(pixel) = image.get_pixel_mut_checked(x, y) else { return };
    let coverage = coverage.clamp(0.0, 1.0);
    for (below, above) in pixel.0.iter_mut().zip(color.0) {
        *below = (f64::from(*below) * (1.0 - coverage) + f64::from(above) * coverage).round() as u8;
    }
}
