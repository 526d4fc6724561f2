//! Data sets of a few pixels, as files in a temporary folder.

use std::{fs, io::Cursor};

use image::{GrayImage, ImageFormat};
use tempfile::TempDir;

use super::LocalFolder;

/// A folder that is gone with its owner, and the files in it.
pub fn folder(files: &[(&str, Vec<u8>)]) -> (TempDir, LocalFolder) {
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let files = LocalFolder::new(root.path(), 1 << 30);
    (root, files)
}

/// A label map of 8 bits.
pub fn label_map(format: ImageFormat, width: u32, height: u32, labels: &[u8]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    GrayImage::from_raw(width, height, labels.to_vec()).unwrap().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A NIfTI volume of 8 bits, its axes pointing right, anterior and superior.
pub fn nifti(sizes: [u16; 3], voxels: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 352];
    bytes[..4].copy_from_slice(&348_i32.to_le_bytes());
    for (axis, size) in [3, sizes[0], sizes[1], sizes[2]].into_iter().enumerate() {
        bytes[40 + 2 * axis..][..2].copy_from_slice(&size.to_le_bytes());
    }
    // 8 bits unsigned; voxels of 1 mm; data at byte 352; an affine in the sform's rows.
    bytes[70..72].copy_from_slice(&2_u16.to_le_bytes());
    bytes[72..74].copy_from_slice(&8_u16.to_le_bytes());
    for place in [76, 80, 84, 88] {
        bytes[place..][..4].copy_from_slice(&1.0_f32.to_le_bytes());
    }
    bytes[108..112].copy_from_slice(&352.0_f32.to_le_bytes());
    bytes[254..256].copy_from_slice(&1_u16.to_le_bytes());
    for place in [280, 300, 320] {
        bytes[place..][..4].copy_from_slice(&1.0_f32.to_le_bytes());
    }
    bytes[344..348].copy_from_slice(b"n+1\0");
    bytes.extend_from_slice(voxels);
    bytes
}
