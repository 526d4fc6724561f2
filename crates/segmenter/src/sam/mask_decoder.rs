use tch::Tensor;

use super::{
    Architecture, Prompts, Result,
    layers::{Doubling, LayerNorm2d, Linear, Weights, gelu},
    transformer::TwoWayTransformer,
};

/// Embeddings of image and prompts to masks; upstream's `MaskDecoder`.
pub struct MaskDecoder {
    transformer: TwoWayTransformer,
    /// The token for the predicted IoUs, then one for each mask. [1 + M, C]
    output_tokens: Tensor,
    upscale1: Doubling,
    upscale_norm: LayerNorm2d,
    upscale2: Doubling,
    hypernetworks: Vec<Mlp>,
    iou_prediction_head: Mlp,
}

/// What the decoder predicts. The first of the M masks is SAM's single-mask output, the others its multi-mask output.
#[derive(Debug)]
pub struct Masks {
    /// Logits, foreground above 0. [B, M, 4T, 4T]
    pub logits: Tensor,
    /// The IoU SAM expects of each mask with the truth. [B, M]
    pub iou_predictions: Tensor,
}

impl MaskDecoder {
    pub(super) fn new(weights: &Weights, architecture: &Architecture) -> Result<Self> {
        let hypernetwork = |i| Mlp::new(&weights.child(&format!("output_hypernetworks_mlps.{i}")), 3);
        Ok(Self {
            transformer: TwoWayTransformer::new(&weights.child("transformer"), architecture)?,
            output_tokens: Tensor::f_cat(&[weights.get("iou_token.weight")?, weights.get("mask_tokens.weight")?], 0)?,
            upscale1: Doubling::new(&weights.child("output_upscaling.0"))?,
            upscale_norm: LayerNorm2d::new(&weights.child("output_upscaling.1"))?,
            upscale2: Doubling::new(&weights.child("output_upscaling.3"))?,
            hypernetworks: (0..architecture.mask_tokens).map(hypernetwork).collect::<Result<_>>()?,
            iou_prediction_head: Mlp::new(&weights.child("iou_prediction_head"), architecture.iou_head_depth)?,
        })
    }

    /// One image's embedding and its positions, both [1, C, T, T], with B prompts.
    pub fn forward(&self, embedding: &Tensor, position: &Tensor, prompts: &Prompts) -> Result<Masks> {
        let (tokens, pixels) = self.attend(embedding, position, prompts)?;
        let masks: Vec<Tensor> =
            (0..self.hypernetworks.len()).map(|mask| self.logits(mask, &tokens, &pixels)).collect::<Result<_>>()?;
        let iou_predictions = self.iou_prediction_head.forward(&tokens.f_select(1, 0)?)?; // [B, M]
        Ok(Masks { logits: Tensor::f_cat(&masks, 1)?, iou_predictions })
    }

    /// The logits of the single-mask output alone, at the cost of one mask. [B, 1, 4T, 4T]
    pub fn single_mask(&self, embedding: &Tensor, position: &Tensor, prompts: &Prompts) -> Result<Tensor> {
        let (tokens, pixels) = self.attend(embedding, position, prompts)?;
        self.logits(0, &tokens, &pixels)
    }

    /// Output tokens [B, 1 + M + points, C], and the pixels' embedding [B, C / 8, 4T, 4T].
    fn attend(&self, embedding: &Tensor, position: &Tensor, prompts: &Prompts) -> Result<(Tensor, Tensor)> {
        let (b, points, c) = prompts.sparse.size3()?;
        let outputs = self.output_tokens.f_expand([b, -1, c], false)?; // [B, 1 + M, C]
        let tokens = if points == 0 { outputs } else { Tensor::f_cat(&[&outputs, &prompts.sparse], 1)? }; // [B, 1 + M + points, C]
        let image = embedding.f_add(&prompts.dense)?; // [B, C, T, T]
        let (_, _, h, w) = image.size4()?;
        let (tokens, image) = self.transformer.forward(&image, position, &tokens)?;

        let image = image.f_transpose(1, 2)?.f_reshape([b, c, h, w])?; // [B, C, T, T]
        let x = gelu(&self.upscale_norm.forward(&self.upscale1.forward(&image)?)?)?; // [B, C / 4, 2T, 2T]
        Ok((tokens, gelu(&self.upscale2.forward(&x)?)?))
    }

    /// One mask: the product of its token, through its own network, with each pixel. [B, 1, 4T, 4T]
    fn logits(&self, mask: usize, tokens: &Tensor, pixels: &Tensor) -> Result<Tensor> {
        let (b, _, h, w) = pixels.size4()?;
        let hyper = self.hypernetworks[mask].forward(&tokens.f_select(1, 1 + mask as i64)?)?; // [B, C / 8]
        hyper.f_unsqueeze(1)?.f_matmul(&pixels.f_flatten(2, 3)?)?.f_view([b, 1, h, w])
    }
}

/// Linear layers with ReLU between them.
struct Mlp(Vec<Linear>);

impl Mlp {
    fn new(weights: &Weights, depth: usize) -> Result<Self> {
        Ok(Self((0..depth).map(|i| Linear::new(&weights.child(&format!("layers.{i}")))).collect::<Result<_>>()?))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.shallow_clone();
        for (i, layer) in self.0.iter().enumerate() {
            x = layer.forward(&if i == 0 { x } else { x.f_relu()? })?;
        }
        Ok(x)
    }
}
