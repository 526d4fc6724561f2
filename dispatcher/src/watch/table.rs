use crate::api::types::{Job, JobState};

const HEADER: [&str; 7] = ["job", "state", "dots", "IoU", "step", "seconds", ""];
/// The columns that are aligned on their right.
const NUMBERS: std::ops::RangeInclusive<usize> = 3..=5;

/// The jobs in columns: line and id, state, dots (positive and negative), IoU with J, the step the mask was taken from (J where it is
/// J itself), seconds, and why there is no mask.
pub fn table(jobs: &[Job], header: bool) -> String {
    let head = header.then(|| HEADER.map(str::to_owned));
    let rows: Vec<[String; 7]> = head.into_iter().chain(jobs.iter().map(row)).collect();
    let widths: [usize; 7] = std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        let pad = |(column, cell): (usize, &String)| {
            let width = widths[column];
            if NUMBERS.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        };
        let line = row.iter().enumerate().map(pad).collect::<Vec<_>>().join("  ");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn row(job: &Job) -> [String; 7] {
    let name = job.user_id.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
    let positive = job.points.iter().filter(|point| point[2] > 0.5).count();
    let result = job.result.as_ref();
    [
        format!("{}{name}", job.line),
        state(job.state).into(),
        format!("+{positive} -{}", job.points.len() - positive),
        result.map(|result| format!("{:.3}", result.iou)).unwrap_or_default(),
        result.map(|result| step(result.best_step, job.parameters.steps)).unwrap_or_default(),
        result.map(|result| format!("{:.1}", result.seconds)).unwrap_or_default(),
        // Messages may quote what was sent: nothing in them may move the cursor or end the row.
        job.error.as_ref().map(|error| error.message.replace(char::is_control, " ")).unwrap_or_default(),
    ]
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

    #[test]
    fn puts_each_job_on_a_line_with_its_columns_aligned() {
        let json = r#"[
            {"id":"0199b1f0-0000-7000-8000-000000000001","batch_id":"0199b1f0-0000-7000-8000-000000000000","line":1,"user_id":"slide-7",
             "pool":"gpu","image":"s3://scans/a.png","points":[[1,2,1],[3,4,0],[5,6,1]],
             "parameters":{"steps":100,"learning_rate":1e-5,"recipe":"paper"},"state":"succeeded","attempt":1,"max_attempts":5,
             "created_at":"2026-01-01T00:00:00Z","result":{"artifacts":[],"iou":0.87654,"best_step":42,"seconds":12.34}},
            {"id":"0199b1f0-0000-7000-8000-000000000003","batch_id":"0199b1f0-0000-7000-8000-000000000000","line":2,
             "pool":"gpu","image":"s3://scans/c.png","points":[[1,2,1]],
             "parameters":{"steps":100,"learning_rate":1e-5,"recipe":"paper"},"state":"succeeded","attempt":1,"max_attempts":5,
             "created_at":"2026-01-01T00:00:00Z","result":{"artifacts":[],"iou":1,"best_step":0,"seconds":8}},
            {"id":"0199b1f0-0000-7000-8000-000000000002","batch_id":"0199b1f0-0000-7000-8000-000000000000","line":12,
             "pool":"gpu","image":"s3://scans/b.png","points":[[1,2,1]],
             "parameters":{"steps":100,"learning_rate":1e-5,"recipe":"paper"},"state":"failed","attempt":5,"max_attempts":5,
             "error":{"class":"permanent","message":"no such\nobject"},"created_at":"2026-01-01T00:00:00Z"}]"#;
        let jobs: Vec<Job> = serde_json::from_str(json).expect("valid");
        let expected = [
            "job        state      dots     IoU    step  seconds",
            "1 slide-7  succeeded  +2 -1  0.877  42/100     12.3",
            "2          succeeded  +1 -0  1.000       J      8.0",
            "12         failed     +1 -0                          no such object",
            "",
        ];
        assert_eq!(table(&jobs, true), expected.join("\n"));
    }
}
