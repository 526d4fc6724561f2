//! What processes take of the machine, as the kernel has it.

use std::{collections::HashMap, fs};

use anyhow::Context as _;

/// `sysconf(_SC_CLK_TCK)` on every Linux there is.
const TICKS_A_SECOND: f64 = 100.0;

/// CPU-seconds of a process and all it has started, those that have ended included.
pub fn cpu_seconds(root: u32) -> f64 {
    let all: HashMap<u32, (u32, u64)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect();
    let mut family = vec![root];
    let mut seen = 0;
    while let Some(&parent) = family.get(seen) {
        family.extend(all.iter().filter(|(_, (its_parent, _))| *its_parent == parent).map(|(pid, _)| *pid));
        seen += 1;
    }
    family.iter().filter_map(|pid| all.get(pid)).map(|(_, ticks)| *ticks as f64).sum::<f64>() / TICKS_A_SECOND
}

/// Parent, and ticks of its own and of children that have ended.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some((fields.get(1)?.parse().ok()?, ticks))
}

/// The most memory that a process has had resident since it began or since [`forget_peak`], in bytes.
pub fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmHWM:")
}

/// What it has resident now.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmRSS:")
}

/// The peak is counted from now on.
pub fn forget_peak(pid: u32) -> anyhow::Result<()> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

fn memory(pid: u32, what: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).with_context(|| format!("no {what}"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
