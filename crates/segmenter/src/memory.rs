//! How much memory a fine-tuning takes, and how much there is.

use std::fs;

use crate::{
    compute::{Activations, Compute, Device},
    cuda::{cached_gpu_memory, gpu_memory},
    sam::{Architecture, Kept},
};

/// What is left free for everything that is not counted: the decoder, one block's backward pass, what libtorch keeps.
const MARGIN: f64 = 1.15;

/// Decides what is kept; to be asked when the weights are on the device.
pub fn kept(compute: Compute, architecture: &Architecture, parameters: u64) -> Kept {
    match compute.activations {
        Activations::Keep => Kept::Activations,
        Activations::Recompute => Kept::Inputs,
        Activations::Auto => {
            let needed = (finetuning_bytes(compute, architecture, parameters) as f64 * MARGIN) as u64;
            // Where nobody says what is free, the faster way is tried.
            let is_enough = available(compute.device).is_none_or(|available| available >= needed);
            if is_enough { Kept::Activations } else { Kept::Inputs }
        }
    }
}

/// What a fine-tuning takes beside the weights when all activations are kept: those, the gradients and two moments, in bytes.
fn finetuning_bytes(compute: Compute, architecture: &Architecture, parameters: u64) -> u64 {
    let tokens = architecture.grid.unsigned_abs().pow(2);
    let dim = architecture.dim.unsigned_abs();
    let head_dim = dim / architecture.heads.unsigned_abs();
    let product = compute.precision.kind().elt_size_in_bytes() as u64;
    let of_block = |window: &Option<i64>| {
        let side = window.unwrap_or(architecture.grid).unsigned_abs();
        let padded = (architecture.grid.unsigned_abs().div_ceil(side) * side).pow(2);
        // Two inputs of layer norms, then the inputs of proj and of lin2.
        let linear = tokens * (dim * (2 * 4 + product) + architecture.mlp.unsigned_abs() * product);
        let attention = if compute.device == Device::Cpu && product == 4 {
            tokens * 3 * dim * product
        } else {
            // q, k, v and the answer, each as wide as a head and the positions of a side's rows and columns; q once more for those.
            let width = (head_dim + 2 * side).next_multiple_of(8);
            padded * product * (4 * architecture.heads.unsigned_abs() * width + dim)
        };
        linear + attention
    };
    architecture.windows.iter().map(of_block).sum::<u64>() + 3 * 4 * parameters
}

/// Bytes nobody uses.
fn available(device: Device) -> Option<u64> {
    match device {
        // What libtorch keeps for its next tensors is in use to everybody else.
        Device::Cuda => gpu_memory().map(|memory| memory.total_bytes - memory.used_bytes + cached_gpu_memory()),
        Device::Cpu => {
            let machine = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
            Some(left_of_container("/sys/fs/cgroup").map_or(machine, |left| left.min(machine)))
        }
    }
}

/// A field of /proc/meminfo, which is in KiB.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}

/// What the container's limit leaves (cgroup v2); none where there is no limit. The pages of files that were read, such as the checkpoint's,
/// count as used and are given up when they are wanted.
fn left_of_container(folder: &str) -> Option<u64> {
    let text = |file| fs::read_to_string(format!("{folder}/{file}")).ok();
    let number = |file| text(file)?.trim().parse::<u64>().ok();
    let files = text("memory.stat").and_then(|stat| {
        let line = stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?;
        line.parse::<u64>().ok()
    });
    Some(number("memory.max")?.saturating_sub(number("memory.current")?.saturating_sub(files.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compute::Precision, sam::OfficialSize};

    #[test]
    fn counts_what_a_fine_tuning_keeps() {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let vit_b: Architecture = OfficialSize::VitB.into();
        // Ten maps of 4096 x 768 numbers a block, and three numbers a parameter.
        let expected = 12 * 10 * 4096 * 768 * 4 + 12 * 89_700_000_u64;
        assert_eq!(finetuning_bytes(Device::Cpu.into(), &vit_b, 89_700_000), expected);
        let vit_h: Architecture = OfficialSize::VitH.into();
        let fp32 = gib(finetuning_bytes(Device::Cuda.into(), &vit_h, 637_000_000));
        let bf16 = Compute { device: Device::Cuda, precision: Precision::Bf16, activations: Activations::Auto };
        let bf16 = gib(finetuning_bytes(bf16, &vit_h, 637_000_000));
        assert!((15.0..20.0).contains(&fp32) && bf16 < 0.8 * fp32, "{fp32} and {bf16} GiB");
    }

    #[test]
    fn a_setting_is_obeyed_and_a_small_model_fits() {
        let vit_b: Architecture = OfficialSize::VitB.into();
        let with = |activations| Compute { activations, ..Compute::default() };
        assert_eq!(kept(with(Activations::Keep), &vit_b, u64::MAX / 100), Kept::Activations);
        assert_eq!(kept(with(Activations::Recompute), &vit_b, 1), Kept::Inputs);
        assert_eq!(kept(with(Activations::Auto), &vit_b, u64::MAX / 100), Kept::Inputs, "no machine holds that");
    }

    #[test]
    fn reads_what_the_kernel_says() {
        assert_eq!(field("MemTotal: 5 kB\nMemAvailable:   12 kB\n", "MemAvailable:"), Some(12 << 10));
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().display().to_string();
        let write = |file, text| fs::write(folder.path().join(file), text).unwrap();
        write("memory.current", "40\n");
        write("memory.max", "max\n");
        assert_eq!(left_of_container(&path), None);
        write("memory.max", "100\n");
        assert_eq!(left_of_container(&path), Some(60));
        write("memory.stat", "anon 10\ninactive_file 25\n");
        assert_eq!(left_of_container(&path), Some(85));
    }
}
