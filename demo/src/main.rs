//! The demo: real images, dots placed by hand, and the whole system on this machine. It starts private servers, a dispatcher and a
//! worker, submits a batch, watches it, draws what came out, and ends with nothing left running. See demo/README.md.

mod fetch;
mod images;
mod report;
mod run_folder;
mod show;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, anyhow};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::{run_folder::RunFolder, show::Show};

/// Segments real images from hand-placed dots with the whole system, and draws the masks.
#[derive(Parser)]
struct Args {
    /// The folder for the pictures; made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { out } = Args::parse();
    let out = out.unwrap_or_else(|| repository().join(".demo/out"));
    match run(&out).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(out: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    let interrupted = interruption()?;
    let folder = RunFolder::create(&repository().join(".demo"))?;
    let mut show = Show::default();
    let outcome = tokio::select! {
        outcome = show.run(&folder, out) => outcome,
        () = interrupted => Err(anyhow!("interrupted")),
    };
    show.stop().await;
    outcome.map_err(|error| anyhow!("{error:#}\nhint: all logs are in {}", folder.path().display()))?;
    folder.remove()?;
    eprintln!("demo: done in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Ends at the first SIGINT, SIGTERM or SIGHUP. From its making on, none of them ends the program by itself.
fn interruption() -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
    })
}

/// The checkout this program was built from: the model, the sources of the images and the cache are in it.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the demo is a folder of the repository")
}
