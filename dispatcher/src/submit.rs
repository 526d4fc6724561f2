//! `dispatcher submit`: a manifest goes in, a batch's id comes out.

use std::{io::Write, os::fd::AsFd, path::Path};

use reqwest::Body;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use crate::{
    Exit,
    api::types::{BatchQuery, ErrorBody},
    cli::SubmitArgs,
    client::{Client, ClientError, PATIENCE},
    data_set, watch,
};

/// Read from the manifest at a time.
const CHUNK_BYTES: usize = 64 * 1_024;

/// Submits, and watches if asked to.
pub async fn run(args: SubmitArgs) -> anyhow::Result<Exit> {
    let manifest = match (args.manifest, args.data.data.clone()) {
        (Some(manifest), _) => open(&manifest).await?,
        (None, Some(data_set)) => data_set::manifest(data_set, &args.data).await?,
        (None, None) => unreachable!("the command line has one of them"),
    };
    let client = Client::new(args.server.server)?;
    // A manifest from a pipe can be sent only once, so whether somebody listens is asked first.
    client.patiently(PATIENCE, |message| eprintln!("{message}"), async || client.pools().await).await?;
    let submitted = client.submit(&BatchQuery { pool: args.pool, name: args.name, priority: args.priority }, manifest).await;
    let batch = submitted.inspect_err(|error| {
        if let ClientError::Refused(body) = error {
            list_bad_lines(body);
        }
    })?;
    eprintln!("{} {} submitted", batch.jobs, if batch.jobs == 1 { "job" } else { "jobs" });
    writeln!(std::io::stdout(), "{}", batch.id)?;
    if args.watch { watch::follow(&client, batch.id, watch::Report::default()).await } else { Ok(Exit::Done) }
}

async fn open(path: &Path) -> Result<Body, ClientError> {
    let refuse = |reason: String| ClientError::Manifest { path: path.into(), reason };
    if path == Path::new("-") {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| refuse(error.to_string()))?;
        return Ok(stream(File::from_std(stdin.into())));
    }
    let file = File::open(path).await.map_err(|error| refuse(error.to_string()))?;
    let metadata = file.metadata().await.map_err(|error| refuse(error.to_string()))?;
    if metadata.is_dir() {
        return Err(refuse("it is a folder, expected a file with one JSON object a line".into()));
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Err(refuse("it is empty, expected one JSON object a line".into()));
    }
    Ok(stream(file))
}

fn stream(file: File) -> Body {
    Body::wrap_stream(ReaderStream::with_capacity(file, CHUNK_BYTES))
}

fn list_bad_lines(body: &ErrorBody) {
    for bad in &body.lines {
        eprintln!("line {}: {}", bad.line, bad.error);
    }
    let listed = body.lines.len() as u64;
    if let Some(all) = body.bad_lines.filter(|&all| all > listed) {
        eprintln!("... and {} more", all - listed);
    }
}
