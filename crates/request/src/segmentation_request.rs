use serde::{Deserialize, Serialize};

use crate::{Parameters, Points, S3Uri};

/// The longest manifest line, in bytes: [`crate::MAX_POINTS`] points take about a tenth of it.
pub const MAX_REQUEST_BYTES: usize = 256 * 1_024;

/// The longest id a user may give a request, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// One image to segment: a line of a manifest.
///
/// ```json
/// {"image": "s3://scans/slide-7.png", "points": [[120, 80, 1], [300, 40, 0]], "id": "slide-7"}
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentationRequest {
    /// Where the image is.
    pub image: S3Uri,
    /// The dots.
    pub points: Points,
    /// The user's own name for it; comes back with the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Which pool of workers, where it is not the batch's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// How to segment.
    #[serde(default)]
    pub parameters: Parameters,
}

/// Why a line of a manifest is not a request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Longer than [`MAX_REQUEST_BYTES`].
    #[error("the line has {bytes} bytes, expected at most {MAX_REQUEST_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Bytes that are no text.
    #[error("the line is not UTF-8 text; a manifest has one JSON object a line")]
    NotText,
    /// Not JSON, or not a request.
    #[error("{0}")]
    Json(String),
    /// The id would not fit where ids are kept and shown.
    #[error("the id has {bytes} bytes or a control character, expected 1 to {MAX_ID_BYTES} bytes of text")]
    Id {
        /// Its length.
        bytes: usize,
    },
}

impl SegmentationRequest {
    /// Reads one line of a manifest.
    pub fn from_line(line: &[u8]) -> Result<Self, RequestError> {
        if line.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLong { bytes: line.len() });
        }
        let text = str::from_utf8(line).map_err(|_| RequestError::NotText)?;
        let request: Self = serde_json::from_str(text).map_err(|error| RequestError::Json(describe(&error)))?;
        match &request.id {
            Some(id) if id.is_empty() || id.len() > MAX_ID_BYTES || id.chars().any(char::is_control) => {
                Err(RequestError::Id { bytes: id.len() })
            }
            _ => Ok(request),
        }
    }
}

/// The parser's message with the column only: its line number is always 1 and would be taken for the manifest's.
fn describe(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rsplit_once(" at line 1 column ") {
        Some((what, column)) => format!("{what} (column {column})"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &[u8]) -> String {
        SegmentationRequest::from_line(line).expect_err("must be refused").to_string()
    }

    #[test]
    fn reads_the_shortest_line() {
        let request = SegmentationRequest::from_line(br#"{"image":"s3://scans/a.png","points":[[1,2,1]]}"#).expect("valid");
        assert_eq!(request.image.key(), "a.png");
        assert_eq!(request.parameters, Parameters::default());
        assert_eq!((request.id, request.pool), (None, None));
    }

    #[test]
    fn says_what_is_wrong_with_a_line() {
        assert!(refusal(b"\xff\xfe").contains("not UTF-8"));
        assert!(refusal(b"{").contains("(column 1)"));
        assert!(refusal(br#"{"image":"s3://scans/a.png"}"#).contains("missing field `points`"));
        assert!(refusal(br#"{"image":"a.png","points":[[1,2,1]]}"#).contains("expected s3://bucket/key"));
        assert!(refusal(br#"{"image":"s3://scans/a.png","points":[[1,2,0]]}"#).contains("no positive point"));
        assert!(refusal(br#"{"image":"s3://scans/a.png","points":[[NaN,2,1]]}"#).contains("expected"));
        assert!(refusal(br#"{"image":"s3://scans/a.png","points":[[1,2,1]],"stpes":3}"#).contains("unknown field `stpes`"));
        assert!(refusal(br#"{"image":"s3://scans/a.png","points":[[1,2,1]],"id":""}"#).contains("the id has 0 bytes"));
        assert!(refusal(&vec![b' '; MAX_REQUEST_BYTES + 1]).contains("expected at most"));
    }
}
