use std::{collections::BTreeSet, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    http::StatusCode,
};
use futures_util::StreamExt;
use ledger::{BatchWriter, LedgerError};
use request::{AllowList, Allowed, Line, Lines, MAX_REQUEST_BYTES, RequestError, SegmentationRequest};
use tokio::time::timeout;

use super::{
    ApiError,
    types::{BadLine, ErrorBody},
};

/// Places listed where another one may not be read.
const MAX_NAMED: usize = 5;
/// Bad lines listed in the answer; the others are only counted.
const MAX_LISTED: usize = 1_000;
/// The longest reason listed with a line: it may quote the line.
const MAX_REASON_CHARS: usize = 300;
/// Some editors begin a text with this mark, which says that it is UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// A client that sends nothing for so long loses its upload: it holds a transaction open.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// A client still sending does not read its answer, so what comes after a refusal is taken and thrown away for so long.
const DISCARD_FOR: Duration = Duration::from_secs(5);

/// What a manifest may cost, whoever sends it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of the whole.
    pub manifest_bytes: u64,
    /// Of the whole.
    pub manifest_lines: u64,
    /// Of a line.
    pub objects: usize,
    /// Of an object.
    pub points: usize,
}

/// What the lines of a manifest must keep to.
#[derive(Debug)]
pub struct Rules {
    /// The pools that a line may name.
    pub pools: BTreeSet<String>,
    /// What it may name as an image or a truth.
    pub reads: AllowList,
    /// What it may cost.
    pub limits: Limits,
}

/// A manifest on its way into the ledger.
pub struct Manifest {
    /// None from the first bad line on: dropping it rolled the batch back.
    writer: Option<BatchWriter>,
    rules: Rules,
    lines: u64,
    bad_lines: u64,
    listed: Vec<BadLine>,
}

impl Manifest {
    /// Writes the lines with `writer` that keep to the rules.
    pub fn new(writer: BatchWriter, rules: Rules) -> Self {
        Self { writer: Some(writer), rules, lines: 0, bad_lines: 0, listed: Vec::new() }
    }

    /// Reads the body to its end, one chunk in memory at a time. The writer comes back, not committed, if every line is good.
    pub async fn read(mut self, body: Body) -> Result<BatchWriter, ApiError> {
        let mut chunks = body.into_data_stream();
        let outcome = self.read_lines(&mut chunks).await;
        if outcome.is_err() {
            self.writer = None;
            discard(chunks).await;
        }
        outcome?;
        match self.writer {
            _ if self.lines == 0 => Err(LedgerError::EmptyBatch.into()),
            Some(writer) => Ok(writer),
            None => Err(self.refusal()),
        }
    }

    async fn read_lines(&mut self, chunks: &mut BodyDataStream) -> Result<(), ApiError> {
        let mut lines = Lines::new(MAX_REQUEST_BYTES);
        let mut received = 0;
        while let Some(chunk) = timeout(STALLED_AFTER, chunks.next()).await.map_err(|_| stalled())? {
            let chunk = chunk.map_err(|error| broken_off(&error))?;
            received += chunk.len() as u64;
            if received > self.rules.limits.manifest_bytes {
                return Err(too_large(self.rules.limits.manifest_bytes));
            }
            lines.push(chunk);
            while let Some(line) = lines.next_line() {
                self.take(line).await?;
            }
        }
        match lines.last_line() {
            Some(line) => self.take(line).await,
            None => Ok(()),
        }
    }

    async fn take(&mut self, line: Line) -> Result<(), ApiError> {
        self.lines = line.number;
        if line.number > self.rules.limits.manifest_lines {
            return Err(too_long(self.rules.limits.manifest_lines));
        }
        if line.number == 1 && line.content.as_ref().is_ok_and(|bytes| is_binary(bytes)) {
            return Err(binary());
        }
        let request = match self.check(&line) {
            Ok(request) => request,
            Err(reason) => {
                self.refuse(line.number, &reason);
                return Ok(());
            }
        };
        let Some(writer) = &mut self.writer else { return Ok(()) };
        match writer.push(line.number, &request).await {
            Err(LedgerError::Unstorable { line, reason }) => self.refuse(line, &reason),
            outcome => outcome?,
        }
        Ok(())
    }

    fn check(&self, line: &Line) -> Result<SegmentationRequest, String> {
        let bytes = line.content.as_ref().map_err(|&bytes| RequestError::TooLong { bytes }.to_string())?;
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).filter(|_| line.number == 1).unwrap_or(bytes);
        if bytes.trim_ascii().is_empty() {
            return Err("the line is blank, expected a JSON object".into());
        }
        let request = SegmentationRequest::from_line(bytes).map_err(|error| error.to_string())?;
        self.rules.check(&request)?;
        Ok(request)
    }

    fn refuse(&mut self, line: u64, reason: &str) {
        self.writer = None;
        self.bad_lines += 1;
        if self.listed.len() < MAX_LISTED {
            self.listed.push(BadLine { line, error: shortened(reason) });
        }
    }

    fn refusal(self) -> ApiError {
        let (bad, all) = (self.bad_lines, self.lines);
        let error = format!("{bad} of {all} lines {} bad; nothing was submitted", if bad == 1 { "is" } else { "are" });
        let body = ErrorBody { error, bad_lines: Some(bad), lines: self.listed, pools: Vec::new() };
        ApiError::with_body(StatusCode::BAD_REQUEST, body)
    }
}

impl Rules {
    fn check(&self, request: &SegmentationRequest) -> Result<(), String> {
        if let Some(pool) = request.pool.as_ref().filter(|pool| !self.pools.contains(*pool)) {
            return Err(unknown_pool(pool, &self.pools));
        }
        if let Some(uri) = request.reads().find(|uri| !self.reads.allows(uri)) {
            return Err(not_allowed(&uri.to_string(), &self.reads));
        }
        let of_objects: Vec<usize> = request.points().map(|points| points.as_slice().len()).collect();
        let (objects, points) = (of_objects.len(), of_objects.into_iter().max().unwrap_or(0));
        if objects > self.limits.objects {
            return Err(format!("{objects} objects, but here a request may have at most {}", self.limits.objects));
        }
        if points > self.limits.points {
            return Err(format!("{points} points, but here an object may have at most {}", self.limits.points));
        }
        Ok(())
    }
}

fn not_allowed(uri: &str, reads: &AllowList) -> String {
    // The object comes last: it may be long, and a text that is too long loses its end.
    let named: Vec<String> = reads.entries().iter().take(MAX_NAMED).map(Allowed::to_string).collect();
    let others = reads.entries().len() - named.len();
    let places = match (named.is_empty(), others) {
        (true, _) => "nothing".into(),
        (false, 0) => format!("what is in {}", named.join(", ")),
        (false, others) => format!("what is in {} and {others} more", named.join(", ")),
    };
    format!("your project may read {places}, and not {uri}")
}

/// What is said of a pool that is none.
pub fn unknown_pool(pool: &str, pools: &BTreeSet<String>) -> String {
    let known: Vec<&str> = pools.iter().map(String::as_str).collect();
    format!("pool {:?} is unknown, expected one of: {}", shortened(pool), known.join(", "))
}

/// The refusal of a manifest of more than `max_bytes`.
pub fn too_large(max_bytes: u64) -> ApiError {
    let error = format!("the manifest has more than {max_bytes} bytes; send it in parts, as several batches");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error)
}

fn too_long(max_lines: u64) -> ApiError {
    let error = format!("the manifest has more than {max_lines} lines; send it in parts, as several batches");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error)
}

fn stalled() -> ApiError {
    let error = format!("nothing came for {} s; nothing was submitted", STALLED_AFTER.as_secs());
    ApiError::new(StatusCode::REQUEST_TIMEOUT, error)
}

fn broken_off(error: &axum::Error) -> ApiError {
    tracing::info!(%error, "an upload broke off; nothing was submitted");
    ApiError::new(StatusCode::BAD_REQUEST, format!("the upload broke off: {error}; nothing was submitted"))
}

fn binary() -> ApiError {
    let error = "the manifest is binary, expected text with one JSON object a line; if it is compressed, unpack it first";
    ApiError::new(StatusCode::BAD_REQUEST, error)
}

fn is_binary(bytes: &[u8]) -> bool {
    bytes.contains(&0) || str::from_utf8(bytes).is_err()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_REASON_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Takes what is still being sent and throws it away, for a while.
pub async fn discard(mut chunks: BodyDataStream) {
    let _ = timeout(DISCARD_FOR, async { while let Some(Ok(_)) = chunks.next().await {} }).await;
}
