use std::{
    cell::Cell,
    collections::HashMap,
    io::{self, Cursor, Read, Seek, SeekFrom},
    rc::Rc,
};

use tch::{Kind, Tensor};
use zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::{
    Refusal,
    pickle::{PickleError, StoredTensor, state_dict},
    to_fp32,
};
use crate::sam::Tensors;

/// ViT-H's pickle has a tenth of it.
const MAX_PICKLE_BYTES: u64 = 1 << 20;
/// ViT-H's directory has a hundredth of it.
const MAX_DIRECTORY_BYTES: u64 = 8 << 20;

/// Tensors of a `state_dict` that `torch.save` wrote: a zip of one pickle that names the tensors, and a file of raw numbers a storage.
///
/// The entries are uncompressed and never read beyond the archive's own length in sum, whatever its directory says of them and however they
/// overlap, so memory stays within a small multiple of it.
pub fn read(bytes: &[u8]) -> Result<Tensors, Refusal> {
    let mut archive = Archive::open(bytes)?;
    let program = archive.read("data.pkl", MAX_PICKLE_BYTES)?;
    let stored = state_dict(&program).map_err(|error| match error {
        PickleError::Malformed(reason) => Refusal::Damaged(reason),
        PickleError::NotAStateDict(what) => Refusal::Unsupported(what),
    })?;

    let mut storages: HashMap<Rc<str>, Tensor> = HashMap::new();
    let mut tensors = Tensors::new();
    let mut bytes_left = bytes.len() as u64;
    for (name, tensor) in stored {
        let damaged = |what: &str| Refusal::Damaged(format!("{name} {what}"));
        let (kind, width) = storage_kind(&name, &tensor.storage_class)?;
        let numbers = check_extent(&tensor).map_err(&damaged)?;
        // Tensors may share a storage; without this a small file could stand for any amount of memory.
        bytes_left =
            bytes_left.checked_sub(numbers * width).ok_or_else(|| damaged("and the tensors before it exceed the file"))?;

        if !storages.contains_key(&tensor.storage_key) {
            let expected = (tensor.storage_length as u64).saturating_mul(width);
            let raw = archive.read(&format!("data/{}", tensor.storage_key), expected)?;
            if raw.len() as u64 != expected {
                return Err(damaged(&format!("has {} bytes, expected {expected}", raw.len())));
            }
            let storage = Tensor::f_from_data_size(&raw, &[tensor.storage_length], kind);
            storages.insert(tensor.storage_key.clone(), storage.map_err(|error| damaged(&error.to_string()))?);
        }
        let storage = &storages[&tensor.storage_key];
        if storage.size() != [tensor.storage_length] || storage.kind() != kind {
            return Err(damaged("describes its storage otherwise than another tensor does"));
        }
        let view =
            storage.f_as_strided(&tensor.size, &tensor.stride, tensor.offset).map_err(|error| damaged(&error.to_string()))?;
        tensors.insert(name.to_string(), to_fp32(&view)?);
    }
    Ok(tensors)
}

/// A kind of number and its bytes.
fn storage_kind(name: &str, class: &str) -> Result<(Kind, u64), Refusal> {
    match class {
        "FloatStorage" => Ok((Kind::Float, 4)),
        "HalfStorage" => Ok((Kind::Half, 2)),
        "BFloat16Storage" => Ok((Kind::BFloat16, 2)),
        other => Err(Refusal::Unsupported(format!("{name} in a {other}"))),
    }
}

/// How many numbers the tensor has, if they all lie within its storage and are no more than the storage has.
fn check_extent(tensor: &StoredTensor) -> Result<u64, &'static str> {
    let StoredTensor { storage_length, offset, size, stride, .. } = tensor;
    if size.len() != stride.len() || size.len() > 8 {
        return Err("has more dimensions than a tensor of SAM, or strides that do not match them");
    }
    if size.iter().any(|&size| size < 1) || stride.iter().any(|&stride| stride < 0) || *offset < 0 {
        return Err("has a size, stride or offset that is negative or nothing");
    }
    let numbers = size.iter().try_fold(1_i64, |product, &size| product.checked_mul(size));
    let last =
        size.iter().zip(stride).try_fold(*offset, |last, (&size, &stride)| last.checked_add((size - 1).checked_mul(stride)?));
    match (numbers, last) {
        (Some(numbers), Some(last)) if numbers <= *storage_length && last < *storage_length => Ok(numbers as u64),
        _ => Err("reaches beyond its storage"),
    }
}

/// Bytes of which only so many are read, again or not.
struct Metered<'a> {
    bytes: Cursor<&'a [u8]>,
    /// Shared with whoever allows more.
    left: Rc<Cell<u64>>,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("its directory or its entries take more bytes than they may"))?);
        Ok(read)
    }
}

impl Seek for Metered<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

/// The zip, whose entries share one directory of any name.
struct Archive<'a> {
    zip: ZipArchive<Metered<'a>>,
    directory: String,
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let left = Rc::new(Cell::new(MAX_DIRECTORY_BYTES));
        let zip =
            ZipArchive::new(Metered { bytes: Cursor::new(bytes), left: Rc::clone(&left) }).map_err(|error| damaged(&error))?;
        left.set(bytes.len() as u64);
        let directory_of_pickle = |name: &[u8]| str::from_utf8(name.strip_suffix(b"/data.pkl")?).ok().map(str::to_owned);
        let directory = zip.file_names_raw().find_map(directory_of_pickle);
        let Some(directory) = directory else {
            return Err(Refusal::Unsupported("a zip without data.pkl, so not what torch.save writes".into()));
        };
        let mut archive = Self { zip, directory };
        match archive.read("byteorder", 16) {
            Ok(order) if order != b"little" => Err(Refusal::Unsupported("numbers in big-endian order".into())),
            // Older versions write no such entry, on little-endian machines.
            _ => Ok(archive),
        }
    }

    /// An entry's bytes, of which there may be `limit`.
    fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, Refusal> {
        let mut entry = self.zip.by_name(&format!("{}/{name}", self.directory)).map_err(|error| damaged(&error))?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(Refusal::Unsupported(format!("{name} compressed, which torch.save never does")));
        }
        if entry.size() > limit {
            return Err(Refusal::Damaged(format!("{name} has {} bytes, expected at most {limit}", entry.size())));
        }
        // Uncompressed, an entry has as many bytes in the archive as out of it; so it is not read beyond its limit.
        if entry.compressed_size() != entry.size() {
            let (size, stored) = (entry.size(), entry.compressed_size());
            return Err(Refusal::Damaged(format!("{name} has {size} bytes, but {stored} in the archive")));
        }
        let mut bytes = Vec::with_capacity(entry.size() as usize);
        entry.read_to_end(&mut bytes).map_err(|error| Refusal::Damaged(format!("{name}: {error}")))?;
        Ok(bytes)
    }
}

fn damaged(error: &ZipError) -> Refusal {
    Refusal::Damaged(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    #[test]
    fn entries_are_not_read_beyond_the_archives_length_in_sum_however_they_overlap() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, bytes) in [("a/data.pkl", &b"."[..]), ("a/data/0", &[7; 10_000])] {
            zip.start_file(name, stored).unwrap();
            zip.write_all(bytes).unwrap();
        }
        let bytes = zip.finish().unwrap().into_inner();
        let Ok(mut archive) = Archive::open(&bytes) else { panic!("it is sound") };
        assert!(archive.read("data/0", 10_000).is_ok_and(|read| read == [7; 10_000]));
        let Err(Refusal::Damaged(reason)) = archive.read("data/0", 10_000) else { panic!("twice is more than there is") };
        assert!(reason.contains("take more bytes than they may"), "{reason}");
    }

    #[test]
    fn refuses_a_tensor_that_reaches_beyond_its_storage() {
        let extent = |offset, size: &[i64], stride: &[i64]| {
            let (size, stride) = (size.to_vec(), stride.to_vec());
            check_extent(&StoredTensor {
                storage_class: "".into(),
                storage_key: "".into(),
                storage_length: 24,
                offset,
                size,
                stride,
            })
        };
        assert_eq!(extent(0, &[4, 6], &[6, 1]), Ok(24));
        assert_eq!(extent(6, &[3, 3], &[6, 2]), Ok(9));
        assert_eq!(extent(23, &[], &[]), Ok(1));
        let beyond = Err("reaches beyond its storage");
        assert_eq!(extent(1, &[4, 6], &[6, 1]), beyond);
        assert_eq!(extent(0, &[25], &[0]), beyond, "stride 0 would make much of little");
        assert_eq!(extent(0, &[i64::MAX, i64::MAX], &[0, 0]), beyond);
        assert_eq!(extent(0, &[3], &[i64::MAX]), beyond);
        assert_eq!(extent(i64::MAX, &[2], &[1]), beyond);
        for (offset, size, stride) in [(0, [-1], [1]), (0, [0], [1]), (0, [2], [-1]), (-1, [2], [1])] {
            assert_eq!(extent(offset, &size, &stride), Err("has a size, stride or offset that is negative or nothing"));
        }
        assert!(extent(0, &[1, 1], &[1]).is_err());
    }
}
