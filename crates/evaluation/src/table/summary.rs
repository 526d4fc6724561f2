use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use request::{Method, Setting};

use crate::{Outcome, Row, spearman};

/// Reasons for skipping that are listed before the rest is counted.
const MOST_REASONS: usize = 5;

/// What the tables above were made of, and how well the confidence sorts the answers.
pub(super) fn lines(rows: &[Row]) -> String {
    let cases = rows.iter().map(|row| &row.case).collect::<BTreeSet<_>>().len();
    let repeats = rows.iter().map(|row| row.repeat).collect::<BTreeSet<_>>().len();
    let draws = rows.iter().map(draw).collect::<BTreeSet<_>>().len();
    let mut text = format!("\n## What was evaluated\n\n- Cases: {cases}; repeats: {repeats}; draws of points: {draws}.\n");
    text.push_str(&skipped(rows));
    text.push_str(&confidence(rows));
    text
}

/// A draw of points: all methods share it.
fn draw(row: &Row) -> (&str, Setting, u32) {
    (&row.case, row.setting, row.repeat)
}

fn skipped(rows: &[Row]) -> String {
    let reasons: BTreeMap<_, &str> = rows
        .iter()
        .filter_map(|row| match &row.outcome {
            Outcome::Skipped(reason) => Some((draw(row), reason.as_str())),
            Outcome::Scored(_) => None,
        })
        .collect();
    if reasons.is_empty() {
        return "- Skipped draws: none.\n".into();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons.values() {
        *counts.entry(reason).or_default() += 1;
    }
    let mut text = format!("- Skipped draws: {}.\n", reasons.len());
    let mut by_count: Vec<(&str, usize)> = counts.into_iter().collect();
    by_count.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    for (reason, count) in by_count.iter().take(MOST_REASONS) {
        let _ = writeln!(text, "  - {count} x {reason}");
    }
    if by_count.len() > MOST_REASONS {
        let _ = writeln!(text, "  - and {} other reasons", by_count.len() - MOST_REASONS);
    }
    text
}

fn confidence(rows: &[Row]) -> String {
    let ours = rows.iter().filter(|row| row.method == Method::Finetuned).filter_map(Row::scored);
    let (confidences, ious): (Vec<f64>, Vec<f64>) = ours.map(|scored| (scored.confidence, scored.scores.iou)).unzip();
    let correlation = spearman(&confidences, &ious).map_or_else(|| "-".into(), |correlation| format!("{correlation:.3}"));
    format!(
        "- Rank correlation (Spearman) of our confidence with the IoU against the truth, over {} answers: {correlation}.\n",
        ious.len()
    )
}
