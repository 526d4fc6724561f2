//! Segment Anything (Kirillov et al., 2023): image encoder, prompt encoder and mask decoder, of any size.
//!
//! Names, order of operations and constants are those of the official implementation (`segment_anything/modeling`), so that a
//! tensor's name in the checkpoint says where it is used. Every size is read from the checkpoint's own tensors.
//! In shape comments B is the batch, C channels, S the image size, T the tokens a side (S / patch), N a number of tokens.

#![expect(
    clippy::many_single_char_names,
    reason = "tensors and their dimensions have the names of the papers: q, k, v, x, b, c, h, w"
)]

mod architecture;
mod encoder_pass;
mod expected;
mod flops;
mod image_encoder;
mod layers;
mod mask_decoder;
mod official;
mod parameters;
mod preprocess;
mod prompt_encoder;
mod transformer;

use tch::{Device, Kind, TchError, Tensor};

pub use architecture::{Architecture, ArchitectureError};
pub use encoder_pass::{EncoderPass, Kept};
pub use image_encoder::ImageEncoder;
pub use mask_decoder::{MaskDecoder, Masks};
pub use official::OfficialSize;
pub use parameters::EncoderParameters;
pub use preprocess::{Extent, normalise, preprocess};
pub use prompt_encoder::{PointPrompt, PromptEncoder, Prompts};

pub(crate) use layers::{LayerNorm, Tensors};

use crate::{Checkpoint, SegmenterError, stages::Stages};

type Result<T> = std::result::Result<T, TchError>;

/// The three parts of a SAM on one device.
pub struct Sam {
    /// The sizes.
    pub architecture: Architecture,
    /// Image to embedding; the only part that is ever trained.
    pub image_encoder: ImageEncoder,
    /// The image encoder's parameters, which the encoder reads and the fine-tuning moves.
    pub encoder_parameters: EncoderParameters,
    /// Points and masks to embeddings; frozen.
    pub prompt_encoder: PromptEncoder,
    /// Embeddings to masks; frozen, but gradients flow through it.
    pub mask_decoder: MaskDecoder,
    /// Who is told where the time goes.
    pub(crate) stages: Stages,
}

impl Sam {
    /// Reads the sizes from the checkpoint, refuses what does not fit, and copies the tensors to the device. All numbers are fp32.
    pub fn new(checkpoint: &Checkpoint, device: Device) -> std::result::Result<Self, SegmenterError> {
        Self::with_precision(checkpoint, device, KIND)
    }

    /// The same, with the matrix products of the encoder's blocks in the given precision: what is stored is fp32 nevertheless.
    pub fn with_precision(checkpoint: &Checkpoint, device: Device, precision: Kind) -> std::result::Result<Self, SegmenterError> {
        let file = checkpoint.path().display().to_string();
        let architecture = Architecture::read(checkpoint.tensors())
            .map_err(|error| SegmenterError::Architecture { checkpoint: file.clone(), reason: error.to_string() })?;
        Self::build(checkpoint, architecture, device, precision)
            .map_err(|error| SegmenterError::Torch { checkpoint: file, reason: error.to_string() })
    }

    fn build(checkpoint: &Checkpoint, architecture: Architecture, device: Device, precision: Kind) -> Result<Self> {
        let encoder_parameters = EncoderParameters::new(checkpoint.tensors(), device)?;
        let mut frozen = Tensors::new();
        for (name, tensor) in checkpoint.tensors() {
            if !name.starts_with("image_encoder.") {
                frozen.insert(name.clone(), tensor.f_to_device(device)?);
            }
        }
        let frozen = layers::Weights::new(&frozen);
        let image_encoder = ImageEncoder::new(&encoder_parameters.weights().child("image_encoder"), &architecture, precision)?;
        let prompt_encoder = PromptEncoder::new(&frozen.child("prompt_encoder"), &architecture)?;
        let mask_decoder = MaskDecoder::new(&frozen.child("mask_decoder"), &architecture)?;
        Ok(Self { architecture, image_encoder, encoder_parameters, prompt_encoder, mask_decoder, stages: Stages::new(device) })
    }

    /// The single-mask output for an image embedding and prompts, as logits. [1, C, T, T] -> [1, 1, 4T, 4T]
    pub fn decode(&self, embedding: &Tensor, prompts: &Prompts) -> Result<Tensor> {
        self.mask_decoder.single_mask(embedding, self.prompt_encoder.dense_position(), prompts)
    }

    /// The device all tensors are on, for inputs.
    pub fn device(&self) -> Device {
        self.encoder_parameters.device()
    }
}

/// The kind of every number in the model.
const KIND: Kind = Kind::Float;
