//! What the worker's tests share.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use image::{Rgb, RgbImage};
use sha2::{Digest, Sha256};

/// The binary under test, without the settings of whoever runs the tests.
pub fn worker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DOTMASK_")) {
        command.env_remove(name);
    }
    command
}

/// A process that has ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Runs the command to its end.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the binary can be started");
        Self {
            code: output.status.code().unwrap_or_else(|| panic!("ended by a signal: {}", output.status)),
            stdout: String::from_utf8(output.stdout).expect("stdout is text"),
            stderr: String::from_utf8(output.stderr).expect("stderr is text"),
        }
    }
}

/// A picture of a few dark discs on a light ground, 96 x 64; the disc at (20, 20) and others like it, none at (60, 40).
pub fn draw_cells(folder: &Path) -> PathBuf {
    let is_cell = |x: u32, y: u32| {
        [(20, 20), (76, 14), (40, 52)].iter().any(|&(cx, cy)| x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < 100)
    };
    let picture = RgbImage::from_fn(96, 64, |x, y| {
        let texture = ((x * 7 + y * 13) % 16) as u8;
        if is_cell(x, y) {
            Rgb([90 + texture, 40 + texture, 120 + texture])
        } else {
            Rgb([225 + texture, 190 + texture, 210 + texture])
        }
    });
    let path = folder.join("cells.png");
    picture.save(&path).expect("the folder takes files");
    path
}

/// A PNG whose header promises that many pixels, with hardly any data behind it.
pub fn png_of_size(width: u32, height: u32) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", &header[..]), (b"IDAT", b"\x78\x9c"), (b"IEND", b"")] {
        let chunk = [kind, data].concat();
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&chunk);
        png.extend(crc32(&chunk).to_be_bytes());
    }
    png
}

/// PNG's checksum (ISO 3309), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// A whole picture, too small for the points that these tests use.
pub fn small_png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::new(8, 8).write_to(&mut bytes, image::ImageFormat::Png).expect("memory takes bytes");
    bytes.into_inner()
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
