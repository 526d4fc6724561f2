//! The official sizes: checkpoints as PyTorch saves them, and the official implementation's embedding of an image. They are made, and this
//! is run, by `scripts/parity`; without its folder there is nothing to compare with.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    env,
    path::{Path, PathBuf},
    time::Instant,
};

use image::RgbImage;
use segmenter::{
    Checkpoint,
    sam::{Extent, Sam, preprocess},
};
use tch::{Tensor, no_grad};

/// The largest error allowed, relative to the largest number of the expected embedding.
const TOLERANCE: f64 = 1e-4;

#[test]
fn the_official_sizes_embed_an_image_as_the_official_implementation_does() {
    let Some(folder) = env::var_os("DOTMASK_OFFICIAL_SIZES").map(PathBuf::from) else {
        println!("skipped: DOTMASK_OFFICIAL_SIZES names no folder; run scripts/parity");
        return;
    };
    let found = ["vit_b", "vit_l", "vit_h"].map(|size| folder.join(size).with_extension("pth"));
    let found: Vec<&PathBuf> = found.iter().filter(|checkpoint| checkpoint.exists()).collect();
    assert!(!found.is_empty(), "no checkpoint in {}; run scripts/parity", folder.display());
    for checkpoint in found {
        compare(checkpoint);
    }
}

fn compare(checkpoint: &Path) {
    let expected = Tensor::read_safetensors(checkpoint.with_extension("expected.safetensors")).unwrap();
    let tensor = |name| &expected.iter().find(|(found, _)| found == name).unwrap().1;
    let (height, width, _) = tensor("image").size3().unwrap();
    let bytes = Vec::<u8>::try_from(tensor("image").flatten(0, -1)).unwrap();
    let image = RgbImage::from_raw(width as u32, height as u32, bytes).unwrap();

    let started = Instant::now();
    let sam = Sam::new(&Checkpoint::read(checkpoint).unwrap(), tch::Device::Cpu).unwrap();
    let read = started.elapsed();
    let extent = Extent::new(image.width(), image.height(), sam.architecture.image_size);
    let pixels = preprocess(&image, &extent, tch::Device::Cpu).unwrap();
    let started = Instant::now();
    let embedding = no_grad(|| sam.image_encoder.forward(&pixels)).unwrap();
    let forward = started.elapsed();

    let scale = tensor("embedding").abs().max().double_value(&[]);
    let error = (embedding - tensor("embedding")).abs().max().double_value(&[]) / scale;
    println!("{}: read in {read:.1?}, embedded in {forward:.1?}, off by {error:.1e} of the largest number", checkpoint.display());
    assert!(error < TOLERANCE, "{} is off by {error:e}", checkpoint.display());
}
