//! The way to the GPU. The binaries are not linked to libtorch's CUDA part, so that they start where only the CPU part is installed.

use std::ffi::CStr;

use crate::SegmenterError;

/// libtorch's CUDA part, found as any library: beside the checkout's libtorch, or in `LD_LIBRARY_PATH`.
const LIBRARY: &CStr = c"libtorch_cuda.so";

/// The first CUDA device, for which libtorch's CUDA part is loaded into the process and stays there.
///
/// To be called before anything runs a backward pass or asks about CUDA: libtorch looks once for the parts it has.
pub fn first_cuda_device() -> Result<tch::Device, SegmenterError> {
    load().map_err(|reason| SegmenterError::NoCuda { reason })?;
    if tch::Cuda::is_available() {
        Ok(tch::Device::Cuda(0))
    } else {
        Err(SegmenterError::NoCuda { reason: "libtorch_cuda.so is loaded, and finds no GPU or no driver for it".into() })
    }
}

/// Loads libtorch's CUDA part, which makes itself known to libtorch; or the dynamic linker's reason why not.
#[expect(unsafe_code, reason = "the dynamic linker is C's alone")]
fn load() -> Result<(), String> {
    // SAFETY: the name is a C string. What runs on loading are libtorch's own initialisers, as if it were linked, and it is never unloaded.
    let handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: the text is null, or a C string of this thread's that lives until its next call to the dynamic linker, and is copied before.
    let reason = unsafe {
        let text = libc::dlerror();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    Err(format!("libtorch_cuda.so cannot be loaded: {}", reason.unwrap_or_else(|| "the dynamic linker gives no reason".into())))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use crate::{Checkpoint, Device, Segmenter, SegmenterError};

    /// Where libtorch is installed for the CPU alone, its CUDA part is a file that lacks its own libraries, of which cuDNN is one.
    /// On a machine with a GPU there is nothing to refuse, and the test says so.
    #[test]
    fn cuda_is_looked_for_in_libtorchs_cuda_part_and_refused_with_a_reason() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let checkpoint = Checkpoint::read(&root.join("tests/parity/tall.safetensors")).unwrap();
        let result = Segmenter::new(&checkpoint, Device::Cuda);

        let loaded = fs::read_to_string("/proc/self/maps").unwrap().contains("/libtorch_cuda.so");
        let installed = root.join("../../.deps/torch/../nvidia/cudnn").exists();
        assert!(loaded || !installed, "libtorch's CUDA part is installed and not in the process");
        assert_eq!(tch::utils::has_cudart(), loaded, "libtorch knows of its CUDA part");
        match result {
            Ok(_) => eprintln!("skipped the refusal: this machine has a GPU"),
            Err(error) => {
                let expected = if loaded { "finds no GPU or no driver" } else { "cannot open shared object file" };
                let message = error.to_string();
                assert!(matches!(error, SegmenterError::NoCuda { .. }) && message.contains(expected), "{message}");
                assert!(message.contains("libtorch_cuda.so") && message.contains("DOTMASK_TORCH=full make setup"), "{message}");
            }
        }
    }
}
