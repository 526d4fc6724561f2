use tch::Tensor;

use super::{
    Architecture, Result,
    architecture::DECODER_HEADS,
    layers::{LayerNorm, Linear, Weights},
};

const EPSILON: f64 = 1e-5;

/// Tokens and image attend to each other; upstream's `TwoWayTransformer`.
pub struct TwoWayTransformer {
    layers: Vec<TwoWayBlock>,
    final_attn_token_to_image: Attention,
    norm_final_attn: LayerNorm,
}

impl TwoWayTransformer {
    pub fn new(weights: &Weights, architecture: &Architecture) -> Result<Self> {
        let layers = (0..architecture.decoder_depth).map(|i| TwoWayBlock::new(&weights.child(&format!("layers.{i}")), i == 0));
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            final_attn_token_to_image: Attention::new(&weights.child("final_attn_token_to_image"))?,
            norm_final_attn: LayerNorm::new(&weights.child("norm_final_attn"), EPSILON)?,
        })
    }

    /// Image [B, C, T, T], its positions [1, C, T, T] and tokens [B, N, C] -> tokens [B, N, C] and image tokens [B, T * T, C].
    pub fn forward(&self, image: &Tensor, image_position: &Tensor, tokens: &Tensor) -> Result<(Tensor, Tensor)> {
        let mut keys = image.f_flatten(2, 3)?.f_permute([0, 2, 1])?; // [B, T * T, C]
        let key_position = image_position.f_flatten(2, 3)?.f_permute([0, 2, 1])?; // [1, T * T, C]
        let mut queries = tokens.shallow_clone();
        for layer in &self.layers {
            (queries, keys) = layer.forward(&queries, &keys, tokens, &key_position)?;
        }
        let q = queries.f_add(tokens)?;
        let k = keys.f_add(&key_position)?;
        let queries = queries.f_add(&self.final_attn_token_to_image.forward(&q, &k, &keys)?)?;
        Ok((self.norm_final_attn.forward(&queries)?, keys))
    }
}

/// Self-attention of tokens, tokens to image, MLP on tokens, image to tokens; upstream's `TwoWayAttentionBlock`.
struct TwoWayBlock {
    self_attn: Attention,
    norm1: LayerNorm,
    cross_attn_token_to_image: Attention,
    norm2: LayerNorm,
    lin1: Linear,
    lin2: Linear,
    norm3: LayerNorm,
    cross_attn_image_to_token: Attention,
    norm4: LayerNorm,
    /// In the first block the tokens are still their own positions: self-attention adds none and has no residual.
    first: bool,
}

impl TwoWayBlock {
    fn new(weights: &Weights, first: bool) -> Result<Self> {
        let norm = |name| LayerNorm::new(&weights.child(name), EPSILON);
        Ok(Self {
            self_attn: Attention::new(&weights.child("self_attn"))?,
            norm1: norm("norm1")?,
            cross_attn_token_to_image: Attention::new(&weights.child("cross_attn_token_to_image"))?,
            norm2: norm("norm2")?,
            lin1: Linear::new(&weights.child("mlp.lin1"))?,
            lin2: Linear::new(&weights.child("mlp.lin2"))?,
            norm3: norm("norm3")?,
            cross_attn_image_to_token: Attention::new(&weights.child("cross_attn_image_to_token"))?,
            norm4: norm("norm4")?,
            first,
        })
    }

    /// Queries [B, N, C] and keys [B, T * T, C], each with positions, to queries and keys of the same shapes.
    fn forward(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        query_position: &Tensor,
        key_position: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let queries = if self.first {
            self.self_attn.forward(queries, queries, queries)?
        } else {
            let q = queries.f_add(query_position)?;
            queries.f_add(&self.self_attn.forward(&q, &q, queries)?)?
        };
        let queries = self.norm1.forward(&queries)?;

        let q = queries.f_add(query_position)?;
        let k = keys.f_add(key_position)?;
        let queries = queries.f_add(&self.cross_attn_token_to_image.forward(&q, &k, keys)?)?;
        let queries = self.norm2.forward(&queries)?;

        let mlp = self.lin2.forward(&self.lin1.forward(&queries)?.f_relu()?)?;
        let queries = self.norm3.forward(&queries.f_add(&mlp)?)?;

        let q = queries.f_add(query_position)?;
        let keys = keys.f_add(&self.cross_attn_image_to_token.forward(&k, &q, &queries)?)?;
        Ok((queries, self.norm4.forward(&keys)?))
    }
}

/// Multi-head attention whose inner width the checkpoint decides (upstream's `downsample_rate`).
#[expect(clippy::struct_field_names, reason = "the checkpoint's names")]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
}

impl Attention {
    fn new(weights: &Weights) -> Result<Self> {
        let linear = |name| Linear::new(&weights.child(name));
        Ok(Self {
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            out_proj: linear("out_proj")?,
        })
    }

    /// Queries [B, N, C], keys and values [B, M, C] -> [B, N, C]
    fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let q = separate_heads(&self.q_proj.forward(q)?)?;
        let k = separate_heads(&self.k_proj.forward(k)?)?;
        let v = separate_heads(&self.v_proj.forward(v)?)?;
        let out = Tensor::f_scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false)?; // [B, heads, N, d]
        self.out_proj.forward(&out.f_transpose(1, 2)?.f_flatten(2, 3)?) // [B, N, C]
    }
}

/// [B, N, inner] -> [B, heads, N, inner / heads]
fn separate_heads(x: &Tensor) -> Result<Tensor> {
    let (b, n, inner) = x.size3()?;
    x.f_view([b, n, DECODER_HEADS, inner / DECODER_HEADS])?.f_transpose(1, 2)
}
