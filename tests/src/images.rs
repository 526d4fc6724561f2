use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma};

/// Bright discs on a dark, slightly textured ground; each seed another texture. The first disc's middle is at (24, 24), and (4, 4) is ground.
fn blobs(width: u32, height: u32, seed: u32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, y| {
        let texture = (x.wrapping_mul(31) ^ y.wrapping_mul(17) ^ seed.wrapping_mul(97)) % 23;
        let brightness = if is_disc(x, y) { 190 } else { 40 };
        Luma([(brightness + texture) as u8])
    })
}

/// The truth of the bright discs: 1 on them, 0 on the ground, as a grey PNG.
pub fn labels_of_blobs(width: u32, height: u32) -> Vec<u8> {
    let labels = GrayImage::from_fn(width, height, |x, y| Luma([u8::from(is_disc(x, y))]));
    encode(&DynamicImage::ImageLuma8(labels), ImageFormat::Png)
}

fn is_disc(x: u32, y: u32) -> bool {
    let (dx, dy) = (f64::from(x % 48) - 24.0, f64::from(y % 48) - 24.0);
    dx.hypot(dy) < 12.0
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("writing to memory cannot fail");
    bytes.into_inner()
}

/// Bright discs as a grey PNG.
pub fn png_of_blobs(width: u32, height: u32, seed: u32) -> Vec<u8> {
    encode(&DynamicImage::ImageLuma8(blobs(width, height, seed)), ImageFormat::Png)
}

/// Bright discs as an RGB PNG whose first pixel has this much red: see [`crate::quick`] for what that does to the quick worker.
pub fn png_that_begins_with(red: u8, seed: u32) -> Vec<u8> {
    let mut image = DynamicImage::ImageLuma8(blobs(48, 48, seed)).into_rgb8();
    image.get_pixel_mut(0, 0).0[0] = red;
    encode(&DynamicImage::ImageRgb8(image), ImageFormat::Png)
}

/// Bright discs as an RGB JPEG.
pub fn jpeg_of_blobs(width: u32, height: u32, seed: u32) -> Vec<u8> {
    encode(&DynamicImage::ImageRgb8(DynamicImage::ImageLuma8(blobs(width, height, seed)).into_rgb8()), ImageFormat::Jpeg)
}

/// Bright discs as a 16-bit TIFF that uses a sixteenth of its range, as microscopes write them.
pub fn tiff16_of_blobs(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let grey = blobs(width, height, seed);
    let deep = ImageBuffer::from_fn(width, height, |x, y| Luma([u16::from(grey.get_pixel(x, y).0[0]) * 16]));
    encode(&DynamicImage::ImageLuma16(deep), ImageFormat::Tiff)
}
