use std::collections::{BTreeMap, BTreeSet};

use request::Method;

use crate::{Figure, Row, Scored, Scores, datasets::Kind, statistics::mean};

/// How a table writes its scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `0.872`, as in table 1.
    Dice,
    /// `54.98/39.49`, as in tables 2 and 3.
    DiceAndIou,
}

impl Format {
    pub(super) fn of(kind: Kind) -> Self {
        if kind == Kind::Amos22 { Self::Dice } else { Self::DiceAndIou }
    }
}

/// A mean beside the paper's; both may be missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    ours: Option<Scores>,
    paper: Option<Figure>,
}

impl Cell {
    /// The mean over cases of a method's scores.
    pub(super) fn of(rows: &[&Row], method: Method, paper: Option<Figure>) -> Self {
        let of_cases = |score: fn(&Scored) -> Option<f64>| means_of_cases(rows, method, score).into_values().collect::<Vec<_>>();
        let dice = mean(&of_cases(|scored| Some(scored.scores.dice)));
        let iou = mean(&of_cases(|scored| Some(scored.scores.iou)));
        Self { ours: dice.zip(iou).map(|(dice, iou)| Scores { dice, iou }), paper }
    }

    /// The same of the method itself, as the published code counts.
    pub(super) fn of_published(rows: &[&Row]) -> Self {
        let of_cases =
            |score: fn(&Scored) -> Option<f64>| means_of_cases(rows, Method::Finetuned, score).into_values().collect::<Vec<_>>();
        let dice = mean(&of_cases(|scored| scored.published.map(|scores| scores.dice)));
        let iou = mean(&of_cases(|scored| scored.published.map(|scores| scores.iou)));
        Self { ours: dice.zip(iou).map(|(dice, iou)| Scores { dice, iou }), paper: None }
    }

    /// The mean of those cells that have something; the paper's only over cells that have both.
    pub(super) fn mean_of<'a>(cells: impl Iterator<Item = &'a Self>) -> Self {
        let filled: Vec<(Scores, Option<Figure>)> = cells.filter_map(|cell| Some((cell.ours?, cell.paper))).collect();
        let of = |score: fn(&Scores) -> f64| mean(&filled.iter().map(|(scores, _)| score(scores)).collect::<Vec<_>>());
        let papers: Vec<f64> = filled.iter().filter_map(|(_, paper)| paper.map(|figure| figure.dice)).collect();
        let paper = if papers.len() == filled.len() { mean(&papers).map(|dice| Figure { dice, iou: None }) } else { None };
        Self { ours: of(|scores| scores.dice).zip(of(|scores| scores.iou)).map(|(dice, iou)| Scores { dice, iou }), paper }
    }

    pub(super) fn shown(&self, format: Format) -> String {
        let number = |dice: f64, iou: Option<f64>| match (format, iou) {
            (Format::DiceAndIou, Some(iou)) => format!("{:.2}/{:.2}", dice * 100.0, iou * 100.0),
            (Format::DiceAndIou, None) => format!("{:.2}", dice * 100.0),
            (Format::Dice, _) => format!("{dice:.3}"),
        };
        let ours = self.ours.map_or_else(|| "-".into(), |scores| number(scores.dice, Some(scores.iou)));
        match self.paper {
            Some(figure) => format!("{ours} [{}]", number(figure.dice, figure.iou)),
            None => ours,
        }
    }
}

/// For each case with a score by this method, the mean over its repeats.
fn means_of_cases<'a>(rows: &[&'a Row], method: Method, score: fn(&Scored) -> Option<f64>) -> BTreeMap<&'a str, f64> {
    let mut repeats: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.method == method) {
        if let Some(value) = row.scored().and_then(score) {
            repeats.entry(&row.case).or_default().push(value);
        }
    }
    repeats.into_iter().filter_map(|(case, values)| Some((case, mean(&values)?))).collect()
}

/// How many cases have a score by any method.
pub(super) fn scored_cases(rows: &[&Row]) -> usize {
    rows.iter().filter(|row| row.scored().is_some()).map(|row| &row.case).collect::<BTreeSet<_>>().len()
}
