use std::iter;

use serde::{Deserialize, Serialize};

use crate::{
    ContentSha256, Evaluation, EvaluationDots, Method, Object, Parameters, Points, S3Uri, Setting, Task, TaskError, View, Window,
    task::{TaskFields, check_name},
};

/// The longest manifest line, in bytes: [`crate::MAX_POINTS`] points take about a tenth of it.
pub const MAX_REQUEST_BYTES: usize = 256 * 1_024;

/// The longest id a user may give a request, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// One image and what to do with it: a line of a manifest.
///
/// One object, several objects, or an evaluation against a known truth:
/// ```json
/// {"image": "s3://scans/slide-7.png", "points": [[120, 80, 1], [300, 40, 0]], "id": "slide-7"}
/// {"image": "s3://scans/ct.nii.gz", "slice": 70, "window": [40, 400], "objects": [{"id": "spleen", "points": [[120, 80, 1]]}]}
/// {"image": "s3://scans/a.png", "truth": "s3://scans/a-truth.png", "setting": "3/3", "repeats": 5, "seed": 1}
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct SegmentationRequest {
    /// Where the image is.
    pub image: S3Uri,
    /// What it must be; whatever is there where it is not given.
    pub image_sha256: Option<ContentSha256>,
    /// What of the file is the picture.
    pub view: View,
    /// What to do with it.
    pub task: Task,
    /// The user's own name for it; comes back with the result.
    pub id: Option<String>,
    /// Which pool of workers, where it is not the batch's.
    pub pool: Option<String>,
    /// How to segment.
    pub parameters: Parameters,
}

/// A [`SegmentationRequest`] as it is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    image: S3Uri,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image_sha256: Option<ContentSha256>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slice: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    points: Option<Points>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    objects: Option<Vec<Object>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    truth: Option<S3Uri>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    truth_sha256: Option<ContentSha256>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    methods: Option<Vec<Method>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    setting: Option<Setting>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repeats: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    #[serde(default)]
    parameters: Parameters,
}

impl TryFrom<Fields> for SegmentationRequest {
    type Error = TaskError;

    fn try_from(fields: Fields) -> Result<Self, TaskError> {
        let Fields { image, image_sha256, slice, window, points, objects, truth, truth_sha256, .. } = fields;
        let Fields { label, group, methods, setting, repeats, seed, id, pool, parameters, .. } = fields;
        let task =
            TaskFields { points, objects, truth, truth_sha256, label, group, methods, setting, repeats, seed }.try_into()?;
        check_name(id.as_deref(), "id")?;
        Ok(Self { image, image_sha256, view: View { slice, window }, task, id, pool, parameters })
    }
}

impl From<SegmentationRequest> for Fields {
    fn from(request: SegmentationRequest) -> Self {
        let SegmentationRequest { image, image_sha256, view: View { slice, window }, task, id, pool, parameters } = request;
        let TaskFields { points, objects, truth, truth_sha256, label, group, methods, setting, repeats, seed } = task.into();
        Self {
            image,
            image_sha256,
            slice,
            window,
            points,
            objects,
            truth,
            truth_sha256,
            label,
            group,
            methods,
            setting,
            repeats,
            seed,
            id,
            pool,
            parameters,
        }
    }
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
}

impl SegmentationRequest {
    /// Every object of the store that it has read.
    pub fn reads(&self) -> impl Iterator<Item = &S3Uri> {
        let truth = match &self.task {
            Task::Segment(_) => None,
            Task::Evaluate(evaluation) => Some(&evaluation.truth),
        };
        iter::once(&self.image).chain(truth)
    }

    /// The points it gives, object by object; none where they are to be drawn.
    pub fn points(&self) -> impl Iterator<Item = &Points> {
        let (objects, given) = match &self.task {
            Task::Segment(objects) => (objects.as_slice(), None),
            Task::Evaluate(Evaluation { dots: EvaluationDots::Given(points), .. }) => (&[][..], Some(points)),
            Task::Evaluate(_) => (&[][..], None),
        };
        objects.iter().map(|object| &object.points).chain(given)
    }

    /// Reads one line of a manifest.
    pub fn from_line(line: &[u8]) -> Result<Self, RequestError> {
        if line.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLong { bytes: line.len() });
        }
        let text = str::from_utf8(line).map_err(|_| RequestError::NotText)?;
        serde_json::from_str(text).map_err(|error| RequestError::Json(describe(&error)))
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

    /// A line with these fields beside the image's place.
    fn line(fields: &str) -> String {
        format!(r#"{{"image":"s3://scans/a.png",{fields}}}"#)
    }

    fn request(fields: &str) -> SegmentationRequest {
        SegmentationRequest::from_line(line(fields).as_bytes()).expect(fields)
    }

    fn points() -> Points {
        "1,2,1".parse().expect("valid")
    }

    #[test]
    fn reads_the_shortest_line() {
        let request = request(r#""points":[[1,2,1]]"#);
        assert_eq!(request.image.key(), "a.png");
        assert_eq!(request.parameters, Parameters::default());
        assert_eq!((request.view, request.id, request.pool), (View::default(), None, None));
        assert_eq!(request.task, Task::Segment(vec![Object { id: None, points: points() }]));
    }

    #[test]
    fn reads_several_objects_on_a_slice_of_a_volume() {
        let request =
            request(r#""slice":70,"window":[40,400],"objects":[{"id":"spleen","points":[[1,2,1]]},{"points":[[1,2,1]]}]"#);
        assert_eq!(request.view.slice, Some(70));
        assert_eq!(request.view.window.map(Window::width), Some(400.0));
        let objects = vec![Object { id: Some("spleen".into()), points: points() }, Object { id: None, points: points() }];
        assert_eq!(request.task, Task::Segment(objects));
    }

    #[test]
    fn an_evaluation_has_the_papers_repeats_and_every_method_where_it_names_none() {
        let evaluation = |fields: &str| match request(fields).task {
            Task::Evaluate(evaluation) => evaluation,
            Task::Segment(_) => panic!("{fields}"),
        };
        let truth: S3Uri = "s3://scans/t.nii.gz".parse().expect("valid");
        let drawn = EvaluationDots::Drawn { setting: "3/3".parse().expect("valid"), repeats: 5, seed: 1 };
        let all = Evaluation { truth, truth_sha256: None, label: None, group: None, methods: Method::ALL.into(), dots: drawn };
        assert_eq!(evaluation(r#""truth":"s3://scans/t.nii.gz","setting":"3/3""#), all);
        let given = r#""truth":"s3://scans/t.nii.gz","points":[[1,2,1]],"label":6,"group":"liver","methods":["untuned"]"#;
        let expected = Evaluation {
            label: Some(6),
            group: Some("liver".into()),
            methods: vec![Method::Untuned],
            dots: EvaluationDots::Given(points()),
            ..all
        };
        assert_eq!(evaluation(given), expected);
    }

    #[test]
    fn writes_the_form_of_the_manifest_and_reads_it_again() {
        for fields in [
            r#""points":[[1.5,2.0,1.0],[3.0,4.0,0.0]],"id":"slide-7","pool":"gpu""#,
            r#""slice":3,"window":[40.0,400.0],"objects":[{"points":[[1.0,2.0,1.0]]},{"id":"b","points":[[1.0,2.0,1.0]]}]"#,
            r#""objects":[{"id":"only one, but named","points":[[1.0,2.0,1.0]]}]"#,
            r#""points":[[1.0,2.0,1.0]],"truth":"s3://scans/t.png","methods":["finetuned"]"#,
            r#""image_sha256":"00000000000000000000000000000000000000000000000000000000000000ab","points":[[1.0,2.0,1.0]]"#,
            r#""truth":"s3://scans/t.png","truth_sha256":"00000000000000000000000000000000000000000000000000000000000000ab","methods":["untuned"],"setting":"1/0""#,
            r#""truth":"s3://scans/t.png","label":2,"group":"g","methods":["sam_mask","untuned"],"setting":"1/0","repeats":100,"seed":18446744073709551615"#,
        ] {
            let request = request(fields);
            let written = serde_json::to_string(&request).expect("serialises");
            let expected = line(fields);
            assert!(written.starts_with(expected.trim_end_matches('}')), "{written}");
            assert_eq!(SegmentationRequest::from_line(written.as_bytes()).expect("valid"), request);
        }
    }

    #[test]
    fn the_contents_that_are_expected_are_read_in_either_case() {
        let request = request(&format!(r#""image_sha256":"{}","points":[[1,2,1]]"#, "AB".repeat(32)));
        assert_eq!(request.image_sha256.expect("given").as_str(), "ab".repeat(32));
    }

    #[test]
    fn says_what_is_wrong_with_a_line() {
        assert!(refusal(b"\xff\xfe").contains("not UTF-8"));
        assert!(refusal(b"{").contains("(column 1)"));
        assert!(refusal(b"{}").contains("missing field `image`"));
        assert!(refusal(br#"{"image":"a.png","points":[[1,2,1]]}"#).contains("expected s3://bucket/key"));
        assert!(refusal(&vec![b' '; MAX_REQUEST_BYTES + 1]).contains("expected at most"));
    }

    #[test]
    fn says_which_fields_are_wrong_or_do_not_go_together() {
        const POINTS: &str = r#""points":[[1,2,1]]"#;
        const TRUTH: &str = r#""truth":"s3://scans/t.png""#;
        let drawn = format!(r#"{TRUTH},"setting":"3/3""#);
        for (fields, part) in [
            (r#""id":"a""#.into(), "nothing says what to segment: expected points, or objects, or truth"),
            (r#""points":[[1,2,0]]"#.into(), "no positive point"),
            (format!(r#"{POINTS},"image_sha256":"abc""#), "expected a SHA-256 in 64 hexadecimal digits"),
            (format!(r#"{POINTS},"truth_sha256":"{}""#, "0".repeat(64)), "truth_sha256 is for evaluations only"),
            (r#""points":[[NaN,2,1]]"#.into(), "expected"),
            (format!(r#"{POINTS},"stpes":3"#), "unknown field `stpes`"),
            (format!(r#"{POINTS},"id":"""#), "the id has 0 bytes"),
            (format!(r#"{POINTS},"id":"a\u0000b""#), "the id has 3 bytes or a control character"),
            (format!(r#"{POINTS},"window":[40,0]"#), "a width of more than 0"),
            (format!(r#"{POINTS},"slice":-1"#), "expected u32"),
            (format!(r#"{POINTS},"objects":[{{{POINTS}}}]"#), "points and objects exclude each other"),
            (r#""objects":[]"#.into(), "0 objects, expected 1 to 64"),
            (format!(r#""objects":[{}]"#, vec![format!("{{{POINTS}}}"); 65].join(",")), "65 objects, expected 1 to 64"),
            (format!(r#""objects":[{{{POINTS}}},{{"id":"",{POINTS}}}]"#), "the id of object 2 has 0 bytes"),
            (format!(r#"{POINTS},"methods":["untuned"]"#), "methods is for evaluations only: it needs truth"),
            (r#""setting":"3/3""#.into(), "setting is for evaluations only: it needs truth"),
            (format!(r#"{POINTS},"label":1"#), "label is for evaluations only"),
            (format!(r#"{POINTS},"seed":1"#), "seed is for evaluations only"),
            (TRUTH.into(), "an evaluation needs points, or a setting"),
            (format!(r#"{TRUTH},"repeats":5"#), "an evaluation needs points, or a setting"),
            (format!(r#"{TRUTH},"objects":[{{{POINTS}}}]"#), "truth and objects exclude each other"),
            (format!("{drawn},{POINTS}"), "points and setting exclude each other"),
            (format!(r#"{TRUTH},{POINTS},"repeats":5"#), "points and repeats exclude each other"),
            (format!(r#"{TRUTH},{POINTS},"seed":5"#), "points and seed exclude each other"),
            (format!(r#"{drawn},"repeats":0"#), "repeats is 0, expected 1 to 100"),
            (format!(r#"{drawn},"repeats":101"#), "repeats is 101, expected 1 to 100"),
            (format!(r#"{drawn},"methods":[]"#), "methods is empty"),
            (format!(r#"{drawn},"methods":["untuned","sam_mask","untuned"]"#), "methods has untuned twice"),
            (format!(r#"{drawn},"methods":["ours"]"#), "unknown variant `ours`"),
            (format!(r#"{drawn},"label":0"#), "label is 0, which is the background"),
            (format!(r#"{drawn},"group":"a\nb""#), "the group has 3 bytes or a control character"),
            (format!(r#"{TRUTH},"setting":"0/3""#), "such as 3/3"),
        ] {
            let said = refusal(line(&fields).as_bytes());
            assert!(said.contains(part), "{fields}: {said}");
        }
    }
}
