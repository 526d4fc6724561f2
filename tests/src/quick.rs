//! What the quick worker computes in the model's place: nothing worth looking at, but a pure function of the request, in about a
//! millisecond a step. Whoever judges a mask computes it again from the request alone.

use std::{io::Cursor, time::Duration};

use image::{GrayImage, ImageFormat, Luma, RgbImage};
use images::ImageLimits;
use request::{Parameters, Points, View};
use sha2::{Digest as _, Sha256};

/// The red of an image's first pixel that makes the model's thread stand still for ever.
pub const HANGS: u8 = 250;
/// The red of an image's first pixel that makes the worker end as a crash does.
pub const ABORTS: u8 = 251;
/// The red of an image's first pixel that makes the model's thread panic.
pub const PANICS: u8 = 252;
/// The red of an image's first pixel for which the device has not memory enough.
pub const OUT_OF_MEMORY: u8 = 253;

/// How long a step takes.
pub const STEP: Duration = Duration::from_millis(1);

/// The width and height of an initial mask, in pixels.
const GRID: u32 = 64;
/// The width and height of what one bit decides of a mask, in pixels.
const CELL: u32 = 4;

/// What steps change and an engine keeps from one image to the next, as a model keeps its parameters. A mask depends on all that was
/// done with them since they were restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights([u8; 32]);

impl Default for Weights {
    fn default() -> Self {
        Self(Sha256::digest("as trained").into())
    }
}

impl Weights {
    /// One step of fine-tuning on this image.
    pub fn step(&mut self, image: &RgbImage) {
        self.0 = Sha256::new().chain_update(self.0).chain_update(image.as_raw()).finalize().into();
    }
}

/// What the quick engine finds of one object.
pub struct Found {
    /// The answer, 0 or 255, of the image's size.
    pub mask: GrayImage,
    /// The initial mask.
    pub initial_mask: GrayImage,
    /// The IoU with it.
    pub iou: f64,
    /// The step the mask is of.
    pub best_step: u32,
    /// How far to trust it.
    pub confidence: f64,
}

impl Found {
    /// With the weights as the steps left them.
    pub fn new(weights: &Weights, image: &RgbImage, points: &Points, parameters: &Parameters) -> Self {
        let request = serde_json::to_vec(&(points, parameters)).expect("points and parameters are plain values");
        let (width, height) = image.dimensions();
        let size = [width, height].map(u32::to_le_bytes).concat();
        let content = Sha256::new().chain_update(weights.0).chain_update(size).chain_update(image.as_raw()).chain_update(request);
        let bits: [u8; 32] = content.finalize().into();
        let initial: [u8; 32] = Sha256::digest(bits).into();
        Self {
            mask: pattern(&bits, width, height),
            initial_mask: pattern(&initial, GRID, GRID),
            iou: f64::from(initial[0]) / 255.0,
            best_step: 1 + u32::from(initial[1]) % parameters.steps,
            confidence: f64::from(initial[2]) / 255.0,
        }
    }
}

/// A bit a cell, repeated over the picture.
fn pattern(bits: &[u8; 32], width: u32, height: u32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, y| {
        let (column, row) = (x / CELL % 16, y / CELL % 16);
        let byte = bits[(2 * row + column / 8) as usize];
        Luma([if byte >> (column % 8) & 1 == 1 { 255 } else { 0 }])
    })
}

/// The mask of an object with these points on an image's file, by the request alone.
pub fn expected_mask(image: &[u8], view: &View, points: &Points, parameters: &Parameters) -> anyhow::Result<GrayImage> {
    let image = images::decode(image, view, &ImageLimits::default())?.rgb;
    let mut weights = Weights::default();
    for _ in 0..parameters.steps {
        weights.step(&image);
    }
    Ok(Found::new(&weights, &image, points, parameters).mask)
}

/// SHA-256 of the PNG of [`expected_mask`], as the ledger has it of the stored mask.
pub fn expected_mask_sha256(image: &[u8], view: &View, points: &Points, parameters: &Parameters) -> anyhow::Result<String> {
    let mut png = Cursor::new(Vec::new());
    expected_mask(image, view, points, parameters)?.write_to(&mut png, ImageFormat::Png)?;
    Ok(sha256(png.get_ref()))
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::png_of_blobs;

    fn mask(image: u32, points: &str, steps: u32) -> String {
        let parameters = Parameters { steps, ..Parameters::default() };
        expected_mask_sha256(&png_of_blobs(40, 30, image), &View::default(), &points.parse().unwrap(), &parameters).unwrap()
    }

    #[test]
    fn a_mask_is_decided_by_image_points_and_parameters() {
        let usual = mask(1, "1,2,1", 3);
        assert_eq!(mask(1, "1,2,1", 3), usual);
        for other in [mask(2, "1,2,1", 3), mask(1, "1,3,1", 3), mask(1, "1,2,1", 4)] {
            assert_ne!(other, usual);
        }
    }

    #[test]
    fn weights_that_were_not_restored_show_as_another_mask() {
        let image = RgbImage::new(8, 8);
        let (points, parameters) = ("1,1,1".parse().unwrap(), Parameters { steps: 1, ..Parameters::default() });
        let mut weights = Weights::default();
        weights.step(&image);
        let first = Found::new(&weights, &image, &points, &parameters).mask;
        weights.step(&image);
        assert_ne!(Found::new(&weights, &image, &points, &parameters).mask, first);
    }
}
