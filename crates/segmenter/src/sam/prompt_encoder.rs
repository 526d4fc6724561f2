use std::f64::consts::TAU;

use request::Label;
use tch::{Tensor, no_grad};

use super::{
    Architecture, KIND, Result,
    layers::{Conv2d, LayerNorm2d, Weights, gelu},
};

/// Points and masks to embeddings; upstream's `PromptEncoder`, without boxes.
pub struct PromptEncoder {
    /// Random frequencies of the positional encoding. [2, C / 2]
    gaussian: Tensor,
    /// Added to a background point's position. [1, C]
    negative: Tensor,
    /// Added to a foreground point's position. [1, C]
    positive: Tensor,
    /// Stands for the padding point that upstream appends where no box is given. [1, C]
    not_a_point: Tensor,
    mask_downscaling: MaskDownscaling,
    /// Pixels a side of the encoder's input.
    image_size: i64,
    /// The positions of the image's tokens. [1, C, T, T]
    dense_position: Tensor,
    null: Prompts,
}

/// A point in the frame of the encoder's input: pixels of the resized image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PointPrompt {
    /// From the left edge to the right, in pixels.
    pub x: f64,
    /// From the top edge down, in pixels.
    pub y: f64,
    /// Foreground or background.
    pub label: Label,
}

/// Embedded prompts, as the mask decoder takes them.
#[derive(Debug)]
pub struct Prompts {
    /// One token a point, and the padding point. [1, N, C], N = 0 without points
    pub sparse: Tensor,
    /// Added to the image embedding. [1, C, T, T]
    pub dense: Tensor,
}

impl PromptEncoder {
    pub(super) fn new(weights: &Weights, architecture: &Architecture) -> Result<Self> {
        let gaussian = weights.get("pe_layer.positional_encoding_gaussian_matrix")?;
        let (c, grid) = (architecture.embedding, architecture.grid);
        let no_mask = weights.get("no_mask_embed.weight")?;
        let options = (KIND, gaussian.device());
        let null = Prompts {
            sparse: Tensor::f_zeros([1, 0, c], options)?,
            dense: no_mask.f_view([1, c, 1, 1])?.f_expand([1, c, grid, grid], false)?,
        };
        Ok(Self {
            dense_position: dense_position(&gaussian, grid)?,
            gaussian,
            negative: weights.get("point_embeddings.0.weight")?,
            positive: weights.get("point_embeddings.1.weight")?,
            not_a_point: weights.get("not_a_point_embed.weight")?,
            mask_downscaling: MaskDownscaling::new(&weights.child("mask_downscaling"))?,
            image_size: architecture.image_size,
            null,
        })
    }

    /// The positions of the image's tokens; upstream's `get_dense_pe`. [1, C, T, T]
    pub fn dense_position(&self) -> &Tensor {
        &self.dense_position
    }

    /// No points and no mask: S(I, null, null) of the paper.
    pub fn null(&self) -> &Prompts {
        &self.null
    }

    /// All points as one prompt, and a mask of logits [1, 1, 4T, 4T]. Either may be missing.
    pub fn forward(&self, points: &[PointPrompt], mask: Option<&Tensor>) -> Result<Prompts> {
        no_grad(|| {
            let sparse = if points.is_empty() { self.null.sparse.shallow_clone() } else { self.embed_points(points)? };
            let dense = match mask {
                None => self.null.dense.shallow_clone(),
                Some(mask) => self.mask_downscaling.forward(mask)?,
            };
            Ok(Prompts { sparse, dense })
        })
    }

    /// n points -> [1, n + 1, C]
    fn embed_points(&self, points: &[PointPrompt]) -> Result<Tensor> {
        // The centre of the pixel, in parts of the image's side.
        let part = |pixels: f64| (pixels as f32 + 0.5) / self.image_size as f32;
        let coordinates: Vec<f32> = points.iter().flat_map(|point| [part(point.x), part(point.y)]).collect();
        let coordinates = Tensor::f_from_slice(&coordinates)?.f_view([1, points.len() as i64, 2])?; // [1, n, 2]
        let positions = encode_position(&coordinates.f_to_device(self.gaussian.device())?, &self.gaussian)?; // [1, n, C]
        let labels: Vec<&Tensor> = points
            .iter()
            .map(|point| match point.label {
                Label::Negative => &self.negative,
                Label::Positive => &self.positive,
            })
            .collect();
        let points = positions.f_add(&Tensor::f_cat(&labels, 0)?)?; // [1, n, C]
        Tensor::f_cat(&[&points, &self.not_a_point.f_unsqueeze(0)?], 1) // [1, n + 1, C]
    }
}

/// Sines and cosines of random frequencies; coordinates (x, y) in [0, 1]. [..., 2] -> [..., C]
fn encode_position(coordinates: &Tensor, gaussian: &Tensor) -> Result<Tensor> {
    let centred = coordinates.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?;
    let phases = centred.f_matmul(gaussian)?.f_mul_scalar(TAU)?; // [..., C / 2]
    Tensor::f_cat(&[phases.f_sin()?, phases.f_cos()?], -1)
}

/// The positions of the centres of a grid's cells. [1, C, grid, grid]
fn dense_position(gaussian: &Tensor, grid: i64) -> Result<Tensor> {
    let centres = Tensor::f_arange(grid, (KIND, gaussian.device()))?.f_add_scalar(0.5)?.f_div_scalar(grid)?; // [grid]
    let x = centres.f_view([1, grid])?.f_expand([grid, grid], false)?;
    let y = centres.f_view([grid, 1])?.f_expand([grid, grid], false)?;
    let position = encode_position(&Tensor::f_stack(&[x, y], -1)?, gaussian)?; // [grid, grid, C]
    // Not made contiguous: it is added to tokens, whose order in memory is this one, and adding across orders is four times slower.
    position.f_permute([2, 0, 1])?.f_unsqueeze(0)
}

/// Brings a mask prompt to the embedding's grid.
struct MaskDownscaling {
    conv1: Conv2d,
    norm1: LayerNorm2d,
    conv2: Conv2d,
    norm2: LayerNorm2d,
    conv3: Conv2d,
}

impl MaskDownscaling {
    fn new(weights: &Weights) -> Result<Self> {
        Ok(Self {
            conv1: Conv2d::new(&weights.child("0"), 2, 0)?,
            norm1: LayerNorm2d::new(&weights.child("1"))?,
            conv2: Conv2d::new(&weights.child("3"), 2, 0)?,
            norm2: LayerNorm2d::new(&weights.child("4"))?,
            conv3: Conv2d::new(&weights.child("6"), 1, 0)?,
        })
    }

    /// [1, 1, 4T, 4T] -> [1, C, T, T]
    fn forward(&self, mask: &Tensor) -> Result<Tensor> {
        let x = gelu(&self.norm1.forward(&self.conv1.forward(mask)?)?)?; // [1, mask_in_chans / 4, 2T, 2T]
        let x = gelu(&self.norm2.forward(&self.conv2.forward(&x)?)?)?; // [1, mask_in_chans, T, T]
        self.conv3.forward(&x)
    }
}
