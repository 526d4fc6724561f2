use std::{
    cell::RefCell,
    fs::File,
    io::{Cursor, Read as _, Seek as _, Write as _},
};

use segmenter::Checkpoint;
use tempfile::NamedTempFile;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// Six tensors that share storages, have strides, or 16 bits.
pub const STORAGES: &[u8] = include_bytes!("../../../crates/segmenter/tests/parity/storages.pth");
/// Their names; made by that file.
const PICKLE: &str = "storages/data.pkl";

/// Any file.
pub fn file(bytes: &[u8]) {
    thread_local! {
        static PLACE: RefCell<NamedTempFile> = RefCell::new(NamedTempFile::new().expect("there is a folder for such files"));
    }
    PLACE.with_borrow_mut(|place| {
        write(place.as_file_mut(), bytes);
        match Checkpoint::read(place.path()) {
            Ok(checkpoint) => assert_eq!(checkpoint.sha256(), segmenter::sha256(bytes)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

fn write(file: &mut File, bytes: &[u8]) {
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(bytes)).expect("a small file");
}

/// A zip, or else a pickle in an otherwise sound file: its sum of bytes would give damage away before it is read.
pub fn pth(bytes: &[u8]) {
    if bytes.starts_with(b"PK") { file(bytes) } else { file(&around(bytes)) }
}

/// The pickle of the sound file.
pub fn pickle() -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(STORAGES)).expect("it is sound");
    let mut pickle = Vec::new();
    archive.by_name(PICKLE).expect("it has one").read_to_end(&mut pickle).expect("it is sound");
    pickle
}

fn around(pickle: &[u8]) -> Vec<u8> {
    let mut sound = ZipArchive::new(Cursor::new(STORAGES)).expect("it is sound");
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for index in 0..sound.len() {
        let mut entry = sound.by_index(index).expect("it is sound");
        let name = entry.name().expect("it is sound").into_owned();
        let mut content = Vec::new();
        if name == PICKLE {
            content.extend(pickle);
        } else {
            entry.read_to_end(&mut content).expect("it is sound");
        }
        zip.start_file(name, stored).and_then(|()| Ok(zip.write_all(&content)?)).expect("memory takes all");
    }
    zip.finish().expect("memory takes all").into_inner()
}

/// Every operation of a pickle is a byte and makes at most one value; the file itself is held twice, beside the one made around a pickle.
pub fn limit(bytes: &[u8]) -> usize {
    256 * bytes.len() + (256 << 10)
}
