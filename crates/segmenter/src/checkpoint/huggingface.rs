//! The names that Hugging Face's transformers gives to the same tensors, in its `SamModel`.

use super::Refusal;
use crate::sam::Tensors;

/// A piece of a transformers name and of the official one, replaced from first to last. (What `convert_sam_to_hf.py` of transformers
/// does, the other way round.)
const PIECES: [(&str, &str); 19] = [
    ("vision_encoder.layers.", "image_encoder.blocks."),
    ("vision_encoder.", "image_encoder."),
    ("patch_embed.projection.", "patch_embed.proj."),
    ("neck.conv1.", "neck.0."),
    ("neck.layer_norm1.", "neck.1."),
    ("neck.conv2.", "neck.2."),
    ("neck.layer_norm2.", "neck.3."),
    ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"),
    ("shared_embedding.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"),
    ("prompt_encoder.point_embed.", "prompt_encoder.point_embeddings."),
    ("mask_embed.conv1.", "mask_downscaling.0."),
    ("mask_embed.layer_norm1.", "mask_downscaling.1."),
    ("mask_embed.conv2.", "mask_downscaling.3."),
    ("mask_embed.layer_norm2.", "mask_downscaling.4."),
    ("mask_embed.conv3.", "mask_downscaling.6."),
    ("upscale_conv1.", "output_upscaling.0."),
    ("upscale_layer_norm.", "output_upscaling.1."),
    ("upscale_conv2.", "output_upscaling.3."),
    (".layer_norm", ".norm"),
];

/// The same tensors under the official names, if they have those of transformers; otherwise as they are.
pub fn with_official_names(tensors: Tensors) -> Result<Tensors, Refusal> {
    if !tensors.keys().any(|name| name.starts_with("vision_encoder.")) {
        return Ok(tensors);
    }
    let mut official = Tensors::new();
    for (name, tensor) in &tensors {
        let official_name = official_name(name, &tensors);
        // The positions' frequencies stand there twice, for the points and for the image; SAM has them once.
        if let Some(twin) = official.insert(official_name.clone(), tensor.shallow_clone())
            && !(twin.size() == tensor.size() && twin.equal(tensor))
        {
            return Err(Refusal::Unsupported(format!("two different tensors for SAM's {official_name}, of which {name} is one")));
        }
    }
    Ok(official)
}

fn official_name(name: &str, tensors: &Tensors) -> String {
    let name = official_layer(name, tensors).unwrap_or_else(|| name.to_owned());
    PIECES.iter().fold(name, |name, (from, to)| name.replace(from, to))
}

/// A perceptron's layers are numbered from 0 officially; in transformers the first is `proj_in`, the last `proj_out`, and `layers`
/// are those between. `None` for a tensor of no perceptron.
fn official_layer(name: &str, tensors: &Tensors) -> Option<String> {
    let layer = |mlp, number, parameter| Some(format!("{mlp}.layers.{number}.{parameter}"));
    if let Some((mlp, parameter)) = name.split_once(".proj_in.") {
        return layer(mlp, 0, parameter);
    }
    if let Some((mlp, parameter)) = name.split_once(".proj_out.") {
        let between = format!("{mlp}.layers.");
        let count = tensors.keys().filter(|other| other.starts_with(&between) && other.ends_with(parameter)).count();
        return layer(mlp, count + 1, parameter);
    }
    let (mlp, numbered) = name.split_once(".layers.")?;
    if mlp != "mask_decoder.iou_prediction_head" && !mlp.starts_with("mask_decoder.output_hypernetworks_mlps.") {
        return None;
    }
    let (number, parameter) = numbered.split_once('.')?;
    layer(mlp, number.parse::<usize>().ok()?.checked_add(1)?, parameter)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::{Checkpoint, sam::Architecture};

    fn fixture(file: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(file)
    }

    /// Tensors of zeros that take no memory, from lines of a name and sizes.
    fn zeros(names_and_sizes: &str) -> Tensors {
        let zero = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let tensor = |line: &str| {
            let mut words = line.split(' ');
            let name = words.next().unwrap().to_owned();
            let sizes: Vec<i64> = words.map(|size| size.parse().unwrap()).collect();
            (name, zero.expand(&sizes, false))
        };
        names_and_sizes.lines().map(tensor).collect()
    }

    #[test]
    fn every_tensor_of_transformers_vit_b_has_its_official_name() {
        let names = std::fs::read_to_string(fixture("huggingface.vit_b.names")).unwrap();
        let tensors = zeros(&names);
        assert_eq!(tensors.len(), 315);
        let Ok(tensors) = with_official_names(tensors) else { panic!("must be renamed") };
        assert_eq!(tensors.len(), 314, "the frequencies of the positions stand there twice");
        let vit_b = Architecture::read(&tensors).unwrap();
        assert_eq!((vit_b.image_size, vit_b.dim, vit_b.heads, vit_b.windows.len(), vit_b.iou_head_depth), (1024, 768, 12, 12, 3));
    }

    #[test]
    fn a_file_that_transformers_wrote_holds_the_official_files_tensors() {
        let (official, found) = (fixture("global.safetensors"), fixture("global.huggingface.safetensors"));
        let (official, found) = (Checkpoint::read(&official).unwrap(), Checkpoint::read(&found).unwrap());
        assert!(official.tensors().keys().eq(found.tensors().keys()));
        assert!(official.tensors().iter().all(|(name, tensor)| tensor.equal(&found.tensors()[name])));
    }

    #[test]
    fn refuses_two_different_tensors_for_one() {
        let mut tensors = zeros("vision_encoder.pos_embed 1 4 4 8\nshared_image_embedding.positional_embedding 2 8");
        let other = Tensor::ones([2, 8], (Kind::Float, Device::Cpu));
        tensors.insert("prompt_encoder.shared_embedding.positional_embedding".into(), other);
        let Err(Refusal::Unsupported(what)) = with_official_names(tensors) else { panic!("must be refused") };
        assert!(what.contains("SAM's prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"), "{what}");
    }

    #[test]
    fn leaves_other_names_alone() {
        let tensors = zeros("image_encoder.neck.conv1.weight 1");
        let Ok(tensors) = with_official_names(tensors) else { panic!("must be left") };
        assert!(tensors.contains_key("image_encoder.neck.conv1.weight"));
    }
}
