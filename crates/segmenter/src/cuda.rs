//! The way to the GPU. The binaries are not linked to libtorch's CUDA part, so that they start where only the CPU part is installed.

use std::ffi::CStr;

use crate::{SegmenterError, native};

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

/// What the first CUDA device's memory is at, whoever uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemory {
    /// In use.
    pub used_bytes: u64,
    /// All there is.
    pub total_bytes: u64,
}

/// Asks the CUDA runtime that libtorch has loaded; `None` where there is none, or no GPU.
#[expect(unsafe_code, reason = "the CUDA runtime is found by the dynamic linker and speaks C")]
pub fn gpu_memory() -> Option<GpuMemory> {
    type MemGetInfo = unsafe extern "C" fn(free: *mut usize, total: *mut usize) -> libc::c_int;
    // SAFETY: the name is a C string; the loaded libraries are searched, and nothing is called.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"cudaMemGetInfo".as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: this is the function's type in the runtime's header, cuda_runtime_api.h, in every version there is.
    let mem_get_info = unsafe { std::mem::transmute::<*mut libc::c_void, MemGetInfo>(symbol) };
    let (mut free, mut total) = (0, 0);
    // SAFETY: both point to values that outlive the call.
    let status = unsafe { mem_get_info(&raw mut free, &raw mut total) };
    (status == 0).then(|| GpuMemory { used_bytes: total.saturating_sub(free) as u64, total_bytes: total as u64 })
}

/// The most that libtorch has held of the first CUDA device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuPeak {
    /// In tensors.
    pub allocated_bytes: u64,
    /// Taken from the driver: tensors, and what is kept for the next ones.
    pub reserved_bytes: u64,
}

/// What libtorch has taken from the driver and no tensor uses, in bytes.
pub fn cached_gpu_memory() -> u64 {
    tch::utils::has_cudart().then(native::cached_cuda_memory).and_then(Result::ok).unwrap_or(0)
}

/// Begins [`peak_gpu_memory`] anew, at what is held now.
pub fn reset_peak_gpu_memory() {
    if tch::utils::has_cudart() {
        // What cannot be asked cannot be begun anew either.
        drop(native::reset_peak_cuda_memory());
    }
}

/// What libtorch's own counters say; `None` where they cannot be asked.
pub fn peak_gpu_memory() -> Option<GpuPeak> {
    let (allocated_bytes, reserved_bytes) = tch::utils::has_cudart().then(native::peak_cuda_memory)?.ok()?;
    Some(GpuPeak { allocated_bytes, reserved_bytes })
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

    use crate::{Checkpoint, Device, Segmenter, SegmenterError, gpu_memory};

    #[test]
    fn tells_the_gpus_memory_only_where_there_is_a_gpu() {
        match gpu_memory() {
            Some(memory) => assert!((1..=memory.total_bytes).contains(&memory.used_bytes), "{memory:?}"),
            None => assert!(!Path::new("/dev/nvidiactl").exists(), "there is a GPU, and its memory is not known"),
        }
    }

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
