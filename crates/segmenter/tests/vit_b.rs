//! ViT-B at its real size against the official implementation, with weights that follow from their names; see `parity/vit_b.py`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use image::RgbImage;
use segmenter::{
    Checkpoint,
    sam::{Extent, Sam, preprocess},
};
use tch::{Tensor, no_grad};

fn fixture(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(file)
}

/// The numbers of a tensor: `SplitMix64` of the place, started at the `FNV-1a` hash of the name, from -1 to 1, then scaled.
fn counted(name: &str, shape: &[usize]) -> impl Iterator<Item = f32> {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    let (factor, offset) = match shape {
        _ if name.contains("pos") => (0.25, 0.0),
        [_, inner @ ..] if !inner.is_empty() => ((3.0 / inner.iter().product::<usize>() as f64).sqrt() as f32, 0.0),
        _ => (0.125, if name.ends_with("weight") { 1.0 } else { 0.0 }),
    };
    (1..=shape.iter().product::<usize>() as u64).map(move |place| {
        let mut z = seed.wrapping_add(place.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((z >> 40) as f32 / 8_388_608.0 - 1.0) * factor + offset
    })
}

/// A safetensors file of all tensors whose names and sizes stand in the lines.
fn write_checkpoint(names_and_sizes: &str, path: &Path) {
    let tensor = |line: &str| {
        let (name, sizes) = line.split_once(' ').unwrap();
        let shape: Vec<usize> = sizes.split(' ').map(|size| size.parse().unwrap()).collect();
        (name.to_owned(), shape)
    };
    let tensors: Vec<(String, Vec<usize>)> = names_and_sizes.lines().map(tensor).collect();
    let mut end = 0;
    let entry = |(name, shape): &(String, Vec<usize>)| {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
    };
    let header = format!("{{{}}}", tensors.iter().map(entry).collect::<Vec<_>>().join(","));
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    for (name, shape) in &tensors {
        for number in counted(name, shape) {
            file.write_all(&number.to_le_bytes()).unwrap();
        }
    }
    file.flush().unwrap();
}

#[test]
fn vit_b_embeds_an_image_as_the_official_implementation_does() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("vit_b.safetensors");
    write_checkpoint(&fs::read_to_string(fixture("vit_b.names")).unwrap(), &path);
    let sam = Sam::new(&Checkpoint::read(&path).unwrap(), tch::Device::Cpu).unwrap();

    let expected = Tensor::read_safetensors(fixture("vit_b.expected.safetensors")).unwrap();
    let tensor = |name| &expected.iter().find(|(found, _)| found == name).unwrap().1;
    let (height, width, _) = tensor("image").size3().unwrap();
    let bytes = Vec::<u8>::try_from(tensor("image").flatten(0, -1)).unwrap();
    let image = RgbImage::from_raw(width as u32, height as u32, bytes).unwrap();
    let extent = Extent::new(image.width(), image.height(), sam.architecture.image_size);
    let pixels = preprocess(&image, &extent, tch::Device::Cpu).unwrap();
    let embedding = no_grad(|| sam.image_encoder.forward(&pixels)).unwrap();

    let found = embedding.flatten(0, -1).slice(0, 0, None, 257);
    let scale = tensor("embedding").abs().max().double_value(&[]);
    let error = (found - tensor("embedding")).abs().max().double_value(&[]) / scale;
    println!("off by {error:.1e} of the largest number");
    assert!(error < 1e-4, "off by {error:e} of the largest number");
}
