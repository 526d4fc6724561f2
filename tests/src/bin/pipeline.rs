//! `pipeline`: how busy a worker keeps its model with a slow store, on real servers. For docs/BENCHMARKS.md.

use std::time::Duration;

use clap::Parser;
use tests::{
    ModelTime,
    pipelined::{Load, measure},
};

/// Submits images, has one worker do them, and prints where its model's time went while jobs were queued.
#[derive(Parser)]
struct Arguments {
    /// How many images.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    images: u32,
    /// Steps of each image, which decide how long the model has it.
    #[arg(long, value_delimiter = ',', default_value = "600")]
    steps: Vec<u32>,
    /// Width and height of each image, in pixels.
    #[arg(long, default_value_t = 1_024)]
    size: u32,
    /// Jobs held at once.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    prefetch: Vec<u16>,
    /// What each request to the store waits, in milliseconds.
    #[arg(long, default_value_t = 100)]
    delay: u64,
    /// Whether the model is the repository's checkpoint, and not a quick one that mostly sleeps.
    #[arg(long)]
    nano: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { images, steps, size, prefetch, delay, nano } = Arguments::parse();
    let program = if nano { "worker" } else { "quick-worker" };
    println!("{images} images of {size} x {size}, {program}, {delay} ms a request to the store");
    println!(
        "| model, s an image | prefetch | busy | waits for an image | for a place | for a job | peak memory, MiB |\n|---:|---:|---:|---:|---:|---:|---:|"
    );
    for steps in steps {
        for &prefetch in &prefetch {
            let delay = Duration::from_millis(delay);
            let shares = measure(Load { program, images, steps, size, prefetch: Some(prefetch), delay }).await?;
            let percent = |seconds: f64| 100.0 * seconds / shares.seconds;
            let ModelTime { busy, job, image, place } = shares.model;
            println!(
                "| {:.2} | {prefetch} | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {} |",
                shares.image_seconds,
                percent(busy),
                percent(image),
                percent(place),
                percent(job),
                shares.peak_bytes >> 20
            );
        }
    }
    Ok(())
}
