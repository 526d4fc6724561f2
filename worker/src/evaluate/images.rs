//! The images of a data set and their truths, one after the other.

use anyhow::Context;
use evaluation::datasets::{Case, Files, LocalFolder, truth};
use image::GrayImage;
use images::{DecodedImage, ImageLimits, decode};
use request::View;

/// An image and what it shows.
pub struct Loaded<'a> {
    /// The image.
    pub image: &'a DecodedImage,
    /// 255 where the object is; it has the image's size and at least one such pixel.
    pub truth: GrayImage,
    /// SHA-256 of the truth's file.
    pub truth_sha256: String,
}

/// Reads a data set. The last image and truth are kept: several cases often are of one.
pub struct Images {
    files: LocalFolder,
    limits: ImageLimits,
    image: Option<(String, View, DecodedImage)>,
    truth: Option<(String, Vec<u8>)>,
}

impl Images {
    /// Nothing is read yet.
    pub fn new(files: LocalFolder, limits: ImageLimits) -> Self {
        Self { files, limits, image: None, truth: None }
    }

    /// An image and its truth; an error says what is wrong with them.
    pub fn load(&mut self, case: &Case) -> anyhow::Result<Loaded<'_>> {
        let kept = |(name, view, _): &(String, View, DecodedImage)| *name == case.image && *view == case.view;
        if !self.image.as_ref().is_some_and(kept) {
            let bytes = self.files.read(&case.image)?;
            let decoded =
                decode(&bytes, &case.view, &self.limits).with_context(|| format!("cannot use the image {}", case.image))?;
            self.image = Some((case.image.clone(), case.view, decoded));
        }
        if self.truth.as_ref().is_none_or(|(name, _)| *name != case.truth) {
            self.truth = Some((case.truth.clone(), self.files.read(&case.truth)?));
        }
        let (Some((_, _, image)), Some((name, bytes))) = (&self.image, &self.truth) else { unreachable!("both were just read") };
        let mask = truth(bytes, name, case, image.rgb.dimensions(), &self.limits)?;
        Ok(Loaded { image, truth: mask, truth_sha256: segmenter::sha256(bytes) })
    }
}
