//! What may be wrong with a checkpoint's file, and what is said about it.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use segmenter::{Checkpoint, Device, Segmenter};
use tempfile::TempDir;

fn fixture(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(file)
}

/// Why a file of these bytes does not become a segmenter; `None` if it does.
fn refusal(bytes: &[u8]) -> Option<String> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("weights.file");
    fs::write(&path, bytes).unwrap();
    refusal_of(&path)
}

fn refusal_of(path: &Path) -> Option<String> {
    match Checkpoint::read(path) {
        Err(error) => Some(error.to_string()),
        Ok(checkpoint) => Segmenter::new(&checkpoint, Device::Cpu).err().map(|error| error.to_string()),
    }
}

/// A safetensors file of one-dimensional tensors of zeros.
fn safetensors(names_and_lengths: &[(&str, usize)]) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut end = 0;
    for (name, length) in names_and_lengths {
        let start = end;
        end += 4 * length;
        entries.push(format!(r#""{name}":{{"dtype":"F32","shape":[{length}],"data_offsets":[{start},{end}]}}"#));
    }
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; end]].concat()
}

#[test]
fn knows_a_checkpoint_by_its_sha256() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("empty.safetensors");
    fs::write(&path, b"\x02\0\0\0\0\0\0\0{}").unwrap();
    let checkpoint = Checkpoint::read(&path).unwrap();
    assert_eq!(checkpoint.sha256(), "411a485216e432ece6b9af94fa32154cf79a2a56d4f81266baa50063f45092bd");
    assert_eq!(checkpoint.path(), path);
}

#[test]
fn says_of_a_missing_file_where_it_looked() {
    let error = refusal_of(Path::new("/nowhere/sam.pth")).unwrap();
    assert!(error.starts_with("cannot read checkpoint /nowhere/sam.pth: No such file"), "{error}");
}

#[test]
fn refuses_what_is_not_a_regular_file() {
    for (path, part) in [("/", "is a directory"), ("/dev/zero", "is not a regular file")] {
        let error = refusal_of(Path::new(path)).unwrap();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn says_what_a_file_of_another_kind_looks_like() {
    for (bytes, part) in [
        (&b""[..], "it is empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "before version 1.6"),
        (b"\x89PNG\r\n\x1a\n", "neither format"),
    ] {
        let error = refusal(bytes).unwrap();
        assert!(error.contains("weights.file is no checkpoint") && error.contains(part), "{error}");
        assert!(error.contains("expected .safetensors, or a .pth"), "{error}");
    }
}

#[test]
fn says_of_a_truncated_file_that_it_is_cut_short() {
    for file in ["tall.safetensors", "tall.pth"] {
        let whole = fs::read(fixture(file)).unwrap();
        for length in [9, 100, 1_000, whole.len() / 2, whole.len() - 1] {
            let error = refusal(&whole[..length]).unwrap();
            assert!(
                error.contains("weights.file is damaged or cut short") && error.contains("fetch it again"),
                "{file}: {error}"
            );
        }
    }
}

#[test]
fn says_which_tensors_of_another_architecture_do_not_fit() {
    let error = refusal(&safetensors(&[("conv1.weight", 4), ("fc.bias", 2)])).unwrap();
    assert!(error.contains("weights.file is not a SAM checkpoint"), "{error}");
    assert!(error.contains("missing: image_encoder.patch_embed.proj.weight"), "{error}");
}

#[test]
fn refuses_weights_that_are_not_finite() {
    let mut bytes = safetensors(&[("a", 2)]);
    let length = bytes.len();
    bytes[length - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = refusal(&bytes).unwrap();
    assert!(error.contains("a holds NaN or infinity"), "{error}");
}

#[test]
fn refuses_a_tensor_without_numbers() {
    let error = refusal(&safetensors(&[("a", 0)])).unwrap();
    assert!(error.contains("a has the shape [0]"), "{error}");
}

#[test]
fn refuses_kinds_of_numbers_that_weights_do_not_have() {
    let header = br#"{"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 8]].concat();
    let error = refusal(&bytes).unwrap();
    assert!(error.contains("holds ids in I64") && error.contains("float32"), "{error}");
}

#[test]
fn refuses_a_zip_that_torch_did_not_write() {
    // An empty zip with one entry's header, as any archiver makes it.
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("notes.txt", zip::write::SimpleFileOptions::default()).unwrap();
    let bytes = zip.finish().unwrap().into_inner();
    let error = refusal(&bytes).unwrap();
    assert!(error.contains("a zip without data.pkl"), "{error}");
}

#[test]
fn refuses_a_compressed_entry_before_reading_it() {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let deflated = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("archive/data.pkl", deflated).unwrap();
    std::io::Write::write_all(&mut zip, &vec![b')'; 1 << 20]).unwrap();
    let bytes = zip.finish().unwrap().into_inner();
    let error = refusal(&bytes).unwrap();
    assert!(error.contains("data.pkl compressed"), "{error}");
}

/// A zip of an uncompressed pickle.
fn zip_of(pickle: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored).unwrap();
    std::io::Write::write_all(&mut zip, pickle).unwrap();
    zip.finish().unwrap().into_inner()
}

#[test]
fn refuses_a_pickle_that_is_longer_than_any_of_sam() {
    let error = refusal(&zip_of(&vec![b')'; (1 << 20) + 1])).unwrap();
    assert!(error.contains("data.pkl has 1048577 bytes, expected at most 1048576"), "{error}");
    assert!(!refusal(&zip_of(&vec![b')'; 1 << 20])).unwrap().contains("expected at most"));
}

#[test]
fn refuses_a_directory_that_says_two_sizes_of_an_entry() {
    let mut bytes = zip_of(&[b')'; 4_000]);
    let entry = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    // How long it is out of the archive.
    bytes[entry + 24..entry + 28].copy_from_slice(&10_u32.to_le_bytes());
    let error = refusal(&bytes).unwrap();
    assert!(error.contains("data.pkl has 10 bytes, but 4000 in the archive"), "{error}");
}

#[test]
fn refuses_a_directory_of_more_entries_than_any_of_sam() {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let name = "x".repeat(200);
    for number in 0..40_000 {
        zip.start_file(format!("{name}{number}"), zip::write::SimpleFileOptions::default()).unwrap();
    }
    let error = refusal(&zip.finish().unwrap().into_inner()).unwrap();
    assert!(error.contains("its directory or its entries take more bytes than they may"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes, reading ends in a model or in an error that names the file. The first and last bytes hold the formats' structure.
    #[test]
    fn survives_any_damage_to_a_file(
        format in prop::sample::select(vec!["tall.safetensors", "tall.pth"]),
        damage in prop::collection::vec((any::<bool>(), 0_usize..20_000, any::<u8>()), 1..8),
    ) {
        let mut bytes = fs::read(fixture(format)).unwrap();
        for (from_the_end, distance, byte) in damage {
            let place = if from_the_end { bytes.len() - 1 - distance } else { distance };
            bytes[place] = byte;
        }
        if let Some(error) = refusal(&bytes) {
            prop_assert!(error.contains("weights.file"), "{}", error);
        }
    }
}
