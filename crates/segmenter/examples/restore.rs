//! How long it takes to put a checkpoint's weights back between two images. For docs/BENCHMARKS.md.
//!
//!     cargo run --release -p segmenter --example restore -- models/nano/nano.safetensors cpu

use std::{env, error::Error, path::Path, time::Instant};

use segmenter::{Checkpoint, first_cuda_device, sam::Sam};
use tch::{Cuda, Device};

const TIMES: usize = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [checkpoint, device] = arguments.as_slice() else { return Err("expected a checkpoint, and cpu or cuda".into()) };
    let device = if device == "cuda" { first_cuda_device()? } else { Device::Cpu };
    let wait = || {
        if let Device::Cuda(number) = device {
            Cuda::synchronize(number as i64);
        }
    };
    let mut sam = Sam::new(&Checkpoint::read(Path::new(checkpoint))?, device)?;
    let bytes = 4 * sam.encoder_parameters.count();
    let mut seconds = Vec::new();
    for _ in 0..=TIMES {
        wait();
        let started = Instant::now();
        sam.encoder_parameters.restore()?;
        wait();
        seconds.push(started.elapsed().as_secs_f64());
    }
    // The first one touches the memory.
    let mut seconds = seconds.split_off(1);
    seconds.sort_by(f64::total_cmp);
    let (median, least, most) = (seconds[TIMES / 2], seconds[0], seconds[TIMES - 1]);
    let rate = bytes as f64 / median / 1e9;
    println!(
        "{:.1} MB of weights: median {:.3} ms, {:.3} to {:.3} ms, {rate:.1} GB/s",
        bytes as f64 / 1e6,
        1e3 * median,
        1e3 * least,
        1e3 * most
    );
    Ok(())
}
