use request::{Line, Lines, Points, S3Uri, SegmentationRequest, Setting, Window};
use worker::readers::CheckpointPlace;

/// Short, so that small inputs have longer lines as well.
const LINE_LIMIT: usize = 2_048;

/// A manifest that comes in chunks, whose size the first byte says.
pub fn manifest(bytes: &[u8]) {
    let Some((&chunk_size, text)) = bytes.split_first() else { return };
    let mut lines = Lines::new(LINE_LIMIT);
    let mut found = Vec::new();
    for chunk in text.chunks(usize::from(chunk_size) + 1) {
        lines.push(chunk.to_vec().into());
        found.extend(std::iter::from_fn(|| lines.next_line()));
    }
    found.extend(lines.last_line());
    let plain: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let plain = plain.strip_suffix(&[&[][..]]).unwrap_or(&plain);
    assert_eq!(found.len(), plain.len());
    for (Line { content, .. }, &line) in found.iter().zip(plain) {
        match content {
            Ok(content) => assert_eq!(content, line),
            Err(length) => assert!(*length == line.len() && *length > LINE_LIMIT),
        }
        request(line);
    }
}

/// What is accepted means the same when it is written and read again.
fn request(line: &[u8]) {
    match SegmentationRequest::from_line(line) {
        Ok(request) => {
            let written = serde_json::to_vec(&request).expect("a request is plain values");
            assert_eq!(SegmentationRequest::from_line(&written).expect("was written by us"), request);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub fn manifest_limit(bytes: &[u8]) -> usize {
    128 * bytes.len() + (64 << 10)
}

/// Points as text and as JSON, and the other short texts: places, settings, windows, a trace's parent.
pub fn points(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(points) = text.parse::<Points>() {
        assert_eq!(points.to_string().parse(), Ok(points.clone()));
        let _ = points.check_inside(64, 64);
    }
    if let Ok(points) = serde_json::from_str::<Points>(text) {
        assert_eq!(points.to_string().parse(), Ok(points));
    }
    if let Ok(uri) = text.parse::<S3Uri>() {
        assert_eq!(uri.to_string(), text);
    }
    if let Ok(setting) = text.parse::<Setting>() {
        assert_eq!(setting.to_string().parse(), Ok(setting));
    }
    if let Ok(window) = text.parse::<Window>() {
        assert!(window.width() > 0.0);
    }
    let _ = text.parse::<CheckpointPlace>();
    let _ = telemetry::traceparent_to_send(&tracing::Span::none(), Some(text.to_owned()));
}

pub fn points_limit(bytes: &[u8]) -> usize {
    64 * bytes.len() + (64 << 10)
}
