use tch::{Device, Kind, Tensor};

use super::{
    Architecture, KIND, Result,
    layers::{Conv2d, LayerNorm, LayerNorm2d, Linear, Weights},
};
use crate::native::{self, Prologue};

/// The ViT that turns an image into an embedding; upstream's `ImageEncoderViT`.
pub struct ImageEncoder {
    patch_embed: Conv2d,
    pos_embed: Tensor,
    blocks: Vec<Block>,
    neck: Neck,
}

impl ImageEncoder {
    pub(super) fn new(weights: &Weights, architecture: &Architecture, precision: Kind) -> Result<Self> {
        let blocks = (0..architecture.windows.len())
            .map(|i| Block::new(&weights.child(&format!("blocks.{i}")), architecture, i, precision));
        Ok(Self {
            patch_embed: Conv2d::new(&weights.child("patch_embed.proj"), architecture.patch, 0)?,
            pos_embed: weights.get("pos_embed")?,
            blocks: blocks.collect::<Result<_>>()?,
            neck: Neck::new(&weights.child("neck"))?,
        })
    }

    /// A preprocessed image to its embedding. [B, 3, S, S] -> [B, C, T, T]
    pub fn forward(&self, image: &Tensor) -> Result<Tensor> {
        (0..self.stages()).try_fold(image.shallow_clone(), |x, stage| self.stage(stage, &x))
    }

    /// How many stages follow one another: the patches' embedding, each block, the neck.
    pub(super) fn stages(&self) -> usize {
        self.blocks.len() + 2
    }

    /// What the names of a stage's parameters begin with.
    pub(super) fn stage_of(&self, name: &str) -> usize {
        let name = name.trim_start_matches("image_encoder.");
        match name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok()) {
            Some(block) => block + 1,
            None if name.starts_with("neck.") => self.stages() - 1,
            None => 0,
        }
    }

    /// One stage: [B, 3, S, S] -> [B, T, T, dim], then [B, T, T, dim] each, and at last [B, C, T, T].
    pub(super) fn stage(&self, stage: usize, x: &Tensor) -> Result<Tensor> {
        match stage.checked_sub(1) {
            None => {
                // Contiguous, or every layer norm after it would copy: a permuted tensor's order in memory is inherited by what is added to it.
                let patches = self.patch_embed.forward(x)?.f_permute([0, 2, 3, 1])?.f_contiguous()?; // [B, T, T, dim]
                patches.f_add(&self.pos_embed)
            }
            Some(block) if block < self.blocks.len() => self.blocks[block].forward(x),
            Some(_) => self.neck.forward(&x.f_permute([0, 3, 1, 2])?), // [B, C, T, T]
        }
    }
}

/// One transformer block, within windows or over the whole grid.
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    lin1: Linear,
    lin2: Linear,
    precision: Kind,
}

impl Block {
    const EPSILON: f64 = 1e-6;

    fn new(weights: &Weights, architecture: &Architecture, index: usize, precision: Kind) -> Result<Self> {
        let side = architecture.windows[index].unwrap_or(architecture.grid);
        Ok(Self {
            norm1: LayerNorm::new(&weights.child("norm1"), Self::EPSILON)?,
            attn: Attention::new(&weights.child("attn"), architecture.heads, side, precision)?,
            norm2: LayerNorm::new(&weights.child("norm2"), Self::EPSILON)?,
            lin1: Linear::new(&weights.child("mlp.lin1"))?,
            lin2: Linear::new(&weights.child("mlp.lin2"))?,
            precision,
        })
    }

    /// [B, T, T, dim] -> [B, T, T, dim]
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.f_add(&self.attn.forward(Prologue::LayerNorm(&self.norm1), x)?)?;
        let hidden = self.lin1.forward_after(Prologue::LayerNorm(&self.norm2), &x, self.precision)?; // [B, T, T, 4 * dim]
        x.f_add(&self.lin2.forward_after(Prologue::Gelu, &hidden, self.precision)?)
    }
}

/// Multi-head attention with decomposed relative positions, within square windows or over the one square of all tokens.
///
/// A logit is q k / sqrt(d) plus q's dot products with the relative positions of k's row and column. Upstream builds that sum's second half as
/// an N x N bias and pads the grid to whole windows before the linear layers. Here neither is done: the linear layers see the tokens there
/// are, and a window's tokens beyond the grid, whose normalised values upstream has as zeros, have the bias of `qkv` for their q, k and v.
struct Attention {
    qkv: Linear,
    proj: Linear,
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
    heads: i64,
    /// Tokens a side of a window, or of the grid.
    side: i64,
    precision: Kind,
    how: How,
}

/// Two exact ways to the same sums.
enum How {
    /// On the CPU: tiles of the N x N maps, which the backward pass computes anew; `native/attention.cpp`.
    Tiles,
    /// On a GPU, or in reduced precision: one dot product a logit, for the fused kernels of `scaled_dot_product_attention`.
    OneProduct {
        /// Row of the relative-position tables for each pair of query and key, along one axis. [side * side]
        table_rows: Tensor,
        /// One-hot row and one-hot column of each token. [side * side, 2 * side]
        key_positions: Tensor,
    },
}

impl Attention {
    fn new(weights: &Weights, heads: i64, side: i64, precision: Kind) -> Result<Self> {
        let rel_pos_h = weights.get("rel_pos_h")?;
        let how = match rel_pos_h.device() {
            Device::Cpu if precision == Kind::Float => How::Tiles,
            device => How::one_product(side, device)?,
        };
        Ok(Self {
            qkv: Linear::new(&weights.child("qkv"))?,
            proj: Linear::new(&weights.child("proj"))?,
            rel_pos_w: weights.get("rel_pos_w")?,
            rel_pos_h,
            heads,
            side,
            precision,
            how,
        })
    }

    /// [B, H, W, dim] -> [B, H, W, dim]
    fn forward(&self, prologue: Prologue, x: &Tensor) -> Result<Tensor> {
        let attended = match &self.how {
            How::Tiles => {
                let qkv = self.qkv.forward_after(prologue, x, self.precision)?; // [B, H, W, 3 * dim]
                let tables = Tensor::f_cat(&[&self.rel_pos_h, &self.rel_pos_w], 0)?; // [2 * (2 * side - 1), d]
                native::attention(&qkv, &self.qkv.bias, &tables, self.heads, self.side)?
            }
            How::OneProduct { table_rows, key_positions } => {
                let product = self.qkv.product_after(prologue, x, self.precision)?; // [B, H, W, 3 * dim]
                // The bias after the padding, which is to have it as well.
                let qkv = partition(&product, self.side)?.f_add(&self.qkv.bias.f_to_kind(self.precision)?)?; // [B * windows, side, side, 3 * dim]
                unpartition(&self.by_one_product(&qkv, table_rows, key_positions)?, self.side, product.size4()?)?
            }
        };
        self.proj.forward_after(Prologue::None, &attended, self.precision) // [B, H, W, dim]
    }

    /// [B, side, side, 3 * dim] -> [B, side, side, dim]
    ///
    /// q's dot products with relative positions (`rel_h`, `rel_w`) are decided by q alone; which of them a logit gets is a lookup, and a lookup is
    /// a product with a one-hot vector. So appending them to q, and k's one-hot row and column to k, makes the logit one dot product.
    fn by_one_product(&self, qkv: &Tensor, table_rows: &Tensor, key_positions: &Tensor) -> Result<Tensor> {
        let (b, h, w, three_dim) = qkv.size4()?;
        let (tokens, heads, dim) = (h * w, self.heads, three_dim / 3);
        let head_dim = dim / heads;
        let qkv = qkv.f_view([b, tokens, 3, heads, head_dim])?.f_permute([2, 0, 3, 1, 4])?; // [3, B, heads, N, d]
        let [q, k, v] = <[Tensor; 3]>::try_from(qkv.f_unbind(0)?).expect("the first dimension is 3"); // [B, heads, N, d]

        let grid = q.f_reshape([b * heads, h, w, head_dim])?; // [B * heads, H, W, d]
        let positions =
            |table: &Tensor, side| table.f_index_select(0, table_rows)?.f_to_kind(self.precision)?.f_view([side, side, head_dim]);
        let (positions_h, positions_w) = (positions(&self.rel_pos_h, h)?, positions(&self.rel_pos_w, w)?); // [H, H, d], [W, W, d]
        let rel_h = Tensor::f_einsum("bhwc,hkc->bhwk", &[&grid, &positions_h], None::<i64>)?; // [B * heads, H, W, H]
        let rel_w = Tensor::f_einsum("bhwc,wkc->bhwk", &[&grid, &positions_w], None::<i64>)?; // [B * heads, H, W, W]

        let scaled = q.f_mul_scalar((head_dim as f64).powf(-0.5))?;
        let rel_h = rel_h.f_reshape([b, heads, tokens, h])?; // [B, heads, N, H]
        let rel_w = rel_w.f_reshape([b, heads, tokens, w])?; // [B, heads, N, W]
        // The fused kernels want q, k and v of one width, a multiple of eight; the zeros come out as zeros.
        let filling = (8 - (head_dim + h + w) % 8) % 8;
        let q = Tensor::f_cat(&[&scaled, &rel_h, &rel_w], -1)?.f_constant_pad_nd([0, filling])?; // [B, heads, N, d + H + W + filling]
        let key_positions = key_positions.f_to_kind(self.precision)?.f_expand([b, heads, tokens, h + w], false)?; // [B, heads, N, H + W]
        let k = Tensor::f_cat(&[&k, &key_positions], -1)?.f_constant_pad_nd([0, filling])?; // [B, heads, N, d + H + W + filling]
        let v = v.f_constant_pad_nd([0, h + w + filling])?; // [B, heads, N, d + H + W + filling]

        let out = Tensor::f_scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, 1.0, false)?;
        let out = out.f_narrow(-1, 0, head_dim)?; // [B, heads, N, d]
        out.f_permute([0, 2, 1, 3])?.f_reshape([b, h, w, dim])
    }
}

impl How {
    fn one_product(side: i64, device: Device) -> Result<Self> {
        Ok(Self::OneProduct { table_rows: table_rows(side, device)?, key_positions: key_positions(side, device)? })
    }
}

/// For query i and key j the tables' row i - j + side - 1, as upstream's `get_rel_pos`.
fn table_rows(side: i64, device: Device) -> Result<Tensor> {
    let steps = Tensor::f_arange(side, (Kind::Int64, device))?;
    let distance = steps.f_unsqueeze(1)?.f_sub(&steps.f_unsqueeze(0)?)?; // [side, side]
    distance.f_add_scalar(side - 1)?.f_flatten(0, -1)
}

fn key_positions(side: i64, device: Device) -> Result<Tensor> {
    let one_hot = Tensor::f_eye(side, (KIND, device))?;
    let rows = one_hot.f_repeat_interleave_self_int(side, 0, None)?; // [side * side, side]
    let columns = one_hot.f_repeat([side, 1])?; // [side * side, side]
    Tensor::f_cat(&[rows, columns], 1)
}

/// Windows it takes to cover a side.
fn windows_across(side: i64, window: i64) -> i64 {
    (side + window - 1) / window
}

/// Cuts into windows, padding right and bottom with zero tokens where the side is no multiple of the window.
/// [B, H, W, C] -> [B * windows, window, window, C]
fn partition(x: &Tensor, window: i64) -> Result<Tensor> {
    let (b, h, w, c) = x.size4()?;
    let (down, across) = (windows_across(h, window), windows_across(w, window));
    let (pad_h, pad_w) = (down * window - h, across * window - w);
    let padded = if pad_h + pad_w > 0 { &x.f_constant_pad_nd([0, 0, 0, pad_w, 0, pad_h])? } else { x }; // [B, H + pad, W + pad, C]
    padded.f_view([b, down, window, across, window, c])?.f_permute([0, 1, 3, 2, 4, 5])?.f_reshape([
        b * down * across,
        window,
        window,
        c,
    ]) // [B * windows, window, window, C]
}

/// Puts windows back together and drops the padding; the sizes are those before. [B * windows, window, window, C] -> [B, H, W, C]
fn unpartition(windows: &Tensor, window: i64, (b, h, w, _): (i64, i64, i64, i64)) -> Result<Tensor> {
    let c = windows.size4()?.3;
    let (down, across) = (windows_across(h, window), windows_across(w, window));
    windows
        .f_view([b, down, across, window, window, c])?
        .f_permute([0, 1, 3, 2, 4, 5])?
        .f_reshape([b, down * window, across * window, c])? // [B, H + pad, W + pad, C]
        .f_narrow(1, 0, h)?
        .f_narrow(2, 0, w) // [B, H, W, C]
}

/// Two convolutions that bring the tokens to the decoder's width.
struct Neck {
    conv1: Conv2d,
    norm1: LayerNorm2d,
    conv2: Conv2d,
    norm2: LayerNorm2d,
}

impl Neck {
    fn new(weights: &Weights) -> Result<Self> {
        Ok(Self {
            conv1: Conv2d::new(&weights.child("0"), 1, 0)?,
            norm1: LayerNorm2d::new(&weights.child("1"))?,
            conv2: Conv2d::new(&weights.child("2"), 1, 1)?,
            norm2: LayerNorm2d::new(&weights.child("3"))?,
        })
    }

    /// [B, dim, T, T] -> [B, C, T, T]
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.norm1.forward(&self.conv1.forward(x)?)?;
        self.norm2.forward(&self.conv2.forward(&x)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        Checkpoint,
        sam::{EncoderPass, Kept, Sam},
    };

    /// An embedding, and the gradients of all parameters, in f64 for the comparison.
    fn embedding_and_gradients(sam: &Sam, kept: Kept) -> (Tensor, Vec<Tensor>) {
        tch::manual_seed(5);
        let size = sam.architecture.image_size;
        let image = Tensor::randn([1, 3, size, size], (Kind::Float, Device::Cpu));
        let pass = EncoderPass::forward(&sam.image_encoder, &image, kept).unwrap();
        let embedding = pass.embedding().detach();
        let scalar = (pass.embedding() * Tensor::randn(embedding.size(), (Kind::Float, Device::Cpu))).sum(Kind::Float);
        (embedding, pass.gradients(&scalar, &sam.image_encoder, &sam.encoder_parameters).unwrap())
    }

    fn sams() -> impl Iterator<Item = Sam> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity");
        // Padded windows beside a global block; global blocks alone; unusual sizes.
        ["mixed", "global", "tall"].into_iter().map(move |name| {
            Sam::new(&Checkpoint::read(&folder.join(format!("{name}.safetensors"))).unwrap(), Device::Cpu).unwrap()
        })
    }

    #[test]
    fn both_ways_to_attend_give_the_same_embedding_and_the_same_gradients() {
        for mut sam in sams() {
            let (expected, expected_gradients) = embedding_and_gradients(&sam, Kept::Activations);
            for block in &mut sam.image_encoder.blocks {
                assert!(matches!(block.attn.how, How::Tiles));
                block.attn.how = How::one_product(block.attn.side, Device::Cpu).unwrap();
            }
            let (found, gradients) = embedding_and_gradients(&sam, Kept::Activations);
            let off = |found: &Tensor, expected: &Tensor| {
                (found - expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[]).max(1e-3)
            };
            assert!(off(&found, &expected) < 1e-5, "{:e}", off(&found, &expected));
            for (place, (found, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
                let off = off(found, expected);
                assert!(off < 1e-4, "{}: off by {off:e} of the largest", sam.encoder_parameters.name(place));
            }
        }
    }

    #[test]
    fn in_bf16_the_embedding_is_near_and_every_parameter_has_a_gradient_in_fp32() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/mixed.safetensors");
        let checkpoint = Checkpoint::read(&path).unwrap();
        let sam = |precision| Sam::with_precision(&checkpoint, Device::Cpu, precision).unwrap();
        let (expected, expected_gradients) = embedding_and_gradients(&sam(Kind::Float), Kept::Activations);
        for kept in [Kept::Activations, Kept::Inputs] {
            let (found, gradients) = embedding_and_gradients(&sam(Kind::BFloat16), kept);
            let off = |found: &Tensor, expected: &Tensor| {
                (found - expected).norm().double_value(&[]) / expected.norm().double_value(&[])
            };
            assert!((1e-5..0.05).contains(&off(&found, &expected)), "{:e}", off(&found, &expected));
            for (found, expected) in gradients.iter().zip(&expected_gradients) {
                assert_eq!((found.kind(), found.size()), (Kind::Float, expected.size()));
            }
            let all = |gradients: &[Tensor]| Tensor::cat(&gradients.iter().map(|one| one.flatten(0, -1)).collect::<Vec<_>>(), 0);
            let off = off(&all(&gradients), &all(&expected_gradients));
            assert!(off < 0.1, "{off:e}");
        }
    }

    #[test]
    fn a_pass_that_keeps_inputs_alone_has_the_same_gradients_bit_for_bit() {
        for sam in sams() {
            let (expected, expected_gradients) = embedding_and_gradients(&sam, Kept::Activations);
            let (found, gradients) = embedding_and_gradients(&sam, Kept::Inputs);
            assert!(found.equal(&expected));
            for (place, (found, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
                assert!(found.equal(expected), "{}", sam.encoder_parameters.name(place));
            }
        }
    }
}
