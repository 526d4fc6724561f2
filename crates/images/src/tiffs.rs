//! TIFF, with the kinds of grey the image crate refuses: signed, 32-bit and floating-point.

use std::io::Cursor;

use image::RgbImage;
use request::Window;
use tiff::{
    ColorType, TiffError,
    decoder::{Decoder, DecodingResult, Limits},
    tags::Tag,
};

use crate::{Format, ImageError, ImageLimits, check_size, flat, shades::Plane};

/// As the file says it where its greatest numbers are black.
const WHITE_IS_ZERO: u16 = 0;

/// To 8-bit RGB.
pub fn decode(bytes: &[u8], window: Option<Window>, limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    let unusual = if is_usual(bytes)? { None } else { numbers(bytes, limits)? };
    match unusual {
        Some(plane) => Ok(plane.into_rgb(window)),
        None => flat::decode(bytes, Format::Tiff, window, limits),
    }
}

/// Grey values; none of any other kind.
pub fn numbers(bytes: &[u8], limits: &ImageLimits) -> Result<Option<Plane>, ImageError> {
    let mut decoder = opened(bytes)?;
    let (width, height) = decoder.dimensions().map_err(refusal)?;
    check_size(Format::Tiff, width, height, limits)?;
    let mut memory = Limits::default();
    memory.decoding_buffer_size = limits.pixels.saturating_mul(8) as usize;
    memory.intermediate_buffer_size = memory.decoding_buffer_size;
    decoder = decoder.with_limits(memory);
    if !matches!(decoder.colortype().map_err(refusal)?, ColorType::Gray(8 | 16 | 32 | 64)) {
        return Ok(None);
    }
    let values: Vec<f64> = match decoder.read_image().map_err(refusal)? {
        DecodingResult::U8(values) => values.into_iter().map(f64::from).collect(),
        DecodingResult::U16(values) => values.into_iter().map(f64::from).collect(),
        DecodingResult::U32(values) => values.into_iter().map(f64::from).collect(),
        DecodingResult::U64(values) => values.into_iter().map(|value| value as f64).collect(),
        DecodingResult::I8(values) => values.into_iter().map(f64::from).collect(),
        DecodingResult::I16(values) => values.into_iter().map(f64::from).collect(),
        DecodingResult::I32(values) => values.into_iter().map(f64::from).collect(),
        DecodingResult::I64(values) => values.into_iter().map(|value| value as f64).collect(),
        DecodingResult::F16(values) => values.into_iter().map(f64::from).collect(),
        DecodingResult::F32(values) => values.into_iter().map(f64::from).collect(),
        DecodingResult::F64(values) => values,
    };
    if values.len() as u64 != u64::from(width) * u64::from(height) {
        return Err(Format::Tiff.damaged("it has not as many values as pixels"));
    }
    Ok(Some(Plane { width, height, values }))
}

/// Whether its greatest numbers are black, so that they are no labels.
pub fn white_is_zero(bytes: &[u8]) -> Result<bool, ImageError> {
    let photometric: Option<u16> = opened(bytes)?.find_tag_unsigned(Tag::PhotometricInterpretation).map_err(refusal)?;
    Ok(photometric == Some(WHITE_IS_ZERO))
}

/// Whether the image crate reads it: grey of unsigned whole numbers of up to 16 bits.
fn is_usual(bytes: &[u8]) -> Result<bool, ImageError> {
    let mut decoder = opened(bytes)?;
    let colour = decoder.colortype().map_err(refusal)?;
    let formats: Option<Vec<u16>> = decoder.find_tag_unsigned_vec(Tag::SampleFormat).map_err(refusal)?;
    let is_unsigned = formats.is_none_or(|formats| formats.iter().all(|&format| format == 1));
    Ok(is_unsigned && matches!(colour, ColorType::Gray(8 | 16)))
}

fn opened(bytes: &[u8]) -> Result<Decoder<Cursor<&[u8]>>, ImageError> {
    Decoder::new(Cursor::new(bytes)).map_err(refusal)
}

fn refusal(error: TiffError) -> ImageError {
    match error {
        TiffError::UnsupportedError(error) => Format::Tiff.unsupported(error.to_string()),
        TiffError::LimitsExceeded => Format::Tiff.unsupported("it needs more memory than an image may"),
        error => Format::Tiff.damaged(error.to_string()),
    }
}
