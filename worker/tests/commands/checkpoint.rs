//! A SAM small enough for a fine-tuning step in milliseconds, with random weights: every tensor is in its place, and the masks
//! mean nothing.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

/// Tokens a side.
const GRID: usize = 8;
/// Pixels a side of a token.
const PATCH: usize = 4;
/// Width of the encoder and of the embedding.
const DIM: usize = 16;
/// Hidden width of the MLPs.
const MLP: usize = 32;
/// Inner width of the decoder's cross-attentions.
const INNER: usize = 8;
/// Masks the decoder predicts.
const MASKS: usize = 4;

/// Where that checkpoint is. Tests of several processes may write it at once: each writes its own file and renames it.
pub fn checkpoint() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join("tiny-sam.safetensors");
    let mut file = tempfile::NamedTempFile::new_in(folder).expect("the folder for tests takes files");
    file.write_all(&safetensors(&tiny_sam())).expect("the folder for tests takes files");
    file.persist(&path).expect("the folder for tests takes files");
    path
}

type Tensors = Vec<(String, Vec<usize>)>;

/// A safetensors file of those tensors: random weights scaled by their fan-in, ones for the weights of norms, zeros for biases.
pub fn safetensors(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    // A linear congruential generator (Knuth's MMIX): the same weights at each call.
    let mut state = 7_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    for (name, shape) in tensors {
        let begin = data.len();
        let fan_in: usize = shape.iter().skip(1).product();
        for _ in 0..shape.iter().product() {
            let value = match shape.len() {
                1 if name.ends_with("bias") => 0.0,
                1 => 1.0,
                _ => random() * (3.0 / fan_in as f32).sqrt(),
            };
            data.extend(value.to_le_bytes());
        }
        header.insert(name.clone(), serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]}));
    }
    let header = serde_json::to_vec(&header).expect("plain JSON");
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

/// Every tensor of the SAM, as upstream names and shapes them.
fn tiny_sam() -> Tensors {
    let mut sam = Builder(Vec::new());
    sam.add("image_encoder.pos_embed", &[1, GRID, GRID, DIM]);
    sam.with_bias("image_encoder.patch_embed.proj", &[DIM, 3, PATCH, PATCH], DIM);
    // One block attends within windows, one over the whole grid.
    for (block, reach) in [4, GRID].into_iter().enumerate() {
        let block = format!("image_encoder.blocks.{block}");
        sam.norm(&format!("{block}.norm1"), DIM);
        sam.add(&format!("{block}.attn.rel_pos_h"), &[2 * reach - 1, DIM / 2]);
        sam.add(&format!("{block}.attn.rel_pos_w"), &[2 * reach - 1, DIM / 2]);
        sam.linear(&format!("{block}.attn.qkv"), DIM, 3 * DIM);
        sam.linear(&format!("{block}.attn.proj"), DIM, DIM);
        sam.norm(&format!("{block}.norm2"), DIM);
        sam.linear(&format!("{block}.mlp.lin1"), DIM, MLP);
        sam.linear(&format!("{block}.mlp.lin2"), MLP, DIM);
    }
    sam.add("image_encoder.neck.0.weight", &[DIM, DIM, 1, 1]);
    sam.norm("image_encoder.neck.1", DIM);
    sam.add("image_encoder.neck.2.weight", &[DIM, DIM, 3, 3]);
    sam.norm("image_encoder.neck.3", DIM);

    sam.add("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", &[2, DIM / 2]);
    for name in ["point_embeddings.0", "point_embeddings.1", "point_embeddings.2", "point_embeddings.3"] {
        sam.add(&format!("prompt_encoder.{name}.weight"), &[1, DIM]);
    }
    sam.add("prompt_encoder.not_a_point_embed.weight", &[1, DIM]);
    sam.add("prompt_encoder.no_mask_embed.weight", &[1, DIM]);
    sam.with_bias("prompt_encoder.mask_downscaling.0", &[1, 1, 2, 2], 1);
    sam.norm("prompt_encoder.mask_downscaling.1", 1);
    sam.with_bias("prompt_encoder.mask_downscaling.3", &[4, 1, 2, 2], 4);
    sam.norm("prompt_encoder.mask_downscaling.4", 4);
    sam.with_bias("prompt_encoder.mask_downscaling.6", &[DIM, 4, 1, 1], DIM);

    sam.add("mask_decoder.iou_token.weight", &[1, DIM]);
    sam.add("mask_decoder.mask_tokens.weight", &[MASKS, DIM]);
    let layer = "mask_decoder.transformer.layers.0";
    sam.attention(&format!("{layer}.self_attn"), DIM);
    sam.attention(&format!("{layer}.cross_attn_token_to_image"), INNER);
    sam.attention(&format!("{layer}.cross_attn_image_to_token"), INNER);
    sam.linear(&format!("{layer}.mlp.lin1"), DIM, MLP);
    sam.linear(&format!("{layer}.mlp.lin2"), MLP, DIM);
    for norm in 1..=4 {
        sam.norm(&format!("{layer}.norm{norm}"), DIM);
    }
    sam.attention("mask_decoder.transformer.final_attn_token_to_image", INNER);
    sam.norm("mask_decoder.transformer.norm_final_attn", DIM);
    sam.with_bias("mask_decoder.output_upscaling.0", &[DIM, DIM / 4, 2, 2], DIM / 4);
    sam.norm("mask_decoder.output_upscaling.1", DIM / 4);
    sam.with_bias("mask_decoder.output_upscaling.3", &[DIM / 4, DIM / 8, 2, 2], DIM / 8);
    for mask in 0..MASKS {
        for (layer, width) in [DIM, DIM, DIM / 8].into_iter().enumerate() {
            sam.linear(&format!("mask_decoder.output_hypernetworks_mlps.{mask}.layers.{layer}"), DIM, width);
        }
    }
    for (layer, width) in [DIM, DIM, MASKS].into_iter().enumerate() {
        sam.linear(&format!("mask_decoder.iou_prediction_head.layers.{layer}"), DIM, width);
    }
    sam.0
}

struct Builder(Tensors);

impl Builder {
    fn add(&mut self, name: &str, shape: &[usize]) {
        self.0.push((name.into(), shape.into()));
    }

    fn with_bias(&mut self, name: &str, weight: &[usize], out: usize) {
        self.add(&format!("{name}.weight"), weight);
        self.add(&format!("{name}.bias"), &[out]);
    }

    fn linear(&mut self, name: &str, input: usize, out: usize) {
        self.with_bias(name, &[out, input], out);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.with_bias(name, &[width], width);
    }

    fn attention(&mut self, name: &str, inner: usize) {
        for projection in ["q_proj", "k_proj", "v_proj"] {
            self.linear(&format!("{name}.{projection}"), DIM, inner);
        }
        self.linear(&format!("{name}.out_proj"), inner, DIM);
    }
}
