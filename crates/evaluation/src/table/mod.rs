//! Rows of an evaluation to a page of tables, laid out as the paper's.

mod cells;
mod differences;
mod summary;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt::Write as _};

use request::{Method, Setting};

use crate::{
    Row,
    datasets::{Kind, ORGANS},
    figure,
};
use cells::{Cell, Format};

/// The tables of an evaluation in Markdown.
///
/// AMOS22 as the paper's table 1: Dice, organs down, for each number of points a table of its own. Everything else as tables 2 and 3:
/// Dice/IoU in percent, settings down, for each group a table and one for all. A score is the mean over the cases of the mean over their
/// repeats. Where the paper has the figure for `architecture` (`vit_b`, `vit_l`), it stands beside in brackets. Below each table the
/// method less each other one, paired by case; below all how many cases, repeats and skipped draws there were. A cell without data is "-".
pub fn table_markdown(rows: &[Row], kind: Kind, architecture: &str) -> String {
    let mut page = format!("# Evaluation: {kind}, {architecture}\n\n{}\n", legend(kind));
    for section in sections(rows, kind) {
        let _ = write!(page, "\n## {}\n\n{}", section.title, section.table(kind, architecture));
        page.push_str(&differences::table(&section.rows(), Format::of(kind)));
    }
    page + &summary::lines(rows)
}

fn legend(kind: Kind) -> &'static str {
    match kind {
        Kind::Amos22 => "Dice, mean over cases (repeats averaged first); in brackets the paper's figure (table 1).",
        Kind::MonuSeg => {
            "Dice/IoU in percent, mean over cases (repeats averaged first); in brackets the paper's figures (table 2)."
        }
        Kind::Glas => "Dice/IoU in percent, mean over cases (repeats averaged first); in brackets the paper's figures (table 3).",
        Kind::Folder => "Dice/IoU in percent, mean over cases (repeats averaged first).",
    }
}

/// One table.
struct Section<'a> {
    title: String,
    /// The heading of the first column.
    down: &'static str,
    lines: Vec<Line<'a>>,
    /// The heading of a last line: the mean of the lines above.
    mean: Option<&'static str>,
}

/// One line of a table.
struct Line<'a> {
    label: String,
    group: &'a str,
    setting: Setting,
    rows: Vec<&'a Row>,
}

fn sections(rows: &[Row], kind: Kind) -> Vec<Section<'_>> {
    let groups: BTreeSet<&str> = rows.iter().map(|row| row.group.as_str()).collect();
    let settings = settings(rows.iter());
    if kind == Kind::Amos22 {
        let order = |group: &&str| ORGANS.iter().position(|organ| organ == group).unwrap_or(ORGANS.len());
        let mut organs: Vec<&str> = groups.into_iter().collect();
        organs.sort_by_key(order);
        let section = |&setting: &Setting| {
            let lines = organs
                .iter()
                .map(|&organ| Line::new(organ.to_owned(), organ, setting, rows.iter().filter(|row| row.group == organ)));
            Section {
                title: format!("{setting} points"),
                down: "organ",
                lines: lines.collect(),
                mean: Some("mean of the organs"),
            }
        };
        return settings.iter().map(section).collect();
    }
    let section = |title: &str, group: Option<&str>| {
        let inside = |row: &&Row| group.is_none_or(|group| row.group == group);
        let line = |&setting: &Setting| Line::new(setting.to_string(), "", setting, rows.iter().filter(inside));
        Section { title: title.into(), down: "pos/neg", lines: settings.iter().map(line).collect(), mean: None }
    };
    let mut sections: Vec<Section<'_>> = groups.iter().map(|group| section(group, Some(group))).collect();
    if groups.len() > 1 {
        sections.push(section("all", None));
    }
    sections
}

/// In the order of the paper's tables: by the number of points, of two with as many the one with more negative points first.
fn settings<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Setting> {
    let mut settings: Vec<Setting> = rows.map(|row| row.setting).collect::<BTreeSet<_>>().into_iter().collect();
    settings.sort_by_key(|setting| (setting.positive() + setting.negative(), setting.positive()));
    settings
}

impl<'a> Line<'a> {
    fn new(label: String, group: &'a str, setting: Setting, rows: impl Iterator<Item = &'a Row>) -> Self {
        Self { label, group, setting, rows: rows.filter(|row| row.setting == setting).collect() }
    }
}

impl<'a> Section<'a> {
    fn rows(&self) -> Vec<&'a Row> {
        self.lines.iter().flat_map(|line| line.rows.iter().copied()).collect()
    }

    fn table(&self, kind: Kind, architecture: &str) -> String {
        let (format, rows) = (Format::of(kind), self.rows());
        let methods: Vec<Method> =
            Method::ALL.into_iter().filter(|&method| rows.iter().any(|row| row.method == method)).collect();
        let has_published = rows.iter().any(|row| row.scored().is_some_and(|scored| scored.published.is_some()));
        let mut headings: Vec<&str> = methods.iter().map(|&method| title(method)).collect();
        headings.extend(has_published.then_some("Ours, as the published code counts"));
        let mut text =
            format!("| {} | {} | cases |\n|---|{}\n", self.down, headings.join(" | "), "---|".repeat(headings.len() + 1));

        let mut cells_by_line = Vec::new();
        for line in &self.lines {
            let paper = |method| figure(kind, architecture, line.group, line.setting, method);
            let mut cells: Vec<Cell> = methods.iter().map(|&method| Cell::of(&line.rows, method, paper(method))).collect();
            cells.extend(has_published.then(|| Cell::of_published(&line.rows)));
            let _ = writeln!(text, "| {} | {} | {} |", line.label, shown(&cells, format), cells::scored_cases(&line.rows));
            cells_by_line.push(cells);
        }
        if let Some(label) = self.mean {
            let means: Vec<Cell> =
                (0..headings.len()).map(|column| Cell::mean_of(cells_by_line.iter().map(|cells| &cells[column]))).collect();
            let _ = writeln!(text, "| {label} | {} | {} |", shown(&means, format), cells::scored_cases(&rows));
        }
        text
    }
}

fn shown(cells: &[Cell], format: Format) -> String {
    cells.iter().map(|cell| cell.shown(format)).collect::<Vec<_>>().join(" | ")
}

/// As in the paper's tables.
fn title(method: Method) -> &'static str {
    match method {
        Method::SamPoints => "SAM w/P",
        Method::SamMask => "SAM w/J",
        Method::InitialMask => "J",
        Method::SuperClustering => "Super-Clustering",
        Method::Untuned => "Untuned",
        Method::Finetuned => "Ours",
    }
}
