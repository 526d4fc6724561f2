use std::io::{Read, Write};

use request::{Method, Setting};
use serde::{Deserialize, Serialize};

use crate::Scores;

/// What came of one case with one draw of points by one method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Line", try_from = "Line")]
pub struct Row {
    /// The case's id.
    pub case: String,
    /// The case's group.
    pub group: String,
    /// How many points were drawn.
    pub setting: Setting,
    /// Which of the repeats, from 0.
    pub repeat: u32,
    /// By which method.
    pub method: Method,
    /// What came of it.
    pub outcome: Outcome,
}

/// See [`Row::outcome`].
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A mask, and how good it is.
    Scored(Scored),
    /// No mask, and why.
    Skipped(String),
}

/// A mask's scores and what else is known of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Against the truth.
    pub scores: Scores,
    /// Against the truth, as the published code counts them.
    pub published: Option<Scores>,
    /// IoU of the answer with the initial mask.
    pub iou_with_initial: f64,
    /// The share of the points on whose side the mask is.
    pub agreement: f64,
    /// How sure the mask is, from 0 to 1.
    pub confidence: f64,
    /// Which step's prediction it is, from 1; 0 for methods without steps.
    pub best_step: u32,
    /// How long it took.
    pub seconds: f64,
}

/// Why rows cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// Not a table of rows, or a file that cannot be used.
    #[error("the rows' CSV cannot be used: {0}")]
    Csv(#[from] csv::Error),
    /// A file that cannot be written.
    #[error("the rows' JSON cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// A row without a reason to be skipped and without scores, or with a score that is no number.
    #[error(
        "row {number} of the CSV (case {case}) has neither all its scores, as finite numbers, nor a reason for being skipped; take it out"
    )]
    Incomplete {
        /// Counted from 1, without the heading.
        number: usize,
        /// The case's id.
        case: String,
    },
}

impl Row {
    /// What makes it one of its kind; rows are sorted by it.
    pub fn key(&self) -> (&str, Setting, u32, Method) {
        (&self.case, self.setting, self.repeat, self.method)
    }

    /// The scores, if it was not skipped.
    pub fn scored(&self) -> Option<&Scored> {
        match &self.outcome {
            Outcome::Scored(scored) => Some(scored),
            Outcome::Skipped(_) => None,
        }
    }
}

/// Writes the rows, sorted by [`Row::key`], under a heading. Numbers have the digits that give the same bits when they are read again;
/// all but the last column, the seconds, is the same for the same seed.
pub fn write_csv(rows: &[Row], out: impl Write) -> Result<(), RowsError> {
    let mut writer = csv::Writer::from_writer(out);
    for row in sorted(rows) {
        writer.serialize(Line::from(row))?;
    }
    Ok(writer.flush().map_err(csv::Error::from)?)
}

/// Writes the rows as one JSON array of objects, sorted and with numbers as in [`write_csv`].
pub fn write_json(rows: &[Row], mut out: impl Write) -> Result<(), RowsError> {
    let lines: Vec<Line> = sorted(rows).into_iter().map(Line::from).collect();
    serde_json::to_writer_pretty(&mut out, &lines)?;
    Ok(out.write_all(b"\n").map_err(serde_json::Error::io)?)
}

/// Reads what [`write_csv`] has written.
pub fn read_csv(input: impl Read) -> Result<Vec<Row>, RowsError> {
    let mut rows = Vec::new();
    for (index, line) in csv::Reader::from_reader(input).deserialize::<Line>().enumerate() {
        let line = line?;
        let case = line.case.clone();
        rows.push(line.into_row().ok_or(RowsError::Incomplete { number: index + 1, case })?);
    }
    Ok(rows)
}

fn sorted(rows: &[Row]) -> Vec<&Row> {
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by(|a, b| a.key().cmp(&b.key()));
    sorted
}

/// A [`Row`] as it is written. The seconds are last, for they alone differ from run to run.
#[derive(Serialize, Deserialize)]
struct Line {
    case: String,
    group: String,
    setting: Setting,
    repeat: u32,
    method: Method,
    dice: Option<f64>,
    iou: Option<f64>,
    published_dice: Option<f64>,
    published_iou: Option<f64>,
    iou_with_initial: Option<f64>,
    agreement: Option<f64>,
    confidence: Option<f64>,
    best_step: Option<u32>,
    skipped: Option<String>,
    seconds: Option<f64>,
}

impl From<&Row> for Line {
    fn from(row: &Row) -> Self {
        let scored = row.scored();
        let published = scored.and_then(|scored| scored.published);
        Self {
            case: row.case.clone(),
            group: row.group.clone(),
            setting: row.setting,
            repeat: row.repeat,
            method: row.method,
            dice: scored.map(|scored| scored.scores.dice),
            iou: scored.map(|scored| scored.scores.iou),
            published_dice: published.map(|scores| scores.dice),
            published_iou: published.map(|scores| scores.iou),
            iou_with_initial: scored.map(|scored| scored.iou_with_initial),
            agreement: scored.map(|scored| scored.agreement),
            confidence: scored.map(|scored| scored.confidence),
            best_step: scored.map(|scored| scored.best_step),
            skipped: match &row.outcome {
                Outcome::Scored(_) => None,
                Outcome::Skipped(reason) => Some(reason.clone()),
            },
            seconds: scored.map(|scored| scored.seconds),
        }
    }
}

impl From<Row> for Line {
    fn from(row: Row) -> Self {
        Self::from(&row)
    }
}

impl TryFrom<Line> for Row {
    type Error = &'static str;

    fn try_from(line: Line) -> Result<Self, Self::Error> {
        line.into_row().ok_or("a row has neither all its scores nor a reason for being skipped")
    }
}

impl Line {
    /// Nothing if it is incomplete.
    fn into_row(self) -> Option<Row> {
        let outcome = match &self.skipped {
            Some(reason) => Outcome::Skipped(reason.clone()),
            None => Outcome::Scored(self.scored()?),
        };
        Some(Row { case: self.case, group: self.group, setting: self.setting, repeat: self.repeat, method: self.method, outcome })
    }

    fn scored(&self) -> Option<Scored> {
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        let published = match (self.published_dice, self.published_iou) {
            (None, None) => None,
            (dice, iou) => Some(Scores { dice: finite(dice)?, iou: finite(iou)? }),
        };
        Some(Scored {
            scores: Scores { dice: finite(self.dice)?, iou: finite(self.iou)? },
            published,
            iou_with_initial: finite(self.iou_with_initial)?,
            agreement: finite(self.agreement)?,
            confidence: finite(self.confidence)?,
            best_step: self.best_step?,
            seconds: finite(self.seconds)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(dice: f64, published: Option<Scores>) -> Outcome {
        let (scores, seconds) = (Scores { dice, iou: 1.0 / 3.0 }, 1.25);
        Outcome::Scored(Scored {
            scores,
            published,
            iou_with_initial: 0.5,
            agreement: 1.0,
            confidence: 0.1,
            best_step: 7,
            seconds,
        })
    }

    fn rows() -> Vec<Row> {
        let row = |case: &str, setting: &str, repeat, method, outcome| Row {
            case: case.into(),
            group: "cells, \"HE\"".into(),
            setting: setting.parse().unwrap(),
            repeat,
            method,
            outcome,
        };
        vec![
            row("b", "1/1", 0, Method::Finetuned, scored(0.1, Some(Scores { dice: 0.25, iou: 0.5 }))),
            row("a", "10/0", 1, Method::InitialMask, Outcome::Skipped("3 foreground tokens, 10 points wanted".into())),
            row("a", "2/0", 0, Method::Finetuned, scored(0.1 + 0.2, None)),
            row("a", "2/0", 0, Method::SamPoints, scored(1.0, None)),
        ]
    }

    fn csv(rows: &[Row]) -> String {
        let mut bytes = Vec::new();
        write_csv(rows, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_csv_is_sorted_and_the_seconds_are_its_last_column() {
        assert_eq!(
            csv(&rows()),
            "case,group,setting,repeat,method,dice,iou,published_dice,published_iou,iou_with_initial,agreement,confidence,best_step,\
             skipped,seconds\n\
             a,\"cells, \"\"HE\"\"\",2/0,0,sam_points,1.0,0.3333333333333333,,,0.5,1.0,0.1,7,,1.25\n\
             a,\"cells, \"\"HE\"\"\",2/0,0,finetuned,0.30000000000000004,0.3333333333333333,,,0.5,1.0,0.1,7,,1.25\n\
             a,\"cells, \"\"HE\"\"\",10/0,1,initial_mask,,,,,,,,,\"3 foreground tokens, 10 points wanted\",\n\
             b,\"cells, \"\"HE\"\"\",1/1,0,finetuned,0.1,0.3333333333333333,0.25,0.5,0.5,1.0,0.1,7,,1.25\n"
        );
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let read = read_csv(csv(&rows()).as_bytes()).unwrap();
        assert_eq!(read.iter().collect::<Vec<_>>(), sorted(&rows()));
        assert_eq!(read_csv(csv(&[]).as_bytes()).unwrap(), []);
    }

    #[test]
    fn a_row_with_half_its_scores_or_a_score_that_is_no_number_is_refused_by_its_number() {
        let text = csv(&rows());
        for damaged in [text.replace(",1.0,0.333", ",,0.333"), text.replace(",1.0,0.333", ",NaN,0.333")] {
            let error = read_csv(damaged.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("row 1 of the CSV (case a) has neither"), "{error}");
        }
        let cut_short = &text[..text.len() - 10];
        assert!(read_csv(cut_short.as_bytes()).unwrap_err().to_string().contains("line: 5"));
    }

    #[test]
    fn the_json_has_the_same_rows_with_nulls() {
        let mut bytes = Vec::new();
        write_json(&rows(), &mut bytes).unwrap();
        let read: Vec<serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((read[0]["method"].as_str(), read[0]["dice"].as_f64()), (Some("sam_points"), Some(1.0)));
        assert_eq!((read[2]["setting"].as_str(), read[2]["dice"].is_null()), (Some("10/0"), true));
        assert!(bytes.ends_with(b"]\n"));
    }
}
