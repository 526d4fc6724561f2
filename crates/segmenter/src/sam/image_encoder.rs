use tch::{Device, Kind, Tensor};

use super::{
    Architecture, KIND, Result,
    layers::{Conv2d, LayerNorm, LayerNorm2d, Linear, Weights, gelu},
};

/// The ViT that turns an image into an embedding; upstream's `ImageEncoderViT`.
pub struct ImageEncoder {
    patch_embed: Conv2d,
    pos_embed: Tensor,
    blocks: Vec<Block>,
    neck: Neck,
}

impl ImageEncoder {
    pub(super) fn new(weights: &Weights, architecture: &Architecture) -> Result<Self> {
        let blocks = (0..architecture.windows.len()).map(|i| Block::new(&weights.child(&format!("blocks.{i}")), architecture, i));
        Ok(Self {
            patch_embed: Conv2d::new(&weights.child("patch_embed.proj"), architecture.patch, 0)?,
            pos_embed: weights.get("pos_embed")?,
            blocks: blocks.collect::<Result<_>>()?,
            neck: Neck::new(&weights.child("neck"))?,
        })
    }

    /// A preprocessed image to its embedding. [B, 3, S, S] -> [B, C, T, T]
    pub fn forward(&self, image: &Tensor) -> Result<Tensor> {
        // Contiguous, or every layer norm after it would copy: a permuted tensor's order in memory is inherited by what is added to it.
        let patches = self.patch_embed.forward(image)?.f_permute([0, 2, 3, 1])?.f_contiguous()?; // [B, T, T, dim]
        let mut x = patches.f_add(&self.pos_embed)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.neck.forward(&x.f_permute([0, 3, 1, 2])?) // [B, C, T, T]
    }
}

/// One transformer block, within windows or over the whole grid.
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
    /// Tokens a side of a window; `None` for a global block.
    window: Option<i64>,
}

impl Block {
    const EPSILON: f64 = 1e-6;

    fn new(weights: &Weights, architecture: &Architecture, index: usize) -> Result<Self> {
        let window = architecture.windows[index];
        Ok(Self {
            norm1: LayerNorm::new(&weights.child("norm1"), Self::EPSILON)?,
            attn: Attention::new(&weights.child("attn"), architecture.heads, window.unwrap_or(architecture.grid))?,
            norm2: LayerNorm::new(&weights.child("norm2"), Self::EPSILON)?,
            mlp: Mlp { lin1: Linear::new(&weights.child("mlp.lin1"))?, lin2: Linear::new(&weights.child("mlp.lin2"))? },
            window,
        })
    }

    /// [B, T, T, dim] -> [B, T, T, dim]
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.norm1.forward(x)?;
        let attended = match self.window {
            None => self.attn.forward(&normed)?,
            Some(window) => {
                let windows = partition(&normed, window)?; // [B * windows, window, window, dim]
                unpartition(&self.attn.forward(&windows)?, window, x.size4()?)?
            }
        };
        let x = x.f_add(&attended)?;
        x.f_add(&self.mlp.forward(&self.norm2.forward(&x)?)?)
    }
}

struct Mlp {
    lin1: Linear,
    lin2: Linear,
}

impl Mlp {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.lin2.forward(&gelu(&self.lin1.forward(x)?)?)
    }
}

/// Multi-head attention with decomposed relative positions, over a square of tokens.
struct Attention {
    qkv: Linear,
    proj: Linear,
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
    heads: i64,
    /// Row of the relative-position tables for each pair of query and key, along one axis. [side * side]
    table_rows: Tensor,
    /// One-hot row and one-hot column of each token. [side * side, 2 * side]
    key_positions: Tensor,
}

impl Attention {
    fn new(weights: &Weights, heads: i64, side: i64) -> Result<Self> {
        let rel_pos_h = weights.get("rel_pos_h")?;
        let device = rel_pos_h.device();
        Ok(Self {
            qkv: Linear::new(&weights.child("qkv"))?,
            proj: Linear::new(&weights.child("proj"))?,
            rel_pos_w: weights.get("rel_pos_w")?,
            heads,
            table_rows: table_rows(side, device)?,
            key_positions: key_positions(side, device)?,
            rel_pos_h,
        })
    }

    /// [B, H, W, dim] -> [B, H, W, dim], where H = W is the window's or the grid's side.
    ///
    /// A logit is q k / sqrt(d) plus q's dot products with the relative positions of k's row and column. Those are two lookups into
    /// what q alone decides (`rel_h`, `rel_w`), and a lookup is a product with a one-hot vector. So appending them to q, and k's one-hot
    /// row and column to k, makes the logit one dot product: exact, and the N x N bias upstream adds is never built.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, h, w, dim) = x.size4()?;
        let (tokens, heads, head_dim) = (h * w, self.heads, dim / self.heads);

        let qkv = self.qkv.forward(x)?.f_view([b, tokens, 3, heads, head_dim])?.f_permute([2, 0, 3, 1, 4])?; // [3, B, heads, N, d]
        let [q, k, v] = <[Tensor; 3]>::try_from(qkv.f_unbind(0)?).expect("the first dimension is 3"); // [B, heads, N, d]

        let grid = q.f_reshape([b * heads, h, w, head_dim])?; // [B * heads, H, W, d]
        let positions_h = self.rel_pos_h.f_index_select(0, &self.table_rows)?.f_view([h, h, head_dim])?; // [H, H, d]
        let positions_w = self.rel_pos_w.f_index_select(0, &self.table_rows)?.f_view([w, w, head_dim])?; // [W, W, d]
        let rel_h = Tensor::f_einsum("bhwc,hkc->bhwk", &[&grid, &positions_h], None::<i64>)?; // [B * heads, H, W, H]
        let rel_w = Tensor::f_einsum("bhwc,wkc->bhwk", &[&grid, &positions_w], None::<i64>)?; // [B * heads, H, W, W]

        let scaled = q.f_mul_scalar((head_dim as f64).powf(-0.5))?;
        let rel_h = rel_h.f_reshape([b, heads, tokens, h])?; // [B, heads, N, H]
        let rel_w = rel_w.f_reshape([b, heads, tokens, w])?; // [B, heads, N, W]
        let q = Tensor::f_cat(&[&scaled, &rel_h, &rel_w], -1)?; // [B, heads, N, d + H + W]
        let key_positions = self.key_positions.f_expand([b, heads, tokens, h + w], false)?; // [B, heads, N, H + W]
        let k = Tensor::f_cat(&[&k, &key_positions], -1)?; // [B, heads, N, d + H + W]
        // The fused kernels want q, k and v of one width; the zeros come out as zeros.
        let v = v.f_constant_pad_nd([0, h + w])?; // [B, heads, N, d + H + W]

        let out = Tensor::f_scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, 1.0, false)?;
        let out = out.f_narrow(-1, 0, head_dim)?; // [B, heads, N, d]
        self.proj.forward(&out.f_permute([0, 2, 1, 3])?.f_reshape([b, h, w, dim])?) // [B, H, W, dim]
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

/// Puts windows back together and drops the padding. [B * windows, window, window, C] -> [B, H, W, C]
fn unpartition(windows: &Tensor, window: i64, (b, h, w, c): (i64, i64, i64, i64)) -> Result<Tensor> {
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
