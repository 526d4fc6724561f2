//! The names and shapes of all tensors of a SAM of given sizes.

use super::architecture::{Architecture, Shapes};

impl Architecture {
    /// The name and shape of every tensor of such a SAM.
    pub(crate) fn expected(&self) -> Shapes {
        let mut shapes = Expected(Shapes::new());
        self.expect_image_encoder(&mut shapes);
        self.expect_prompt_encoder(&mut shapes);
        self.expect_mask_decoder(&mut shapes);
        shapes.0
    }

    fn expect_image_encoder(&self, shapes: &mut Expected) {
        let &Self { patch, grid, dim, heads, mlp, embedding: c, .. } = self;
        shapes.add("image_encoder.pos_embed", &[1, grid, grid, dim]);
        shapes.weight_and_bias("image_encoder.patch_embed.proj", &[dim, 3, patch, patch], dim);
        for (i, window) in self.windows.iter().enumerate() {
            let block = format!("image_encoder.blocks.{i}");
            let table = 2 * window.unwrap_or(grid) - 1;
            shapes.norm(&format!("{block}.norm1"), dim);
            shapes.add(&format!("{block}.attn.rel_pos_h"), &[table, dim / heads]);
            shapes.add(&format!("{block}.attn.rel_pos_w"), &[table, dim / heads]);
            shapes.linear(&format!("{block}.attn.qkv"), dim, 3 * dim);
            shapes.linear(&format!("{block}.attn.proj"), dim, dim);
            shapes.norm(&format!("{block}.norm2"), dim);
            shapes.linear(&format!("{block}.mlp.lin1"), dim, mlp);
            shapes.linear(&format!("{block}.mlp.lin2"), mlp, dim);
        }
        shapes.add("image_encoder.neck.0.weight", &[c, dim, 1, 1]);
        shapes.norm("image_encoder.neck.1", c);
        shapes.add("image_encoder.neck.2.weight", &[c, c, 3, 3]);
        shapes.norm("image_encoder.neck.3", c);
    }

    fn expect_prompt_encoder(&self, shapes: &mut Expected) {
        let &Self { embedding: c, mask_in_chans: hidden, .. } = self;
        shapes.add("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", &[2, c / 2]);
        // Background point, foreground point, and two corners of a box.
        for i in 0..4 {
            shapes.add(&format!("prompt_encoder.point_embeddings.{i}.weight"), &[1, c]);
        }
        shapes.add("prompt_encoder.not_a_point_embed.weight", &[1, c]);
        shapes.add("prompt_encoder.no_mask_embed.weight", &[1, c]);
        shapes.weight_and_bias("prompt_encoder.mask_downscaling.0", &[hidden / 4, 1, 2, 2], hidden / 4);
        shapes.norm("prompt_encoder.mask_downscaling.1", hidden / 4);
        shapes.weight_and_bias("prompt_encoder.mask_downscaling.3", &[hidden, hidden / 4, 2, 2], hidden);
        shapes.norm("prompt_encoder.mask_downscaling.4", hidden);
        shapes.weight_and_bias("prompt_encoder.mask_downscaling.6", &[c, hidden, 1, 1], c);
    }

    fn expect_mask_decoder(&self, shapes: &mut Expected) {
        let &Self { embedding: c, decoder_mlp, decoder_inner, mask_tokens, iou_head_depth, iou_head_hidden, .. } = self;
        shapes.add("mask_decoder.iou_token.weight", &[1, c]);
        shapes.add("mask_decoder.mask_tokens.weight", &[mask_tokens, c]);
        for i in 0..self.decoder_depth {
            let layer = format!("mask_decoder.transformer.layers.{i}");
            shapes.attention(&format!("{layer}.self_attn"), c, c);
            shapes.attention(&format!("{layer}.cross_attn_token_to_image"), c, decoder_inner);
            shapes.attention(&format!("{layer}.cross_attn_image_to_token"), c, decoder_inner);
            shapes.linear(&format!("{layer}.mlp.lin1"), c, decoder_mlp);
            shapes.linear(&format!("{layer}.mlp.lin2"), decoder_mlp, c);
            for norm in 1..=4 {
                shapes.norm(&format!("{layer}.norm{norm}"), c);
            }
        }
        shapes.attention("mask_decoder.transformer.final_attn_token_to_image", c, decoder_inner);
        shapes.norm("mask_decoder.transformer.norm_final_attn", c);
        shapes.weight_and_bias("mask_decoder.output_upscaling.0", &[c, c / 4, 2, 2], c / 4);
        shapes.norm("mask_decoder.output_upscaling.1", c / 4);
        shapes.weight_and_bias("mask_decoder.output_upscaling.3", &[c / 4, c / 8, 2, 2], c / 8);
        for i in 0..mask_tokens {
            let mlp = format!("mask_decoder.output_hypernetworks_mlps.{i}");
            shapes.mlp(&mlp, &[c, c, c, c / 8]);
        }
        let mut widths = vec![iou_head_hidden; iou_head_depth + 1];
        widths[0] = c;
        widths[iou_head_depth] = mask_tokens;
        shapes.mlp("mask_decoder.iou_prediction_head", &widths);
    }
}

/// Collects names and shapes by kind of layer.
struct Expected(Shapes);

impl Expected {
    fn add(&mut self, name: &str, shape: &[i64]) {
        self.0.insert(name.into(), shape.into());
    }

    fn weight_and_bias(&mut self, name: &str, weight: &[i64], out: i64) {
        self.add(&format!("{name}.weight"), weight);
        self.add(&format!("{name}.bias"), &[out]);
    }

    fn linear(&mut self, name: &str, input: i64, out: i64) {
        self.weight_and_bias(name, &[out, input], out);
    }

    fn norm(&mut self, name: &str, width: i64) {
        self.weight_and_bias(name, &[width], width);
    }

    fn attention(&mut self, name: &str, width: i64, inner: i64) {
        for projection in ["q_proj", "k_proj", "v_proj"] {
            self.linear(&format!("{name}.{projection}"), width, inner);
        }
        self.linear(&format!("{name}.out_proj"), inner, width);
    }

    /// `widths`: of the input, then of each layer's output.
    fn mlp(&mut self, name: &str, widths: &[i64]) {
        for (i, pair) in widths.windows(2).enumerate() {
            self.linear(&format!("{name}.layers.{i}"), pair[0], pair[1]);
        }
    }
}
