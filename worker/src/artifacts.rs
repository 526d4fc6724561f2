//! The four files of a result: `segment` writes them to a folder, `run` uploads them.

use std::{io::Cursor, time::Instant};

use image::{GrayImage, ImageBuffer, ImageFormat, ImageResult, PixelWithColorType, RgbImage};
use ledger::ArtifactKind;
use segmenter::Segmentation;

use crate::receipt::Receipt;

/// One file of a result.
pub struct ArtifactFile {
    /// What it is.
    pub kind: ArtifactKind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl ArtifactFile {
    /// Its name in the result's folder.
    pub fn name(&self) -> &'static str {
        file_name(self.kind)
    }

    /// Its media type.
    pub fn content_type(&self) -> &'static str {
        match self.kind {
            ArtifactKind::Mask | ArtifactKind::InitialMask | ArtifactKind::Overlay => "image/png",
            ArtifactKind::Receipt => "application/json",
        }
    }
}

/// What a file is called in its result's folder.
pub fn file_name(kind: ArtifactKind) -> &'static str {
    match kind {
        ArtifactKind::Mask => "mask.png",
        ArtifactKind::InitialMask => "initial_mask.png",
        ArtifactKind::Overlay => "overlay.png",
        ArtifactKind::Receipt => "receipt.json",
    }
}

/// Encodes the three pictures, then the receipt, which says how long that took (`receipt.seconds.encode`). Takes tens of
/// milliseconds a megapixel: not for an async thread.
pub fn encode(image: &RgbImage, segmentation: &Segmentation, receipt: &mut Receipt) -> anyhow::Result<[ArtifactFile; 4]> {
    let started = Instant::now();
    let overlay = pictures::overlay(image, &receipt.points, &segmentation.mask);
    let mask = png(&segmentation.mask)?;
    let initial_mask = png(&segmentation.initial_mask)?;
    let overlay = png(&overlay)?;
    receipt.seconds.encode = started.elapsed().as_secs_f64();
    let receipt = serde_json::to_vec_pretty(receipt)?;
    Ok([
        ArtifactFile { kind: ArtifactKind::Mask, bytes: mask },
        ArtifactFile { kind: ArtifactKind::InitialMask, bytes: initial_mask },
        ArtifactFile { kind: ArtifactKind::Overlay, bytes: overlay },
        ArtifactFile { kind: ArtifactKind::Receipt, bytes: receipt },
    ])
}

fn png<P>(picture: &ImageBuffer<P, Vec<u8>>) -> ImageResult<Vec<u8>>
where
    P: PixelWithColorType<Subpixel = u8>,
{
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

/// Whether nothing on the image was taken for foreground.
pub fn is_empty(mask: &GrayImage) -> bool {
    mask.as_raw().iter().all(|&value| value == 0)
}
