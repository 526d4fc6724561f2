use std::cmp::Ordering;

use telemetry::Printable;

use crate::api::types::{Evaluation, Job, JobObject, JobState, Mask};

const HEADER: [&str; 8] = ["job", "state", "dots", "IoU", "step", "confidence", "seconds", ""];
/// The columns that are aligned on their right.
const NUMBERS: std::ops::RangeInclusive<usize> = 3..=6;

/// A line of the table: an object of a job, or a job that is an evaluation.
pub struct Row {
    cells: [String; 8],
    confidence: Option<f64>,
}

impl Row {
    /// The one that a reviewer should look at first comes first; those without a mask come last.
    pub fn least_sure_first(&self, other: &Self) -> Ordering {
        let of = |row: &Self| row.confidence.unwrap_or(f64::INFINITY);
        of(self).total_cmp(&of(other))
    }
}

/// A job's lines: line of the manifest, id and object, state, dots (positive and negative), IoU with J, the step the mask was taken
/// from (J where it is J itself), confidence, seconds, and what should be known, with a mark: why there is no mask, or its warnings.
pub fn rows(job: &Job) -> Vec<Row> {
    let name = job.user_id.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
    let name = format!("{}{name}", job.line);
    if let Some(evaluation) = &job.evaluation {
        return vec![row(job, name, drawn(evaluation), None)];
    }
    let is_single = job.objects.len() == 1;
    let row_of = |(number, object): (usize, &JobObject)| {
        let name = match &object.id {
            Some(id) => format!("{name}: {id}"),
            None if is_single => name.clone(),
            None => format!("{name}: {number}"),
        };
        row(job, name, counts(&object.points), object.mask.as_ref())
    };
    let mut rows: Vec<Row> = (1..).zip(&job.objects).map(row_of).collect();
    // The seconds and the error are the job's.
    for row in rows.iter_mut().skip(1) {
        row.cells[6].clear();
    }
    rows
}

/// The rows in columns.
pub fn table(rows: &[Row], header: bool) -> String {
    let head = header.then(|| HEADER.map(str::to_owned));
    let lines = || head.iter().chain(rows.iter().map(|row| &row.cells));
    let widths: [usize; 8] = std::array::from_fn(|column| lines().map(|cells| cells[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for cells in lines() {
        let pad = |(column, cell): (usize, &String)| {
            let width = widths[column];
            if NUMBERS.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        };
        let line = cells.iter().enumerate().map(pad).collect::<Vec<_>>().join("  ");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn row(job: &Job, name: String, dots: String, mask: Option<&Mask>) -> Row {
    let warnings = mask.map(|mask| mask.warnings.as_slice()).unwrap_or_default();
    let marked = (!warnings.is_empty()).then(|| format!("! {}", warnings.join("; ")));
    let remark = job.error.as_ref().map(|error| error.message.clone()).or(marked).unwrap_or_default();
    let cells = [
        Printable(name).to_string(),
        state(job.state).into(),
        dots,
        mask.map(|mask| format!("{:.3}", mask.iou)).unwrap_or_default(),
        mask.map(|mask| step(mask.best_step, job.parameters.steps)).unwrap_or_default(),
        mask.map(|mask| format!("{:.2}", mask.confidence)).unwrap_or_default(),
        job.result.as_ref().map(|result| format!("{:.1}", result.seconds)).unwrap_or_default(),
        // Messages may quote what was sent: nothing in them may move the cursor or end the row.
        Printable(remark).to_string(),
    ];
    Row { cells, confidence: mask.map(|mask| mask.confidence) }
}

fn counts(points: &[[f64; 3]]) -> String {
    let positive = points.iter().filter(|point| point[2] > 0.5).count();
    format!("+{positive} -{}", points.len() - positive)
}

fn drawn(evaluation: &Evaluation) -> String {
    match (&evaluation.points, &evaluation.setting, evaluation.repeats) {
        (Some(points), ..) => counts(points),
        (None, Some(setting), Some(repeats)) => format!("{setting} x {repeats}"),
        _ => String::new(),
    }
}

fn step(best: i32, steps: u32) -> String {
    if best == 0 { "J".into() } else { format!("{best}/{steps}") }
}

fn state(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::Quarantined => "quarantined",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(line: u32, state: &str, rest: &str) -> Job {
        let json = format!(
            r#"{{"id":"0199b1f0-0000-7000-8000-000000000001","batch_id":"0199b1f0-0000-7000-8000-000000000000","line":{line},
             "pool":"gpu","image":"s3://scans/a.png","parameters":{{"steps":100,"learning_rate":1e-5,"recipe":"paper","choices":{{}}}},
             "state":"{state}","attempt":1,"max_attempts":5,"created_at":"2026-01-01T00:00:00Z",{rest}}}"#
        );
        serde_json::from_str(&json).expect("valid")
    }

    fn jobs() -> Vec<Job> {
        let mask = |iou: f64, step: i32, confidence: f64, warnings: &str| {
            format!(r#"{{"iou":{iou},"best_step":{step},"confidence":{confidence},"warnings":[{warnings}]}}"#)
        };
        let (first, second) = (mask(0.87654, 42, 0.811, ""), mask(1.0, 0, 0.5, r#""dot 1 is\noutside","J is full""#));
        let result = |seconds: f64| format!(r#""result":{{"artifacts":[],"scores":[],"seconds":{seconds}}}"#);
        let dots = "[[1,2,1],[3,4,0],[5,6,1]]";
        vec![
            job(
                1,
                "succeeded",
                &format!(r#""user_id":"slide-7","objects":[{{"points":{dots},"mask":{first}}}],{}"#, result(12.34)),
            ),
            job(
                2,
                "succeeded",
                &format!(
                    r#""objects":[{{"id":"spleen","points":{dots},"mask":{first}}},{{"points":{dots},"mask":{second}}}],{}"#,
                    result(8.0)
                ),
            ),
            job(12, "failed", r#""objects":[{"points":[[1,2,1]]}],"error":{"class":"permanent","message":"no such\nobject"}"#),
            job(
                13,
                "queued",
                r#""objects":[],"evaluation":{"truth":"s3://scans/t.png","methods":["untuned"],"setting":"3/3","repeats":5,"seed":1}"#,
            ),
        ]
    }

    #[test]
    fn puts_each_object_on_a_line_with_its_columns_aligned() {
        let expected = [
            "job        state      dots       IoU    step  confidence  seconds",
            "1 slide-7  succeeded  +2 -1    0.877  42/100        0.81     12.3",
            "2: spleen  succeeded  +2 -1    0.877  42/100        0.81      8.0",
            "2: 2       succeeded  +2 -1    1.000       J        0.50           ! dot 1 is\\noutside; J is full",
            "12         failed     +1 -0                                        no such\\nobject",
            "13         queued     3/3 x 5",
            "",
        ];
        let rows: Vec<Row> = jobs().iter().flat_map(rows).collect();
        assert_eq!(table(&rows, true), expected.join("\n"));
    }

    #[test]
    fn those_of_the_least_confidence_come_first_and_those_without_a_mask_last() {
        let mut rows: Vec<Row> = jobs().iter().flat_map(rows).collect();
        rows.sort_by(Row::least_sure_first);
        let names: Vec<&str> = rows.iter().map(|row| row.cells[0].as_str()).collect();
        assert_eq!(names, ["2: 2", "1 slide-7", "2: spleen", "12", "13"]);
    }
}
