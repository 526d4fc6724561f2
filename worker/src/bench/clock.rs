//! Wall-clock time, processor time and memory of this process.

use std::{
    fs, io,
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike},
};
use segmenter::{Segmenter, Stage};
use serde::Serialize;

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    wall: Instant,
    /// Of all threads together, in user and kernel.
    cpu: Duration,
}

impl Reading {
    /// Now.
    pub fn now() -> Self {
        let duration = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the system knows what this process has used");
        Self { wall: Instant::now(), cpu: duration(usage.user_time()) + duration(usage.system_time()) }
    }

    /// The time from an earlier moment to this one.
    pub fn since(&self, earlier: &Self) -> Time {
        Time {
            seconds: (self.wall - earlier.wall).as_secs_f64(),
            cpu_seconds: self.cpu.saturating_sub(earlier.cpu).as_secs_f64(),
        }
    }
}

/// How long something took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Time {
    /// By the clock on the wall.
    pub seconds: f64,
    /// Of all processors together.
    pub cpu_seconds: f64,
}

impl std::ops::Add for Time {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { seconds: self.seconds + other.seconds, cpu_seconds: self.cpu_seconds + other.cpu_seconds }
    }
}

impl std::iter::Sum for Time {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::default(), |sum, time| sum + time)
    }
}

impl Time {
    /// That many times as long.
    pub fn times(self, factor: f64) -> Self {
        Self { seconds: factor * self.seconds, cpu_seconds: factor * self.cpu_seconds }
    }

    /// One of `count` equal shares.
    pub fn shared_by(self, count: usize) -> Self {
        self.times(1.0 / count as f64)
    }
}

/// When the model's stages ended.
pub struct Stages(Receiver<(Stage, Reading)>);

impl Stages {
    /// Of this model from now on.
    pub fn of(segmenter: &mut Segmenter) -> Self {
        let (sender, receiver) = channel();
        // Nobody listens once the measurement is over.
        segmenter.observe(move |stage| {
            let _ = sender.send((stage, Reading::now()));
        });
        Self(receiver)
    }

    /// Those that have ended since the last call, the first of which began at `begun`.
    pub fn taken(&self, begun: Reading) -> Vec<(Stage, Time)> {
        let mut before = begun;
        let time = |(stage, ended): (Stage, Reading)| {
            let time = ended.since(&before);
            before = ended;
            (stage, time)
        };
        self.0.try_iter().map(time).collect()
    }
}

/// This process's resident memory, in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ResidentMemory {
    /// Now.
    pub now_bytes: u64,
    /// The most there was since the process began, or since [`ResidentMemory::reset_peak`].
    pub peak_bytes: u64,
}

impl ResidentMemory {
    /// What Linux says of it.
    pub fn read() -> anyhow::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")
            .context("cannot read /proc/self/status, where Linux tells a process's memory")?;
        Self::of_status(&status).ok_or_else(|| anyhow!("/proc/self/status has no VmRSS and VmHWM in kB"))
    }

    fn of_status(status: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
        };
        Some(Self { now_bytes: bytes("VmRSS")?, peak_bytes: bytes("VmHWM")? })
    }

    /// Begins the peak anew, at what is resident now.
    pub fn reset_peak() -> io::Result<()> {
        fs::write("/proc/self/clear_refs", "5")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_memory_that_linux_tells() {
        let status = "Name:\tworker\nVmPeak:\t 9 kB\nVmHWM:\t   2048 kB\nVmRSS:\t     12 kB\n";
        let memory = ResidentMemory::of_status(status).unwrap();
        assert_eq!((memory.now_bytes, memory.peak_bytes), (12 << 10, 2 << 20));
        assert!(ResidentMemory::of_status("VmRSS:\t 12 kB\n").is_none());
        let memory = ResidentMemory::read().unwrap();
        assert!(memory.now_bytes > 0 && memory.peak_bytes >= memory.now_bytes, "{memory:?}");
    }

    #[test]
    fn a_busy_processor_shows_in_the_processor_time() {
        let begun = Reading::now();
        let mut spent = Time::default();
        while spent.cpu_seconds < 0.02 {
            spent = Reading::now().since(&begun);
        }
        assert!(spent.seconds > 0.0);
    }
}
