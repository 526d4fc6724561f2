use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::layers::Tensors;

/// Heads of every attention in the mask decoder: the one size of a SAM that no tensor's shape tells.
pub const DECODER_HEADS: i64 = 8;

/// What the names of a SAM's tensors begin with.
const PARTS: [&str; 3] = ["image_encoder.", "prompt_encoder.", "mask_decoder."];

/// No SAM comes near it; it keeps sums and products of sizes far from overflow.
const MAX_SIZE: i64 = 1 << 16;

/// How many tensors of each kind an error lists before it counts the rest.
const MAX_LISTED: usize = 20;

/// Every size of a SAM, read from the shapes of its checkpoint's tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Architecture {
    /// Pixels a side of the square image the encoder sees (S): grid times patch.
    pub image_size: i64,
    /// Pixels a side of a patch.
    pub patch: i64,
    /// Tokens a side (T).
    pub grid: i64,
    /// The encoder's width.
    pub dim: i64,
    /// The encoder's attention heads.
    pub heads: i64,
    /// Hidden width of the encoder's MLPs.
    pub mlp: i64,
    /// For each of the encoder's blocks the tokens a side of its windows, or `None` if it attends over the whole grid.
    pub windows: Vec<Option<i64>>,
    /// The width of the embedding, the prompts and the decoder (C).
    pub embedding: i64,
    /// Hidden width of the prompt encoder's mask downscaling.
    pub mask_in_chans: i64,
    /// Blocks of the decoder's transformer.
    pub decoder_depth: usize,
    /// Hidden width of the decoder's MLPs.
    pub decoder_mlp: i64,
    /// Inner width of the decoder's cross-attentions: the embedding divided by upstream's `attention_downsample_rate`.
    pub decoder_inner: i64,
    /// Masks the decoder predicts, of which the first is the single-mask output (M).
    pub mask_tokens: i64,
    /// Layers of the head that predicts the masks' IoUs.
    pub iou_head_depth: usize,
    /// Hidden width of that head.
    pub iou_head_hidden: i64,
}

/// Why tensors are not those of a SAM. Everything that is wrong with the names and shapes is listed at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchitectureError {
    missing: Vec<String>,
    unexpected: Vec<String>,
    misshaped: Vec<String>,
    impossible: Vec<String>,
    /// Whether all names and shapes were compared, or only those that tell the sizes.
    sizes_known: bool,
}

impl std::error::Error for ArchitectureError {}

impl fmt::Display for ArchitectureError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("of the wrong shape", &self.misshaped),
            ("impossible", &self.impossible),
        ];
        let mut separator = "";
        for (kind, list) in kinds.into_iter().filter(|(_, list)| !list.is_empty()) {
            let listed = list.iter().take(MAX_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let rest = list.len().saturating_sub(MAX_LISTED);
            let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            write!(formatter, "{separator}{} {kind}: {listed}{more}", list.len())?;
            separator = "; ";
        }
        if !self.sizes_known {
            formatter.write_str("; the model's sizes cannot be read from these tensors, so its others were not checked")?;
        }
        Ok(())
    }
}

impl Architecture {
    /// Reads the sizes and checks the name and shape of every tensor against them.
    pub fn read(tensors: &Tensors) -> Result<Self, ArchitectureError> {
        let shapes: Shapes = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        Self::of(&shapes)
    }

    fn of(shapes: &Shapes) -> Result<Self, ArchitectureError> {
        let mut reader = Reader { shapes, missing: Vec::new(), misshaped: Vec::new() };
        let (sizes, impossible) = reader.read();
        let Reader { missing, misshaped, .. } = reader;
        let readable = missing.is_empty() && misshaped.is_empty();
        if !readable || !impossible.is_empty() {
            // Which names belong inside the three parts depends on the sizes; a name outside them never belongs.
            let outside = |name: &&String| !PARTS.iter().any(|part| name.starts_with(part));
            let unexpected = shapes.keys().filter(outside).cloned().collect();
            // What seems impossible about sizes that were not read says nothing.
            let impossible = if readable { impossible } else { Vec::new() };
            return Err(ArchitectureError { missing, unexpected, misshaped, impossible, sizes_known: false });
        }

        let expected = sizes.expected();
        let missing: Vec<String> = expected.keys().filter(|name| !shapes.contains_key(*name)).cloned().collect();
        let unexpected: Vec<String> = shapes.keys().filter(|name| !expected.contains_key(*name)).cloned().collect();
        let misshaped: Vec<String> = expected
            .iter()
            .filter_map(|(name, shape)| match shapes.get(name) {
                Some(found) if found != shape => Some(format!("{name} is {found:?}, expected {shape:?}")),
                _ => None,
            })
            .collect();
        if !missing.is_empty() || !unexpected.is_empty() || !misshaped.is_empty() {
            return Err(ArchitectureError { missing, unexpected, misshaped, impossible: Vec::new(), sizes_known: true });
        }
        Ok(sizes)
    }
}

/// Shapes by tensor name.
pub type Shapes = BTreeMap<String, Vec<i64>>;

/// Reads single sizes, noting each tensor that is not there or has another rank.
struct Reader<'a> {
    shapes: &'a Shapes,
    missing: Vec<String>,
    misshaped: Vec<String>,
}

impl Reader<'_> {
    /// The sizes, and what is impossible about them. Only to be used if nothing is missing, mis-shaped or impossible.
    fn read(&mut self) -> (Architecture, Vec<String>) {
        let [dim, _, patch, _] = self.shape("image_encoder.patch_embed.proj.weight");
        let [_, grid, _, _] = self.shape("image_encoder.pos_embed");
        let [mlp, _] = self.shape("image_encoder.blocks.0.mlp.lin1.weight");
        let [_, head_dim] = self.shape("image_encoder.blocks.0.attn.rel_pos_h");
        let tables: Vec<i64> = (0..self.count("image_encoder.blocks."))
            .map(|i| self.shape::<2>(&format!("image_encoder.blocks.{i}.attn.rel_pos_h"))[0])
            .collect();
        let [embedding, _, _, _] = self.shape("image_encoder.neck.0.weight");
        let [mask_in_chans, _, _, _] = self.shape("prompt_encoder.mask_downscaling.3.weight");
        let [decoder_mlp, _] = self.shape("mask_decoder.transformer.layers.0.mlp.lin1.weight");
        let [decoder_inner, _] = self.shape("mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight");
        let [mask_tokens, _] = self.shape("mask_decoder.mask_tokens.weight");
        let [iou_head_hidden, _] = self.shape("mask_decoder.iou_prediction_head.layers.0.weight");

        let mut impossible = Vec::new();
        let mut require = |holds: bool, what: String| {
            if !holds {
                impossible.push(what);
            }
        };
        require(dim % head_dim == 0, format!("the encoder's width {dim} is no multiple of its head's width {head_dim}"));
        require(embedding % DECODER_HEADS == 0, format!("the embedding's width {embedding} is no multiple of {DECODER_HEADS}"));
        require(
            decoder_inner % DECODER_HEADS == 0,
            format!("the cross-attentions' width {decoder_inner} is no multiple of {DECODER_HEADS} heads"),
        );
        require(mask_in_chans % 4 == 0, format!("mask_in_chans is {mask_in_chans}, no multiple of 4"));
        for (i, table) in tables.iter().enumerate() {
            // Upstream would interpolate a longer table; no published SAM has one, and it may as well be a damaged checkpoint.
            require(
                table % 2 == 1 && *table < 2 * grid,
                format!(
                    "block {i} has {table} relative positions, expected an odd number up to {} for a grid of {grid}",
                    2 * grid - 1
                ),
            );
        }

        let windows = tables.iter().map(|table| if *table == 2 * grid - 1 { None } else { Some((table + 1) / 2) }).collect();
        let sizes = Architecture {
            image_size: grid * patch,
            patch,
            grid,
            dim,
            heads: dim / head_dim,
            mlp,
            windows,
            embedding,
            mask_in_chans,
            decoder_depth: self.count("mask_decoder.transformer.layers."),
            decoder_mlp,
            decoder_inner,
            mask_tokens,
            iou_head_depth: self.count("mask_decoder.iou_prediction_head.layers."),
            iou_head_hidden,
        };
        (sizes, impossible)
    }

    /// A shape of known rank with sizes from 1 to [`MAX_SIZE`]; ones, and a note, where there is no such tensor.
    fn shape<const RANK: usize>(&mut self, name: &str) -> [i64; RANK] {
        let Some(found) = self.shapes.get(name) else {
            self.missing.push(name.into());
            return [1; RANK];
        };
        match <[i64; RANK]>::try_from(found.as_slice()) {
            Ok(shape) if shape.iter().all(|size| (1..=MAX_SIZE).contains(size)) => shape,
            _ => {
                self.misshaped.push(format!("{name} is {found:?}, expected {RANK} sizes from 1 to {MAX_SIZE}"));
                [1; RANK]
            }
        }
    }

    /// How many numbered parts there are below a prefix: as many as there are numbers, so that a gap shows as missing tensors.
    fn count(&self, prefix: &str) -> usize {
        let number = |name: &String| name.strip_prefix(prefix)?.split('.').next()?.parse::<u32>().ok();
        let numbers: BTreeSet<u32> = self.shapes.range(prefix.to_owned()..).map_while(|(name, _)| number(name)).collect();
        numbers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sam::OfficialSize;

    fn vit_b() -> Architecture {
        OfficialSize::VitB.into()
    }

    #[test]
    fn reads_every_size_of_vit_b_from_its_shapes() {
        let shapes = vit_b().expected();
        assert_eq!(Architecture::of(&shapes), Ok(vit_b()));
        let encoder = shapes.iter().filter(|(name, _)| name.starts_with("image_encoder."));
        let parameters: i64 = encoder.map(|(_, shape)| shape.iter().product::<i64>()).sum();
        assert_eq!(parameters, 89_670_912, "the encoder's published size is 89.7 M");
    }

    #[test]
    fn lists_missing_unexpected_and_misshaped_tensors_together() {
        let mut shapes = vit_b().expected();
        shapes.remove("image_encoder.neck.1.bias");
        shapes.insert("optimizer.state".into(), vec![1]);
        shapes.insert("mask_decoder.iou_token.weight".into(), vec![2, 256]);
        let error = Architecture::of(&shapes).unwrap_err().to_string();
        assert_eq!(
            error,
            "1 missing: image_encoder.neck.1.bias; 1 unexpected: optimizer.state; \
             1 of the wrong shape: mask_decoder.iou_token.weight is [2, 256], expected [1, 256]"
        );
    }

    #[test]
    fn a_lost_block_shows_as_its_missing_tensors() {
        let mut shapes = vit_b().expected();
        shapes.retain(|name, _| !name.starts_with("image_encoder.blocks.3."));
        let error = Architecture::of(&shapes).unwrap_err().to_string();
        assert!(error.contains("missing: image_encoder.blocks.3.attn.rel_pos_h"), "{error}");
    }

    #[test]
    fn refuses_sizes_that_cannot_be() {
        for (name, shape, part) in [
            ("image_encoder.blocks.1.attn.rel_pos_h", vec![28, 64], "block 1 has 28 relative positions"),
            ("image_encoder.blocks.1.attn.rel_pos_h", vec![129, 64], "expected an odd number up to 127"),
            ("image_encoder.blocks.0.attn.rel_pos_h", vec![27, 50], "no multiple of its head's width 50"),
            ("image_encoder.blocks.0.attn.rel_pos_h", vec![27, 0], "expected 2 sizes from 1 to 65536"),
            ("image_encoder.pos_embed", vec![1, i64::MAX, 1, 768], "expected 4 sizes from 1 to 65536"),
            ("image_encoder.pos_embed", vec![], "expected 4 sizes"),
        ] {
            let mut shapes = vit_b().expected();
            shapes.insert(name.into(), shape);
            let error = Architecture::of(&shapes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn says_which_tensors_another_architecture_lacks() {
        let error =
            Architecture::of(&Shapes::from([("layer1.0.conv1.weight".into(), vec![64, 3, 7, 7])])).unwrap_err().to_string();
        assert!(error.contains("missing: image_encoder.patch_embed.proj.weight, image_encoder.pos_embed"), "{error}");
        assert!(error.contains("; 1 unexpected: layer1.0.conv1.weight; the model's sizes cannot be read"), "{error}");
    }

    #[test]
    fn lists_what_never_belongs_to_a_sam_where_the_sizes_cannot_be_read() {
        let mut shapes = vit_b().expected();
        shapes.remove("image_encoder.pos_embed");
        shapes.insert("mask_decoder.mask_tokens.weight".into(), vec![4]);
        shapes.insert("optimizer.state".into(), vec![1]);
        let error = Architecture::of(&shapes).unwrap_err().to_string();
        assert_eq!(
            error,
            "1 missing: image_encoder.pos_embed; 1 unexpected: optimizer.state; \
             1 of the wrong shape: mask_decoder.mask_tokens.weight is [4], expected 2 sizes from 1 to 65536; \
             the model's sizes cannot be read from these tensors, so its others were not checked"
        );
    }
}
