//! Bytes of a PNG, JPEG or TIFF to 8-bit RGB.

use std::{io::Cursor, panic};

use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::checkpoint::sha256;

/// What an image may cost; both are checked before it is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLimits {
    /// The file's size, in bytes.
    pub bytes: usize,
    /// Width times height, in pixels, read from the header.
    pub pixels: u64,
}

impl Default for ImageLimits {
    /// 256 MiB and 100 megapixels: a 10,000 x 10,000 image takes 300 MB decoded.
    fn default() -> Self {
        Self { bytes: 256 << 20, pixels: 100_000_000 }
    }
}

/// An image as the segmenter takes it.
#[derive(Debug, Clone)]
pub struct DecodedImage {
    /// The pixels, as they are stored: points refer to these.
    pub rgb: RgbImage,
    /// SHA-256 of the file's bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// `png`, `jpeg` or `tiff`.
    pub format: &'static str,
}

/// Why bytes are not an image this program takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// No bytes at all.
    #[error("the image is empty (0 bytes); upload it again")]
    Empty,
    /// Above [`ImageLimits::bytes`].
    #[error("the image has {bytes} bytes, expected at most {limit}; crop it or compress it")]
    TooManyBytes {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Above [`ImageLimits::pixels`].
    #[error("the image is {width} x {height} pixels, expected at most {limit} in all; crop it or scale it down")]
    TooManyPixels {
        /// From the header.
        width: u32,
        /// From the header.
        height: u32,
        /// The limit.
        limit: u64,
    },
    /// Bytes of another kind.
    #[error("the bytes are no image: {what}; expected PNG, JPEG or TIFF")]
    UnknownFormat {
        /// What they look like.
        what: String,
    },
    /// An image of a kind that is not read.
    #[error("this {format} cannot be read: {reason}; convert it to 8 or 16 bit grey or RGB")]
    Unsupported {
        /// `png`, `jpeg` or `tiff`.
        format: &'static str,
        /// What is special about it.
        reason: String,
    },
    /// Bytes that begin well and do not hold together.
    #[error("the {format} is damaged or cut short: {reason}; upload it again")]
    Damaged {
        /// `png`, `jpeg` or `tiff`.
        format: &'static str,
        /// What does not hold together.
        reason: String,
    },
}

/// Decodes a PNG, JPEG or TIFF of 8 or 16 bits: grey, grey with alpha, palette (PNG), RGB or RGBA. Of a TIFF, its first page.
///
/// - Grey is repeated on three channels; alpha is dropped, without blending.
/// - 16 bits become 8 by a window over all channels alike, from the 0.1 % to the 99.9 % percentile: such files seldom use their range.
/// - An EXIF orientation is not applied, for points are in pixels of the image as it is stored.
pub fn decode_image(bytes: &[u8], limits: &ImageLimits) -> Result<DecodedImage, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    if bytes.len() > limits.bytes {
        return Err(ImageError::TooManyBytes { bytes: bytes.len(), limit: limits.bytes });
    }
    let (format, name) = format_of(bytes)?;
    // The decoders are meant not to panic whatever the bytes, and have done so before.
    let decoded = panic::catch_unwind(|| decode(bytes, format, name, limits))
        .unwrap_or_else(|_| Err(ImageError::Damaged { format: name, reason: "its decoder gave up".into() }))?;
    Ok(DecodedImage { rgb: to_rgb8(decoded), sha256: sha256(bytes), format: name })
}

fn format_of(bytes: &[u8]) -> Result<(ImageFormat, &'static str), ImageError> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => Ok((ImageFormat::Png, "png")),
        Ok(ImageFormat::Jpeg) => Ok((ImageFormat::Jpeg, "jpeg")),
        Ok(ImageFormat::Tiff) => Ok((ImageFormat::Tiff, "tiff")),
        Ok(other) => Err(ImageError::UnknownFormat { what: format!("they begin like {}", other.to_mime_type()) }),
        Err(_) if bytes.get(128..132) == Some(b"DICM") => {
            Err(ImageError::UnknownFormat { what: "they begin like DICOM; export the slice with its window applied".into() })
        }
        Err(_) => Err(ImageError::UnknownFormat { what: "their beginning is of no known format".into() }),
    }
}

fn decode(bytes: &[u8], format: ImageFormat, name: &'static str, limits: &ImageLimits) -> Result<DynamicImage, ImageError> {
    let refuse = |error: image::ImageError| match error {
        image::ImageError::Unsupported(error) => ImageError::Unsupported { format: name, reason: error.to_string() },
        image::ImageError::Limits(error) => ImageError::Unsupported { format: name, reason: error.to_string() },
        error => ImageError::Damaged { format: name, reason: error.to_string() },
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut memory = Limits::default();
    // Eight bytes a pixel are RGBA in 16 bits, and decoders keep about as much again beside it.
    memory.max_alloc = Some(limits.pixels.saturating_mul(16).saturating_add(64 << 20));
    reader.limits(memory);
    let decoder = reader.into_decoder().map_err(refuse)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > limits.pixels {
        return Err(ImageError::TooManyPixels { width, height, limit: limits.pixels });
    }
    if width == 0 || height == 0 {
        return Err(ImageError::Damaged { format: name, reason: format!("its header says {width} x {height} pixels") });
    }
    match DynamicImage::from_decoder(decoder).map_err(refuse)? {
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => {
            Err(ImageError::Unsupported { format: name, reason: "its pixels are floating-point numbers".into() })
        }
        image => Ok(image),
    }
}

fn to_rgb8(image: DynamicImage) -> RgbImage {
    match image {
        DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageLumaA16(_)
        | DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgba16(_) => window(&image.into_rgb16()),
        image => image.into_rgb8(),
    }
}

/// 16 bits to 8 by a window between two percentiles of all channels' values; what is outside becomes black or white.
fn window(image: &ImageBuffer<image::Rgb<u16>, Vec<u16>>) -> RgbImage {
    let mut counts = vec![0_u64; 1 << 16];
    for &value in image.as_raw() {
        counts[usize::from(value)] += 1;
    }
    let total = image.as_raw().len() as u64;
    // The smallest value that at least `rank` values do not exceed.
    let percentile = |rank: u64| {
        let mut seen = 0;
        counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })
    };
    let low = percentile((total / 1_000).max(1)).unwrap_or(0) as f32;
    let high = percentile(total - total / 1_000).unwrap_or(0) as f32;
    let range = (high - low).max(1.0);
    let pixels = image.as_raw().iter().map(|&value| ((f32::from(value) - low) / range * 255.0).round().clamp(0.0, 255.0) as u8);
    RgbImage::from_raw(image.width(), image.height(), pixels.collect()).expect("as many values as the image it is made of")
}
