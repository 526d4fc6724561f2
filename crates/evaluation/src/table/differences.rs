use std::{collections::BTreeMap, fmt::Write as _};

use request::Method;

use super::{cells::Format, settings, title};
use crate::{
    Row,
    statistics::{mean, standard_error},
};

/// What the method is held against.
const OTHERS: [Method; 4] = [Method::InitialMask, Method::Untuned, Method::SamMask, Method::SamPoints];

/// For each setting and other method: the mean over cases of our Dice less the other's on the same case, its standard error, and on how
/// many of the cases ours is better. A draw without a score by either counts for neither. Nothing if there is nothing to compare.
pub(super) fn table(rows: &[&Row], format: Format) -> String {
    let has = |method: Method| rows.iter().any(|row| row.method == method && row.scored().is_some());
    let others: Vec<Method> = OTHERS.into_iter().filter(|&other| has(other)).collect();
    if others.is_empty() || !has(Method::Finetuned) {
        return String::new();
    }
    let unit = if format == Format::Dice { "Dice" } else { "Dice in percent" };
    let headings: Vec<&str> = others.iter().map(|&other| title(other)).collect();
    let mut text =
        format!("\nOurs less the other, {unit}, paired by case: mean ± standard error (cases on which ours is better)\n\n");
    let _ = writeln!(text, "| pos/neg | {} |\n|---|{}", headings.join(" | "), "---|".repeat(others.len()));
    for setting in settings(rows.iter().copied()) {
        let drawn: Vec<&Row> = rows.iter().copied().filter(|row| row.setting == setting).collect();
        let cells: Vec<String> = others.iter().map(|&other| difference(&drawn, other, format)).collect();
        let _ = writeln!(text, "| {setting} | {} |", cells.join(" | "));
    }
    text
}

fn difference(rows: &[&Row], other: Method, format: Format) -> String {
    let dice_of = |method: Method| -> BTreeMap<(&str, u32), f64> {
        let of_method = rows.iter().filter(|row| row.method == method);
        of_method.filter_map(|row| Some(((row.case.as_str(), row.repeat), row.scored()?.scores.dice))).collect()
    };
    let (ours, others) = (dice_of(Method::Finetuned), dice_of(other));
    let mut of_cases: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (draw, ours) in &ours {
        if let Some(other) = others.get(draw) {
            of_cases.entry(draw.0).or_default().push(ours - other);
        }
    }
    let differences: Vec<f64> = of_cases.values().filter_map(|differences| mean(differences)).collect();
    let better = differences.iter().filter(|&&difference| difference > 0.0).count();
    let (scale, digits) = if format == Format::Dice { (1.0, 3) } else { (100.0, 2) };
    let Some(mean) = mean(&differences) else { return "-".into() };
    let error = standard_error(&differences).map_or_else(|| "-".into(), |error| format!("{:.digits$}", error * scale));
    format!("{:+.digits$} ± {error} ({better} of {})", mean * scale, differences.len())
}
