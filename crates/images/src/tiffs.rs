//! TIFF, with the kinds of grey the image crate refuses: signed, 32-bit and floating-point.

use std::io::Cursor;

use image::RgbImage;
use request::Window;
use tiff::{
    ColorType, TiffError,
    decoder::{ChunkType, Decoder, DecodingResult, Limits, ifd::Value},
    tags::Tag,
};

use crate::{Format, ImageError, ImageLimits, flat, frame, shades::Plane};

/// As the file says it where its greatest numbers are black.
const WHITE_IS_ZERO: u16 = 0;
/// JPEG in each strip or tile.
const JPEG: u16 = 7;
/// A JPEG's sides may be filled up to this many pixels.
const JPEG_BLOCK: u32 = 16;

/// To 8-bit RGB.
pub fn decode(bytes: &[u8], window: Option<Window>, limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    let unusual = if is_usual(bytes, limits)? { None } else { numbers(bytes, limits)? };
    match unusual {
        Some(plane) => Ok(plane.into_rgb(window)),
        None => flat::decode(bytes, Format::Tiff, window, limits),
    }
}

/// Grey values; none of any other kind.
pub fn numbers(bytes: &[u8], limits: &ImageLimits) -> Result<Option<Plane>, ImageError> {
    let mut decoder = opened(bytes, limits)?;
    let (width, height) = decoder.dimensions().map_err(refusal)?;
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
pub fn white_is_zero(bytes: &[u8], limits: &ImageLimits) -> Result<bool, ImageError> {
    let photometric: Option<u16> = opened(bytes, limits)?.find_tag_unsigned(Tag::PhotometricInterpretation).map_err(refusal)?;
    Ok(photometric == Some(WHITE_IS_ZERO))
}

/// Whether the image crate reads it: grey of unsigned whole numbers of up to 16 bits.
fn is_usual(bytes: &[u8], limits: &ImageLimits) -> Result<bool, ImageError> {
    let mut decoder = opened(bytes, limits)?;
    let colour = decoder.colortype().map_err(refusal)?;
    let formats: Option<Vec<u16>> = decoder.find_tag_unsigned_vec(Tag::SampleFormat).map_err(refusal)?;
    let is_unsigned = formats.is_none_or(|formats| formats.iter().all(|&format| format == 1));
    Ok(is_unsigned && matches!(colour, ColorType::Gray(8 | 16)))
}

/// A decoder of the first page, after a look at what that would cost.
fn opened<'a>(bytes: &'a [u8], limits: &ImageLimits) -> Result<Decoder<Cursor<&'a [u8]>>, ImageError> {
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(refusal)?;
    let (width, height) = decoder.dimensions().map_err(refusal)?;
    limits.check_size(Format::Tiff, width, height)?;
    let colour = decoder.colortype().map_err(refusal)?;
    // Strips and tiles are decoded whole, however much of one lies outside the image.
    let (across, down) = match (decoder.get_chunk_type(), decoder.chunk_dimensions()) {
        (ChunkType::Strip, (across, rows)) => (across, rows.min(height)),
        (ChunkType::Tile, tile) => tile,
    };
    if across == 0 || down == 0 {
        return Err(Format::Tiff.damaged("its strips or tiles have no pixels"));
    }
    let filled_up = |size: u32, part: u32| u64::from(size.div_ceil(part)) * u64::from(part);
    let pixel_bits = u64::from(colour.num_samples()) * u64::from(colour.bit_depth());
    let pixels = filled_up(width, across).saturating_mul(filled_up(height, down));
    limits.check_decoded(pixels.saturating_mul(pixel_bits).div_ceil(8), bytes)?;
    check_jpegs(&mut decoder, bytes, [across, down])?;
    Ok(decoder)
}

/// Refuses JPEGs that say they are larger than the strips or tiles they are: their decoder would believe them.
fn check_jpegs(decoder: &mut Decoder<Cursor<&[u8]>>, bytes: &[u8], chunk: [u32; 2]) -> Result<(), ImageError> {
    if decoder.find_tag_unsigned(Tag::Compression).map_err(refusal)? != Some(JPEG) {
        return Ok(());
    }
    // They go before each of the JPEGs.
    let tables = decoder.find_tag(Tag::JPEGTables).map_err(refusal)?.map(Value::into_u8_vec).transpose().map_err(refusal)?;
    if tables.is_some_and(|tables| !frame::has_tables_alone(&tables)) {
        return Err(Format::Tiff.damaged("the tables of its JPEGs hold more than tables"));
    }
    let offsets = match decoder.get_chunk_type() {
        ChunkType::Strip => Tag::StripOffsets,
        ChunkType::Tile => Tag::TileOffsets,
    };
    let [most_width, most_height] = chunk.map(|size| u64::from(size).next_multiple_of(JPEG_BLOCK.into()));
    for offset in decoder.find_tag_unsigned_vec::<u64>(offsets).map_err(refusal)?.unwrap_or_default() {
        let jpeg = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).and_then(frame::header);
        if !jpeg.is_some_and(|jpeg| u64::from(jpeg.width) <= most_width && u64::from(jpeg.height) <= most_height) {
            return Err(Format::Tiff.damaged("a JPEG in it is larger than the strip or tile it should be"));
        }
    }
    Ok(())
}

fn refusal(error: TiffError) -> ImageError {
    match error {
        TiffError::UnsupportedError(error) => Format::Tiff.unsupported(error.to_string()),
        TiffError::LimitsExceeded => Format::Tiff.unsupported("it needs more memory than an image may"),
        error => Format::Tiff.damaged(error.to_string()),
    }
}
