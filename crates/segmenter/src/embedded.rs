use std::time::Instant;

use image::RgbImage;
use request::{Choices, Normalisation};
use tch::{Tensor, no_grad};

use crate::{
    SegmentError,
    sam::{EncoderPass, Extent, Kept, Sam, normalise, preprocess},
    stages::Stage,
};

/// An image under the checkpoint's weights; shared by any number of objects and methods.
pub struct Embedded {
    pub(crate) extent: Extent,
    normalisation: Normalisation,
    /// The encoder's input for the fine-tuning. [1, 3, S, S]
    pub(crate) pixels: Tensor,
    /// What the initial mask is made of: of the pixels normalised once. [1, C, T, T]
    pub(crate) embedding: Tensor,
    /// What SAM's own answers are made of: of `pixels`. [1, C, T, T]
    pub(crate) sam_embedding: Tensor,
    /// The pass it came from, for the first step of the first fine-tuning; where it was asked for, and until then.
    first_pass: Option<EncoderPass>,
    /// The weights' version the pass belongs to.
    version: u64,
    /// What it took, until an answer has accounted for it.
    pub(crate) seconds: f64,
}

impl Embedded {
    /// Restores the weights; one forward pass, or two where the pixels are normalised twice.
    pub(crate) fn new(sam: &mut Sam, image: &RgbImage, choices: &Choices) -> Result<Self, SegmentError> {
        no_grad(|| Self::with_pass(sam, image, choices, Kept::Activations)).map(|embedded| Self { first_pass: None, ..embedded })
    }

    /// The same, ready for a fine-tuning to go on from: holds what the gradients need, gigabytes for a large model whose activations are kept.
    pub(crate) fn with_pass(sam: &mut Sam, image: &RgbImage, choices: &Choices, kept: Kept) -> Result<Self, SegmentError> {
        check_pixels(image)?;
        let (width, height) = image.dimensions();
        let started = Instant::now();
        let extent = Extent::new(width, height, sam.architecture.image_size);
        sam.encoder_parameters.restore()?;
        sam.stages.ended(Stage::Restore);
        let once = preprocess(image, &extent, sam.device())?;
        sam.stages.ended(Stage::Preprocess);
        let (pixels, once_embedding) = match choices.normalisation {
            Normalisation::Once => (once, None),
            Normalisation::Twice => (normalise(&once)?, Some(no_grad(|| sam.image_encoder.forward(&once))?)),
        };
        let first_pass = EncoderPass::forward(&sam.image_encoder, &pixels, kept)?;
        sam.stages.ended(Stage::Encode);
        let sam_embedding = first_pass.embedding().f_detach()?;
        Ok(Self {
            extent,
            normalisation: choices.normalisation,
            pixels,
            embedding: once_embedding.unwrap_or_else(|| sam_embedding.shallow_clone()),
            sam_embedding,
            first_pass: Some(first_pass),
            version: sam.encoder_parameters.version(),
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Refuses an image or choices other than those it was made of, as far as that can be seen.
    pub(crate) fn check(&self, image: &RgbImage, choices: &Choices) -> Result<(), SegmentError> {
        let (width, height) = image.dimensions();
        let Extent { original_width, original_height, .. } = self.extent;
        if (i64::from(width), i64::from(height)) != (original_width, original_height) {
            let reason = format!("it is of {original_width} x {original_height} pixels, the image has {width} x {height}");
            return Err(SegmentError::OtherEmbedding { reason });
        }
        if choices.normalisation != self.normalisation {
            let name = |normalisation| match normalisation {
                Normalisation::Once => "once",
                Normalisation::Twice => "twice",
            };
            let (found, asked) = (name(self.normalisation), name(choices.normalisation));
            return Err(SegmentError::OtherEmbedding {
                reason: format!("its pixels are normalised {found}, asked for is {asked}"),
            });
        }
        Ok(())
    }

    /// A pass under the restored weights: the first one where it was kept and the weights are still the same, else another one like it.
    pub(crate) fn pass(&mut self, sam: &mut Sam, kept: Kept) -> Result<EncoderPass, SegmentError> {
        if let Some(first_pass) = self.first_pass.take()
            && self.version == sam.encoder_parameters.version()
        {
            return Ok(first_pass);
        }
        sam.encoder_parameters.restore()?;
        sam.stages.ended(Stage::Restore);
        let pass = EncoderPass::forward(&sam.image_encoder, &self.pixels, kept)?;
        sam.stages.ended(Stage::Encode);
        Ok(pass)
    }
}

/// Refuses an image without pixels.
pub fn check_pixels(image: &RgbImage) -> Result<(), SegmentError> {
    match image.dimensions() {
        (width, height) if width == 0 || height == 0 => Err(SegmentError::EmptyImage { width, height }),
        _ => Ok(()),
    }
}
