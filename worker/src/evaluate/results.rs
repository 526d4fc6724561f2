//! An evaluation's tables and figures, out of its rows.

use std::{fmt::Write, io::Cursor};

use anyhow::Context;
use evaluation::{
    Row,
    datasets::{Case, Kind},
    table_markdown, write_csv, write_json,
};
use image::{GrayImage, ImageFormat, RgbImage};
use request::Method;

use super::{
    case::Questions,
    figures::{self, SHOWN_REPEAT, Shown},
    folder::Folder,
    images::Images,
    jsonl,
    score::Question,
    trace::{self, Trace},
};

/// What all processes together have found.
pub struct Results<'a> {
    /// Every row, by case, in the order of the data set's list.
    pub rows: Vec<Row>,
    /// Cases that have no scores, and why.
    pub problems: Vec<(String, String)>,
    /// Cases with open questions, and their places in the data set's list.
    pub open: Vec<(usize, &'a Case)>,
}

/// What the rows are of.
pub struct Subject<'a> {
    /// The data set's kind.
    pub kind: Kind,
    /// `vit_b`, `vit_l` or `vit_h`, or the sizes of another model.
    pub architecture: String,
    /// What was asked of every case.
    pub questions: &'a Questions,
    /// The cases, and their places in the data set's list.
    pub cases: &'a [(usize, &'a Case)],
    /// Those of them that the figures show.
    pub shown: &'a [(usize, &'a Case)],
}

/// What to say when all is done.
pub struct Summary {
    /// The table, and where the files are.
    pub text: String,
    /// Counts, and where the files are.
    pub json: serde_json::Value,
}

/// Writes every table and figure that these rows give.
pub fn write_results(
    folder: &Folder,
    images: &mut Images,
    subject: &Subject<'_>,
    results: &Results<'_>,
) -> anyhow::Result<Summary> {
    let Results { rows, problems, .. } = results;
    let Subject { kind, architecture, questions, cases, shown } = subject;
    let mut files = Vec::new();
    let mut write = |name: &'static str, bytes: &[u8]| {
        files.push(folder.path(name).display().to_string());
        folder.write(name, bytes)
    };
    let (mut csv, mut json) = (Vec::new(), Vec::new());
    write_csv(rows, &mut csv)?;
    write_json(rows, &mut json)?;
    write("results.csv", &csv)?;
    write("results.json", &json)?;
    let mut table = table_markdown(rows, *kind, architecture);
    if !problems.is_empty() {
        table.push_str("\n## Images without scores\n\n");
        for (id, reason) in problems {
            let _ = writeln!(table, "- {id}: {reason}");
        }
    }
    write("table.md", table.as_bytes())?;
    if questions.trace {
        let traces = |&(index, case): &(usize, &Case)| jsonl::read(&folder.of_case(index, case).trace());
        let traces: Vec<Vec<Trace>> = cases.iter().map(traces).collect::<anyhow::Result<_>>()?;
        write("trace.md", trace::summary(&traces, questions.parameters.steps).as_bytes())?;
    }
    let shown = shown.iter().filter(|(_, case)| problems.iter().all(|(id, _)| *id != case.id));
    let shown: Vec<Shown> =
        shown.map(|&(index, case)| load(folder, images, questions, index, case)).collect::<anyhow::Result<_>>()?;
    for (name, figure) in [
        ("figures.png", figures::answers(&shown, &questions.settings)),
        ("figure3.png", figures::initial_masks(&shown, &questions.settings)),
        ("figure4.png", figures::before_and_after(rows, &questions.settings)),
    ] {
        if let Some(figure) = figure {
            write(name, &png(&figure)?)?;
        }
    }

    let skipped = rows.iter().filter(|row| row.scored().is_none()).count();
    let mut text = table;
    let _ = writeln!(text);
    for file in &files {
        let _ = writeln!(text, "{file}");
    }
    let problems: Vec<_> = problems.iter().map(|(id, reason)| serde_json::json!({"id": id, "reason": reason})).collect();
    let json = serde_json::json!({
        "cases": cases.len(),
        "rows": rows.len(),
        "skipped": skipped,
        "problems": problems,
        "files": files,
    });
    Ok(Summary { text, json })
}

/// An image of the figures, with the points and the kept answers of the draw that they show.
fn load(folder: &Folder, images: &mut Images, questions: &Questions, index: usize, case: &Case) -> anyhow::Result<Shown> {
    let loaded = images.load(case).with_context(|| format!("the figures need {} again", case.id))?;
    let mut shown = Shown::new(&case.id, &loaded.image.rgb, loaded.truth.clone());
    let files = folder.of_case(index, case);
    let plan = questions.plan(case, &|_| false);
    for &setting in &questions.settings {
        let question = |method: Method| Question { repeat: SHOWN_REPEAT, setting, method };
        // Points that cannot be drawn are a row that says so.
        let Ok(points) = plan.points(&loaded.truth, question(Method::InitialMask)) else { continue };
        shown.points.insert(setting, points);
        for &method in &questions.methods {
            let path = files.mask(question(method));
            if path.exists() {
                let mask: GrayImage = image::open(&path).with_context(|| format!("cannot read {}", path.display()))?.into_luma8();
                shown.masks.insert((setting, method), mask);
            }
        }
    }
    Ok(shown)
}

fn png(figure: &RgbImage) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    figure.write_to(&mut bytes, ImageFormat::Png).context("cannot encode a figure")?;
    Ok(bytes.into_inner())
}
