//! Weights that nobody trained, for measurements where a real checkpoint is not at hand: a step's time does not depend on them.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use super::Checkpoint;
use crate::sam::Architecture;

impl Checkpoint {
    /// Writes a safetensors file of a SAM of these sizes, whose weights follow from their names: the same file every time and everywhere.
    pub fn write_random(architecture: &Architecture, path: &Path) -> io::Result<()> {
        let shapes = architecture.expected();
        let mut end = 0;
        let entry = |(name, shape): (&String, &Vec<i64>)| {
            let start = end;
            end += 4 * shape.iter().product::<i64>();
            format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
        };
        let mut header = format!("{{{}}}", shapes.iter().map(entry).collect::<Vec<_>>().join(","));
        // The numbers behind it begin where numbers of any kind may.
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for (name, shape) in &shapes {
            for number in numbers(name, shape) {
                file.write_all(&number.to_le_bytes())?;
            }
        }
        file.flush()
    }
}

/// The numbers of a tensor: `SplitMix64` of the place, started at the `FNV-1a` hash of the name, from -1 to 1; then scaled to what a
/// trained tensor has.
fn numbers(name: &str, shape: &[i64]) -> impl Iterator<Item = f32> {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    let (factor, offset) = match shape {
        _ if name.contains("pos") => (0.25, 0.0),
        [_, inner @ ..] if !inner.is_empty() => ((3.0 / inner.iter().product::<i64>() as f64).sqrt() as f32, 0.0),
        _ => (0.125, if name.ends_with("weight") { 1.0 } else { 0.0 }),
    };
    (1..=shape.iter().product::<i64>() as u64).map(move |place| {
        let mut z = seed.wrapping_add(place.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((z >> 40) as f32 / 8_388_608.0 - 1.0) * factor + offset
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Segmenter, sha256};

    #[test]
    fn writes_the_same_usable_checkpoint_every_time() {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/tall.safetensors");
        let architecture = Segmenter::new(&Checkpoint::read(&tiny).unwrap(), Device::Cpu).unwrap().architecture().clone();
        let folder = tempfile::TempDir::new().unwrap();
        let contents = ["first", "second"].map(|name| {
            let path = folder.path().join(name);
            Checkpoint::write_random(&architecture, &path).unwrap();
            std::fs::read(path).unwrap()
        });
        assert_eq!(sha256(&contents[0]), sha256(&contents[1]));
        let checkpoint = Checkpoint::read(&folder.path().join("first")).unwrap();
        assert_eq!(Segmenter::new(&checkpoint, Device::Cpu).unwrap().architecture(), &architecture);
        let weight = &checkpoint.tensors()["image_encoder.blocks.0.mlp.lin1.weight"];
        let (mean, deviation) = (weight.mean(None).double_value(&[]), weight.std(false).double_value(&[]));
        let expected = (1.0 / weight.size()[1] as f64).sqrt();
        assert!(mean.abs() < 0.1 * expected && (deviation / expected - 1.0).abs() < 0.1, "{mean} {deviation} {expected}");
    }
}
