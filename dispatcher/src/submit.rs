//! `dispatcher submit`: a manifest goes in, a batch's id comes out.

use std::{
    io::Write,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use reqwest::Body;
use telemetry::Printable;
use tokio::fs::File;
use tokio_util::io::ReaderStream;
use tracing::{Instrument as _, field::Empty};
use uuid::Uuid;

use crate::{
    Exit,
    api::types::{BatchQuery, ErrorBody, SubmittedBatch},
    cli::SubmitArgs,
    client::{Client, ClientError, PATIENCE},
    data_set, watch,
};

/// Read from the manifest at a time.
const CHUNK_BYTES: usize = 64 * 1_024;

/// What is sent.
enum Manifest {
    /// Can be read again.
    File(PathBuf),
    /// A pipe, or the listing of a data set.
    Once(Option<Body>),
}

/// Submits, and watches if asked to.
pub async fn run(args: SubmitArgs) -> anyhow::Result<Exit> {
    let span = tracing::error_span!("submit", trace.id = Empty);
    // As tools that run commands hand a trace on to them.
    let given = std::env::var("TRACEPARENT").ok();
    telemetry::join_trace(&span, given.as_deref());
    let traceparent = telemetry::traceparent_to_send(&span, given);
    let (client, batch) = submit(&args, traceparent.as_deref()).instrument(span).await?;
    let jobs = format!("{} {}", batch.jobs, if batch.jobs == 1 { "job" } else { "jobs" });
    eprintln!("{jobs} submitted{}", if batch.is_new { "" } else { " before: this is that batch, nothing was added" });
    writeln!(std::io::stdout(), "{}", batch.id)?;
    if args.watch { watch::follow(&client, batch.id, watch::Report::default()).await } else { Ok(Exit::Done) }
}

async fn submit(args: &SubmitArgs, traceparent: Option<&str>) -> anyhow::Result<(Client, SubmittedBatch)> {
    let mut manifest = match (&args.manifest, args.data.data.clone()) {
        (Some(manifest), _) => Manifest::open(manifest).await?,
        (None, Some(data_set)) => {
            Manifest::Once(Some(data_set::manifest(data_set, &args.data, args.server.trust.authorities()?).await?))
        }
        (None, None) => unreachable!("the command line has one of them"),
    };
    let client = Client::new(&args.server)?;
    // What can be sent only once is not sent before somebody listens.
    client.patiently(PATIENCE, |message| eprintln!("{message}"), async || client.pools().await).await?;
    let SubmitArgs { pool, name, priority, reuse, .. } = args;
    let query = BatchQuery { pool: pool.clone(), name: name.clone(), priority: *priority, reuse: *reuse };
    let key = args.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let submitted = match &mut manifest {
        Manifest::File(path) => {
            let submit = async || client.submit(&query, &key, traceparent, stream(open(path).await?)).await;
            client.patiently(PATIENCE, |message| eprintln!("{message}"), submit).await
        }
        Manifest::Once(body) => client.submit(&query, &key, traceparent, body.take().unwrap_or_default()).await,
    };
    let batch = submitted.inspect_err(|error| match error {
        ClientError::Refused(body) => list_bad_lines(body),
        ClientError::Interrupted { .. } => {
            eprintln!("submitted again with --idempotency-key {key}, it is the same batch and not a second one");
        }
        _ => {}
    })?;
    Ok((client, batch))
}

impl Manifest {
    async fn open(path: &Path) -> Result<Self, ClientError> {
        let refuse = |reason: String| unreadable(path, reason);
        if path == Path::new("-") {
            let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| refuse(error.to_string()))?;
            return Ok(Self::Once(Some(stream(File::from_std(stdin.into())))));
        }
        let file = open(path).await?;
        let metadata = file.metadata().await.map_err(|error| refuse(error.to_string()))?;
        if metadata.is_dir() {
            return Err(refuse("it is a folder, expected a file with one JSON object a line".into()));
        }
        if metadata.is_file() && metadata.len() == 0 {
            return Err(refuse("it is empty, expected one JSON object a line".into()));
        }
        Ok(if metadata.is_file() { Self::File(path.into()) } else { Self::Once(Some(stream(file))) })
    }
}

async fn open(path: &Path) -> Result<File, ClientError> {
    File::open(path).await.map_err(|error| unreadable(path, error.to_string()))
}

fn unreadable(path: &Path, reason: String) -> ClientError {
    ClientError::Manifest { path: path.into(), reason }
}

fn stream(file: File) -> Body {
    Body::wrap_stream(ReaderStream::with_capacity(file, CHUNK_BYTES))
}

fn list_bad_lines(body: &ErrorBody) {
    for bad in &body.lines {
        eprintln!("line {}: {}", bad.line, Printable(&bad.error));
    }
    let listed = body.lines.len() as u64;
    if let Some(all) = body.bad_lines.filter(|&all| all > listed) {
        eprintln!("... and {} more", all - listed);
    }
}
