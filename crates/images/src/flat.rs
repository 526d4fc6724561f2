//! PNG, JPEG, BMP and the usual kinds of TIFF.

use std::io::Cursor;

use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};
use request::Window;

use crate::{Format, ImageError, ImageLimits, shades::Range};

/// To 8-bit RGB.
pub fn decode(bytes: &[u8], format: Format, window: Option<Window>, limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    match read(bytes, format, limits)? {
        image @ (DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageLumaA16(_)
        | DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgba16(_)) => {
            let deep = image.into_rgb16();
            let range = window.map_or_else(|| used_range(deep.as_raw()), Range::from);
            Ok(shaded(&deep, range))
        }
        image @ (DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_)) => {
            let deep = image.into_rgb32f();
            let values: Vec<f64> = deep.as_raw().iter().copied().map(f64::from).collect();
            Ok(shaded(&deep, window.map_or_else(|| Range::of(&values), Range::from)))
        }
        image => Ok(match window {
            None => image.into_rgb8(),
            Some(window) => shaded(&image.into_rgb8(), window.into()),
        }),
    }
}

/// As it is stored, after a look at its size.
pub fn read(bytes: &[u8], format: Format, limits: &ImageLimits) -> Result<DynamicImage, ImageError> {
    let kind = match format {
        Format::Jpeg => ImageFormat::Jpeg,
        Format::Tiff => ImageFormat::Tiff,
        Format::Bmp => ImageFormat::Bmp,
        _ => ImageFormat::Png,
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), kind);
    let mut memory = Limits::default();
    // Eight bytes a pixel are RGBA in 16 bits, and decoders keep about as much again beside it.
    memory.max_alloc = Some(limits.pixels.saturating_mul(16).saturating_add(64 << 20));
    reader.limits(memory);
    from_decoder(reader.into_decoder().map_err(|error| refusal(format, error))?, format, bytes, limits)
}

/// Decodes after a look at the size. `file` is what the decoder reads.
pub fn from_decoder(
    decoder: impl ImageDecoder,
    format: Format,
    file: &[u8],
    limits: &ImageLimits,
) -> Result<DynamicImage, ImageError> {
    let (width, height) = decoder.dimensions();
    limits.check_size(format, width, height)?;
    limits.check_decoded(decoder.total_bytes(), file)?;
    DynamicImage::from_decoder(decoder).map_err(|error| refusal(format, error))
}

/// What the decoder of a format says, in our words.
pub fn refusal(format: Format, error: image::ImageError) -> ImageError {
    match error {
        image::ImageError::Unsupported(error) => format.unsupported(error.to_string()),
        image::ImageError::Limits(error) => format.unsupported(error.to_string()),
        error => format.damaged(error.to_string()),
    }
}

fn shaded<T: image::Primitive + Into<f64>>(image: &ImageBuffer<Rgb<T>, Vec<T>>, range: Range) -> RgbImage
where
    Rgb<T>: image::Pixel<Subpixel = T>,
{
    let pixels = image.as_raw().iter().map(|&value| range.shade(value.into())).collect();
    RgbImage::from_raw(image.width(), image.height(), pixels).expect("as many values as the image it is made of")
}

/// Between two percentiles of all channels' values.
fn used_range(values: &[u16]) -> Range {
    let mut counts = vec![0_u64; 1 << 16];
    for &value in values {
        counts[usize::from(value)] += 1;
    }
    let total = values.len() as u64;
    // The smallest value that at least `rank` values do not exceed.
    let percentile = |rank: u64| {
        let mut seen = 0;
        let value = counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        value.unwrap_or(0) as f64
    };
    Range::new(percentile((total / 1_000).max(1)), percentile(total - total / 1_000))
}
