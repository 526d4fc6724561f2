//! What reads bytes from elsewhere, each as a function of bytes that must neither panic nor take more memory than it may.
//!
//! `tests/short.rs` replays the kept inputs and damages them at random, in `make test`; `main.rs` gives the same functions to libFuzzer,
//! for `make fuzz`. docs/SECURITY.md has what was found.

pub mod damage;
mod memory;
mod seeds;
mod targets;

/// One reader.
pub struct Target {
    /// Also of its folder in `corpus/`.
    pub name: &'static str,
    /// Reads, and panics where what comes out is not as it must be.
    read: fn(&[u8]),
    /// The most bytes it may hold for this input.
    most_held: fn(&[u8]) -> usize,
    /// Valid files, from which damage is made.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 13] = targets::ALL;

impl Target {
    /// By its name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Reads the input, and gives how many bytes were held at most. Panics where one of the promises is broken.
    pub fn check(&self, bytes: &[u8]) -> usize {
        let held = memory::peak(|| (self.read)(bytes));
        let limit = (self.most_held)(bytes);
        assert!(held <= limit, "{}: {held} bytes held for an input of {}, at most {limit} are allowed", self.name, bytes.len());
        held
    }
}
