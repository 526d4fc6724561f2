//! The files of a result: `segment` writes them to a folder, `run` uploads them.

use std::{io::Cursor, time::Instant};

use image::{GrayImage, ImageBuffer, ImageFormat, ImageResult, PixelWithColorType, RgbImage};
use ledger::ArtifactKind;
use segmenter::Segmentation;

use crate::receipt::Receipt;

/// One file of a result.
pub struct ArtifactFile {
    /// What it is.
    pub kind: ArtifactKind,
    /// Which object it shows, from 1; 0 for all of the image.
    pub object: u32,
    /// Its name in the result's folder.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl ArtifactFile {
    /// Its media type.
    pub fn content_type(&self) -> &'static str {
        match self.kind {
            ArtifactKind::Mask | ArtifactKind::InitialMask | ArtifactKind::Overlay => "image/png",
            ArtifactKind::Receipt => "application/json",
        }
    }
}

/// What a file of the whole image, or of its only object, is called in its result's folder.
pub fn file_name(kind: ArtifactKind) -> &'static str {
    match kind {
        ArtifactKind::Mask => "mask.png",
        ArtifactKind::InitialMask => "initial_mask.png",
        ArtifactKind::Overlay => "overlay.png",
        ArtifactKind::Receipt => "receipt.json",
    }
}

/// What a file of one of `objects` objects is called: of several it bears the object's number.
pub fn object_file_name(kind: ArtifactKind, object: u32, objects: usize) -> String {
    match file_name(kind).rsplit_once('.') {
        Some((stem, extension)) if objects > 1 => format!("{stem}-{object}.{extension}"),
        _ => file_name(kind).into(),
    }
}

/// Encodes each object's mask and initial mask, one overlay, then the receipt, which says how long that took
/// (`receipt.seconds.encode`). Takes tens of milliseconds a megapixel: not for an async thread.
pub fn encode(image: &RgbImage, segmentations: &[Segmentation], receipt: &mut Receipt) -> anyhow::Result<Vec<ArtifactFile>> {
    let started = Instant::now();
    let mut files = Vec::new();
    for (object, segmentation) in (1..).zip(segmentations) {
        for (kind, mask) in [(ArtifactKind::Mask, &segmentation.mask), (ArtifactKind::InitialMask, &segmentation.initial_mask)] {
            let name = object_file_name(kind, object, segmentations.len());
            files.push(ArtifactFile { kind, object, name, bytes: png(mask)? });
        }
    }
    let objects: Vec<_> =
        receipt.objects.iter().zip(segmentations).map(|(object, segmentation)| (&object.points, &segmentation.mask)).collect();
    files.push(of_image(ArtifactKind::Overlay, png(&pictures::overlay(image, &objects))?));
    receipt.seconds.encode = started.elapsed().as_secs_f64();
    files.push(encode_receipt(receipt)?);
    Ok(files)
}

/// The receipt alone, of an evaluation: its masks are not kept.
pub fn encode_receipt(receipt: &Receipt) -> anyhow::Result<ArtifactFile> {
    Ok(of_image(ArtifactKind::Receipt, serde_json::to_vec_pretty(receipt)?))
}

fn of_image(kind: ArtifactKind, bytes: Vec<u8>) -> ArtifactFile {
    ArtifactFile { kind, object: 0, name: file_name(kind).into(), bytes }
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
