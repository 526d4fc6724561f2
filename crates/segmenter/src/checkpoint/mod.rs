//! Reading a checkpoint: safetensors, or the zip of pickle and raw numbers that `torch.save` writes; with the official names or
//! those of Hugging Face's transformers.

mod huggingface;
mod pickle;
mod pth;
mod random;
mod safetensors;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use crate::sam::Tensors;

/// A SAM's tensors by name, in fp32 on the CPU, and what file they came from.
pub struct Checkpoint {
    path: PathBuf,
    sha256: String,
    tensors: Tensors,
}

/// Why a file is not a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system will not give the bytes.
    #[error("cannot read checkpoint {}: {reason}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// A directory, a device, or a file no SAM has the size of.
    #[error("checkpoint {} is {what}; expected a file of at most {} bytes", path.display(), Checkpoint::MAX_BYTES)]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// Bytes of another kind.
    #[error("{} is no checkpoint: {what}; expected .safetensors, or a .pth written by torch.save", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What its first bytes look like.
        what: &'static str,
    },
    /// Bytes that begin well and do not hold together.
    #[error("checkpoint {} is damaged or cut short: {reason}; fetch it again and compare its sha256", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not hold together.
        reason: String,
    },
    /// Sound, but holding something other than plain tensors.
    #[error("checkpoint {} holds {what}; save the model's bare state_dict in float32, float16 or bfloat16", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it holds.
        what: String,
    },
}

/// What the readers of the two formats say, who do not know the file's name.
enum Refusal {
    Damaged(String),
    Unsupported(String),
}

impl Checkpoint {
    /// The largest that is read, in bytes; SAM's largest has 2.6 GB.
    pub const MAX_BYTES: u64 = 8 << 30;

    /// Reads the whole file. What it holds is checked against SAM's architecture by [`crate::Segmenter::new`].
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let bytes = read_file(path)?;
        let tensors = match Format::of(&bytes) {
            Ok(Format::Safetensors) => safetensors::read(&bytes),
            Ok(Format::Pth) => pth::read(&bytes),
            Err(what) => return Err(CheckpointError::UnknownFormat { path: path.into(), what }),
        };
        let tensors =
            tensors.and_then(huggingface::with_official_names).and_then(check_finite).map_err(|refusal| match refusal {
                Refusal::Damaged(reason) => CheckpointError::Damaged { path: path.into(), reason },
                Refusal::Unsupported(what) => CheckpointError::Unsupported { path: path.into(), what },
            })?;
        Ok(Self { path: path.into(), sha256: sha256(&bytes), tensors })
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the file, in lower-case hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// All tensors by name.
    pub(crate) fn tensors(&self) -> &Tensors {
        &self.tensors
    }
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn read_file(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let unreadable = |reason| CheckpointError::Unreadable { path: path.into(), reason };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    let refuse = |what: String| CheckpointError::NotAFile { path: path.into(), what };
    if metadata.is_dir() {
        return Err(refuse("a directory".into()));
    }
    // Reading from a pipe or a device might never end.
    if !metadata.is_file() {
        return Err(refuse("not a regular file".into()));
    }
    if metadata.len() > Checkpoint::MAX_BYTES {
        return Err(refuse(format!("{} bytes long", metadata.len())));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    File::open(path).map_err(unreadable)?.take(Checkpoint::MAX_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

enum Format {
    Safetensors,
    Pth,
}

impl Format {
    /// By the first bytes; what they look like if by neither format.
    fn of(bytes: &[u8]) -> Result<Self, &'static str> {
        match bytes {
            [] => Err("it is empty"),
            [b'P', b'K', 3, 4, ..] => Ok(Self::Pth),
            // Eight bytes of length, then JSON.
            [_, _, _, _, _, _, 0, 0, b'{', ..] => Ok(Self::Safetensors),
            [0x80, 2..=5, ..] => Err("it is a bare pickle, as torch.save wrote before version 1.6; load and save it again"),
            _ if bytes.starts_with(b"version https://git-lfs") => Err("it is a Git LFS pointer; fetch the file it points to"),
            [b'<', ..] => Err("it looks like a web page, perhaps a failed download"),
            _ => Err("its first bytes are of neither format"),
        }
    }
}

/// Numbers of any supported kind to fp32; widening float16 and bfloat16 is exact.
fn to_fp32(tensor: &Tensor) -> Result<Tensor, Refusal> {
    tensor.f_to_kind(Kind::Float).and_then(|tensor| tensor.f_contiguous()).map_err(|error| Refusal::Damaged(error.to_string()))
}

/// One NaN in a weight makes every mask NaN, long after its cause.
fn check_finite(tensors: Tensors) -> Result<Tensors, Refusal> {
    for (name, tensor) in &tensors {
        let finite = tensor.f_isfinite().and_then(|finite| finite.f_all()).and_then(|all| all.f_int64_value(&[]));
        if !matches!(finite, Ok(1)) {
            return Err(Refusal::Damaged(format!("{name} holds NaN or infinity")));
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `tests/parity/make_fixtures.py` saved.
    fn fixture(file: &str) -> Tensors {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(file);
        Checkpoint::read(&path).unwrap().tensors
    }

    #[test]
    fn reads_tensors_that_share_storages_have_strides_or_sixteen_bits() {
        let (found, expected) = (fixture("storages.pth"), fixture("storages.expected.safetensors"));
        assert_eq!(found.len(), 6);
        for (name, expected) in &expected {
            assert_eq!(found[name].size(), expected.size(), "{name}");
            assert!(found[name].equal(expected), "{name}");
        }
    }

    #[test]
    fn reads_the_same_numbers_from_both_formats() {
        let (safetensors, pth) = (fixture("tall.safetensors"), fixture("tall.pth"));
        assert!(safetensors.keys().eq(pth.keys()));
        assert!(safetensors.iter().all(|(name, tensor)| tensor.equal(&pth[name])));
    }
}
