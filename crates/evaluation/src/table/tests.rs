use request::Method;

use super::*;
use crate::{Outcome, Scored, Scores};

fn scored(case: &str, group: &str, setting: &str, repeat: u32, method: Method, dice: f64) -> Row {
    let scores = Scores { dice, iou: dice / (2.0 - dice) };
    let outcome = Outcome::Scored(Scored {
        scores,
        published: None,
        iou_with_initial: 0.5,
        agreement: 1.0,
        confidence: dice * 0.9,
        best_step: 7,
        seconds: 1.0,
    });
    Row { case: case.into(), group: group.into(), setting: setting.parse().unwrap(), repeat, method, outcome }
}

fn skipped(case: &str, group: &str, setting: &str, method: Method) -> Row {
    let outcome = Outcome::Skipped("3 foreground tokens, 5 points wanted".into());
    Row { case: case.into(), group: group.into(), setting: setting.parse().unwrap(), repeat: 0, method, outcome }
}

#[test]
fn monuseg_is_laid_out_as_table_2_with_the_papers_figures_in_brackets() {
    use Method::{Finetuned, InitialMask};
    let mut rows = Vec::new();
    // Repeats are averaged first: case a counts as 0.6, b as 0.2, although a has two rows.
    for (case, repeat, dice) in [("a", 0, 0.5), ("a", 1, 0.7), ("b", 0, 0.2)] {
        rows.push(scored(case, "MoNuSeg", "4/4", repeat, Finetuned, dice));
        rows.push(scored(case, "MoNuSeg", "4/4", repeat, InitialMask, dice - 0.1));
    }
    rows.push(scored("a", "MoNuSeg", "1/0", 0, InitialMask, 1.0));
    rows.push(skipped("b", "MoNuSeg", "5/5", Finetuned));
    rows.push(skipped("b", "MoNuSeg", "5/5", InitialMask));
    assert_eq!(
        table_markdown(&rows, Kind::MonuSeg, "vit_b"),
        "\
# Evaluation: monuseg, vit_b

Dice/IoU in percent, mean over cases (repeats averaged first); in brackets the paper's figures (table 2).

## MoNuSeg

| pos/neg | J | Ours | cases |
|---|---|---|---|
| 1/0 | 100.00/100.00 [31.18/19.56] | - [40.43/27.81] | 1 |
| 4/4 | 30.00/19.60 [46.43/30.67] | 40.00/27.35 [54.98/39.49] | 2 |
| 5/5 | - [45.14/29.43] | - [52.37/36.34] | 0 |

Ours less the other, Dice in percent, paired by case: mean ± standard error (cases on which ours is better)

| pos/neg | J |
|---|---|
| 1/0 | - |
| 4/4 | +10.00 ± 0.00 (2 of 2) |
| 5/5 | - |

## What was evaluated

- Cases: 2; repeats: 2; draws of points: 5.
- Skipped draws: 1.
  - 1 x 3 foreground tokens, 5 points wanted
- Rank correlation (Spearman) of our confidence with the IoU against the truth, over 3 answers: 1.000.
"
    );
}

#[test]
fn a_draw_that_only_one_method_has_a_score_for_is_no_pair() {
    let rows = [
        scored("a", "g", "1/0", 0, Method::Finetuned, 0.6),
        scored("a", "g", "1/0", 0, Method::InitialMask, 0.5),
        scored("a", "g", "1/0", 1, Method::InitialMask, 0.1),
    ];
    let page = table_markdown(&rows, Kind::Folder, "nano");
    assert!(page.contains("| 1/0 | +10.00 ± - (1 of 1) |"), "{page}");
}

#[test]
fn amos22_is_laid_out_by_organ_in_the_papers_order() {
    let rows = [
        scored("v1", "liver", "10/0", 0, Method::Finetuned, 0.9),
        scored("v2", "liver", "10/0", 0, Method::Finetuned, 0.8),
        scored("v1", "liver", "10/0", 0, Method::Untuned, 0.6),
        scored("v2", "liver", "10/0", 0, Method::Untuned, 0.7),
        scored("s1", "spleen", "10/0", 0, Method::Finetuned, 0.5),
        skipped("p1", "postcava", "10/0", Method::Finetuned),
    ];
    let page = table_markdown(&rows, Kind::Amos22, "vit_b");
    let expected = "
## 10/0 points

| organ | Untuned | Ours | cases |
|---|---|---|---|
| spleen | - | 0.500 [0.872] | 1 |
| liver | 0.650 | 0.850 [0.835] | 2 |
| postcava | - | - [0.622] | 0 |
| mean of the organs | 0.650 | 0.675 [0.853] | 3 |

Ours less the other, Dice, paired by case: mean ± standard error (cases on which ours is better)

| pos/neg | Untuned |
|---|---|
| 10/0 | +0.200 ± 0.100 (2 of 2) |
";
    assert!(page.contains(expected), "{page}");
    assert!(!table_markdown(&rows, Kind::Amos22, "vit_l").contains('['));
}

#[test]
fn a_folder_has_a_table_for_each_group_and_one_for_all() {
    let rows = [
        scored("a", "cells", "1/1", 0, Method::Finetuned, 0.5),
        scored("b", "polyps", "1/1", 0, Method::Finetuned, 1.0),
        scored("b", "polyps", "2/0", 0, Method::Finetuned, 1.0),
    ];
    let page = table_markdown(&rows, Kind::Folder, "nano");
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("## ") || line.starts_with("| 1/1")).collect();
    assert_eq!(
        lines,
        [
            "## cells",
            "| 1/1 | 50.00/33.33 | 1 |",
            "## polyps",
            "| 1/1 | 100.00/100.00 | 1 |",
            "## all",
            "| 1/1 | 75.00/66.67 | 2 |",
            "## What was evaluated"
        ]
    );
    assert!(!page.contains("NaN") && !page.contains("less the other"), "{page}");
}

#[test]
fn the_published_count_stands_beside_the_honest_one() {
    let mut row = scored("a", "MoNuSeg", "4/4", 0, Method::Finetuned, 0.5);
    if let Outcome::Scored(scored) = &mut row.outcome {
        scored.published = Some(Scores { dice: 0.75, iou: 0.6 });
    }
    let page = table_markdown(&[row], Kind::MonuSeg, "vit_h");
    assert!(page.contains("| pos/neg | Ours | Ours, as the published code counts | cases |"), "{page}");
    assert!(page.contains("| 4/4 | 50.00/33.33 | 75.00/60.00 | 1 |"), "{page}");
}

#[test]
fn settings_are_in_the_order_of_the_papers_tables() {
    let paper = ["1/0", "1/1", "2/0", "3/0", "2/2", "4/0", "5/0", "3/3", "4/4", "5/5"];
    let rows: Vec<Row> = paper.iter().rev().map(|setting| skipped("a", "g", setting, Method::Finetuned)).collect();
    let ordered: Vec<String> = settings(rows.iter()).iter().map(Setting::to_string).collect();
    assert_eq!(ordered, paper);
}

#[test]
fn no_rows_make_a_page_without_tables() {
    let page = table_markdown(&[], Kind::Glas, "vit_b");
    assert!(page.contains("Cases: 0; repeats: 0") && page.ends_with("over 0 answers: -.\n") && !page.contains('|'), "{page}");
}
