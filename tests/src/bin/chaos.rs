//! `make chaos`: the whole system under a schedule of faults, and a verdict on every invariant. Exit code 0: all held; 1: one broke, or
//! the run could not be made; 2: bad arguments.

use std::{
    fs,
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use tests::chaos::{self, Options};

/// Faults a minute where nobody says otherwise.
const FAULTS_A_MINUTE: f64 = 20.0;

/// Kills, stops and cuts off everything dotmask is made of while it works, and then checks that nothing was lost and nothing done twice.
#[derive(Parser)]
struct Arguments {
    /// Decides which fault is thrown when, and what is submitted.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many jobs are submitted.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    jobs: u32,
    /// For how many minutes faults are thrown; the rest of the queue is worked off afterwards.
    #[arg(long, default_value = "12", value_parser = minutes)]
    minutes: Duration,
    /// How many faults are thrown; 20 a minute if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    faults: Option<u32>,
    /// Garage's program, to be the object store in place of the private one.
    #[arg(long, env = "DOTMASK_GARAGE", value_name = "FILE", value_parser = program)]
    garage: Option<PathBuf>,
    /// A folder is made in it for the run: schedule, logs, report.
    #[arg(long, value_name = "FOLDER", default_value = ".chaos")]
    out: PathBuf,
    /// Print the faults with their times, and throw none.
    #[arg(long)]
    schedule: bool,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes = text.parse().ok().filter(|minutes| (0.1..=1_440.0).contains(minutes));
    minutes.map(|minutes: f64| Duration::from_secs_f64(minutes * 60.0)).ok_or_else(|| "expected 0.1 to 1440 minutes".into())
}

fn program(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_file() { Ok(path) } else { Err("there is no such file".into()) }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let Arguments { seed, jobs, minutes, faults, garage, out, schedule } = arguments;
    let faults = faults.map_or((minutes.as_secs_f64() / 60.0 * FAULTS_A_MINUTE).ceil() as usize, |faults| faults as usize);
    let mut options = Options { seed, jobs: jobs as usize, faults, duration: minutes, garage, folder: out.clone() };
    if schedule {
        // Whoever reads it may have seen enough.
        let mut lines = options.schedule().into_iter();
        while lines.next().is_some_and(|scheduled| writeln!(stdout(), "{scheduled}").is_ok()) {}
        return Ok(true);
    }
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    options.folder = tempfile::Builder::new().prefix(&format!("seed-{seed}-")).tempdir_in(&out)?.keep();
    eprintln!("logs, schedule and report: {}", options.folder.display());
    let report = chaos::run(&options).await?;
    println!("{report}");
    if report.holds() {
        let servers = options.folder.join("servers");
        fs::remove_dir_all(&servers).with_context(|| format!("cannot remove {}", servers.display()))?;
    }
    Ok(report.holds())
}
