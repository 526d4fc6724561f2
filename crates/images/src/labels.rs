//! Truth files: a whole number a pixel, 0 for the background.

use std::{collections::BTreeMap, io::Cursor};

use image::{
    DynamicImage, ExtendedColorType, GrayImage, ImageDecoder,
    codecs::{bmp::BmpDecoder, png::PngDecoder},
};

use crate::{Format, ImageError, ImageLimits, caught, flat, nifti, shades::Plane, tiffs};

/// The most labels that are counted, of all slices together: a volume of numbers that are no labels would take more memory than itself.
const MAX_LABELS: usize = 1 << 20;

/// A label for each pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Row by row; 0 is the background.
    pub values: Vec<u32>,
}

impl LabelMap {
    /// 255 where this label is, or any label but 0 if none is named; else 0.
    pub fn mask(&self, label: Option<u32>) -> GrayImage {
        let is_meant = |value: u32| label.map_or(value != 0, |label| value == label);
        let pixels = self.values.iter().map(|&value| if is_meant(value) { 255 } else { 0 }).collect();
        GrayImage::from_raw(self.width, self.height, pixels).expect("a label map has as many values as pixels")
    }

    /// How many pixels each label has, the background too.
    pub fn counts(&self) -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        count(&self.values, &mut counts);
        counts
    }
}

/// Reads the labels of a truth file.
///
/// - PNG: 8 or 16 bit grey, or colours that are all grey. BMP: grey values, or places in the palette. TIFF: 8, 16 or 32 bit
///   grey. A black-and-white file has the labels 0 and 255.
/// - NIfTI: one axial slice, turned like the image; scaled values must be whole numbers.
/// - JPEG changes values and DICOM seldom stores labels this way: both are refused.
pub fn decode_labels(bytes: &[u8], slice: Option<u32>, limits: &ImageLimits) -> Result<LabelMap, ImageError> {
    let format = Format::of(bytes, limits)?;
    caught(format, || {
        if format != Format::Nifti {
            format.without_slices(slice)?;
        }
        match format {
            Format::Nifti => from_plane(format, &nifti::Volume::open(bytes, limits)?.slice(slice)?),
            Format::Tiff => from_tiff(bytes, limits),
            Format::Png => from_png(bytes, limits),
            Format::Bmp => from_bmp(bytes, limits),
            Format::Jpeg => Err(not_labels(format, "its compression changes values")),
            Format::Dicom => Err(not_labels(format, "labels are not read from DICOM")),
        }
    })
}

/// For each axial slice of a NIfTI label volume, how many pixels each label has, the background too. The volume is not kept.
pub fn label_slices(bytes: &[u8], limits: &ImageLimits) -> Result<Vec<BTreeMap<u32, u64>>, ImageError> {
    let format = Format::of(bytes, limits)?;
    if format != Format::Nifti {
        return Err(not_labels(format, "it is no volume, expected NIfTI"));
    }
    caught(format, || {
        let volume = nifti::Volume::open(bytes, limits)?;
        let mut slices = vec![BTreeMap::new(); volume.slice_count() as usize];
        let mut found = 0;
        volume.visit(|slice, run| {
            let known = slices[slice].len();
            count(&labels(format, run)?, &mut slices[slice]);
            found += slices[slice].len() - known;
            if found > MAX_LABELS {
                return Err(not_labels(format, &format!("its slices have more than {MAX_LABELS} labels together")));
            }
            Ok(())
        })?;
        Ok(slices)
    })
}

/// Neighbours are mostly alike, and are counted together.
fn count(values: &[u32], counts: &mut BTreeMap<u32, u64>) {
    for run in values.chunk_by(|a, b| a == b) {
        *counts.entry(run[0]).or_default() += run.len() as u64;
    }
}

fn from_tiff(bytes: &[u8], limits: &ImageLimits) -> Result<LabelMap, ImageError> {
    let format = Format::Tiff;
    if tiffs::white_is_zero(bytes, limits)? {
        return Err(not_labels(format, "its numbers count from white to black"));
    }
    match tiffs::numbers(bytes, limits)? {
        Some(plane) => from_plane(format, &plane),
        None => from_picture(format, flat::read(bytes, format, limits)?),
    }
}

fn from_png(bytes: &[u8], limits: &ImageLimits) -> Result<LabelMap, ImageError> {
    let format = Format::Png;
    let decoder = PngDecoder::new(Cursor::new(bytes)).map_err(|error| flat::refusal(format, error))?;
    match decoder.original_color_type() {
        // Decoding spreads these over 0 to 255, as if they were shades.
        ExtendedColorType::L2 | ExtendedColorType::L4 => Err(not_labels(format, "its grey has 2 or 4 bits, expected 8 or 16")),
        _ => from_picture(format, flat::read(bytes, format, limits)?),
    }
}

fn from_bmp(bytes: &[u8], limits: &ImageLimits) -> Result<LabelMap, ImageError> {
    let format = Format::Bmp;
    let mut decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(|error| flat::refusal(format, error))?;
    if decoder.get_palette().is_some() {
        decoder.set_indexed_color(true);
    }
    from_picture(format, flat::from_decoder(decoder, format, bytes, limits)?)
}

fn from_picture(format: Format, picture: DynamicImage) -> Result<LabelMap, ImageError> {
    let (width, height) = (picture.width(), picture.height());
    let values = match picture {
        DynamicImage::ImageLuma8(_) | DynamicImage::ImageLumaA8(_) => {
            picture.into_luma8().into_raw().into_iter().map(u32::from).collect()
        }
        DynamicImage::ImageLuma16(_) | DynamicImage::ImageLumaA16(_) => {
            picture.into_luma16().into_raw().into_iter().map(u32::from).collect()
        }
        DynamicImage::ImageRgb8(_) | DynamicImage::ImageRgba8(_) => {
            let picture = picture.into_rgb8();
            let grey = picture.pixels().map(|pixel| (pixel.0 == [pixel.0[0]; 3]).then_some(u32::from(pixel.0[0])));
            grey.collect::<Option<Vec<u32>>>().ok_or_else(|| not_labels(format, "its pixels are colours"))?
        }
        _ => return Err(not_labels(format, "its pixels are colours")),
    };
    Ok(LabelMap { width, height, values })
}

fn from_plane(format: Format, plane: &Plane) -> Result<LabelMap, ImageError> {
    let values = labels(format, &plane.values)?;
    Ok(LabelMap { width: plane.width, height: plane.height, values })
}

fn labels(format: Format, values: &[f64]) -> Result<Vec<u32>, ImageError> {
    let label = |&value: &f64| {
        let is_label = value.trunc().total_cmp(&value).is_eq() && (0.0..=f64::from(u32::MAX)).contains(&value);
        if is_label { Ok(value as u32) } else { Err(not_labels(format, &format!("one of its values is {value}"))) }
    };
    values.iter().map(label).collect()
}

fn not_labels(format: Format, reason: &str) -> ImageError {
    ImageError::NotLabels { format: format.name(), reason: reason.into() }
}
