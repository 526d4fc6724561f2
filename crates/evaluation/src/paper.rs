//! The paper's tables 1, 2 and 3 (Shaharabany and Wolf, MIDL 2024), to stand beside our own figures.

use request::{Method, Setting};

use crate::datasets::{Kind, ORGANS};

/// A table of scores in percent: for each setting (positive, negative) Dice and IoU of [`POINT_COLUMNS`].
type PointsTable = [((u32, u32), [(f64, f64); 5]); 10];

/// The columns of tables 2 and 3. Super-clustering knows no encoder; its one column is repeated for both.
const POINT_COLUMNS: [Method; 5] =
    [Method::SamPoints, Method::SamMask, Method::InitialMask, Method::Finetuned, Method::SuperClustering];

/// The rows of table 1 for one number of points.
const ORGAN_ROWS: [Method; 4] = [Method::SuperClustering, Method::SamPoints, Method::InitialMask, Method::Finetuned];

/// Table 2: MoNuSeg, ViT Base.
const MONUSEG_VIT_B: PointsTable = [
    ((1, 0), [(11.84, 6.68), (29.62, 17.52), (31.18, 19.56), (40.43, 27.81), (37.11, 23.32)]),
    ((1, 1), [(11.65, 6.88), (34.32, 21.08), (36.17, 22.84), (37.71, 24.98), (44.77, 31.67)]),
    ((2, 0), [(10.31, 5.82), (30.40, 18.05), (33.71, 20.72), (38.86, 25.32), (37.95, 23.65)]),
    ((3, 0), [(9.05, 5.10), (31.32, 18.79), (32.26, 19.71), (37.52, 24.13), (38.55, 24.11)]),
    ((2, 2), [(20.86, 12.52), (34.77, 21.32), (37.33, 23.68), (40.91, 28.07), (17.08, 12.24)]),
    ((4, 0), [(6.90, 3.87), (31.40, 18.85), (35.88, 22.16), (40.84, 26.30), (38.43, 24.17)]),
    ((5, 0), [(9.42, 5.37), (30.79, 18.36), (33.59, 20.35), (36.23, 22.40), (38.53, 24.10)]),
    ((3, 3), [(18.80, 11.31), (32.13, 19.45), (42.28, 28.10), (42.48, 28.65), (21.81, 15.81)]),
    ((4, 4), [(15.16, 9.14), (32.74, 19.86), (46.43, 30.67), (54.98, 39.49), (3.62, 2.42)]),
    ((5, 5), [(18.13, 10.82), (33.57, 20.50), (45.14, 29.43), (52.37, 36.34), (4.61, 3.41)]),
];

/// Table 2: MoNuSeg, ViT Large.
const MONUSEG_VIT_L: PointsTable = [
    ((1, 0), [(9.85, 5.43), (33.37, 20.20), (25.64, 15.54), (29.47, 18.80), (37.11, 23.32)]),
    ((1, 1), [(3.05, 1.82), (34.28, 20.90), (41.29, 26.44), (46.78, 31.68), (44.77, 31.67)]),
    ((2, 0), [(10.80, 6.05), (33.61, 20.38), (31.73, 19.57), (32.75, 20.92), (37.95, 23.65)]),
    ((3, 0), [(14.00, 7.88), (33.51, 20.30), (37.93, 23.87), (40.85, 26.68), (38.55, 24.11)]),
    ((2, 2), [(5.01, 2.89), (34.02, 20.68), (37.53, 23.83), (42.11, 28.26), (17.08, 12.24)]),
    ((4, 0), [(11.76, 6.60), (33.59, 20.37), (36.34, 22.43), (39.19, 24.76), (38.43, 24.17)]),
    ((5, 0), [(12.57, 6.98), (33.85, 20.56), (36.90, 22.95), (39.20, 24.88), (38.53, 24.10)]),
    ((3, 3), [(7.34, 4.46), (34.03, 20.70), (42.91, 27.88), (49.09, 33.82), (21.81, 15.81)]),
    ((4, 4), [(11.49, 6.97), (34.86, 21.33), (40.85, 26.22), (46.69, 31.69), (3.62, 2.42)]),
    ((5, 5), [(8.25, 4.92), (34.10, 20.76), (43.76, 28.44), (50.45, 34.80), (4.61, 3.41)]),
];

/// Table 3: GlaS, ViT Base.
const GLAS_VIT_B: PointsTable = [
    ((1, 0), [(45.31, 33.48), (52.11, 36.95), (44.00, 30.00), (56.81, 42.38), (65.53, 50.75)]),
    ((1, 1), [(26.76, 19.31), (54.52, 39.46), (63.38, 48.00), (65.45, 50.28), (31.79, 24.55)]),
    ((2, 0), [(42.42, 31.04), (58.83, 43.57), (61.65, 45.93), (65.79, 50.91), (65.28, 50.43)]),
    ((3, 0), [(44.24, 32.60), (59.31, 44.08), (61.87, 46.26), (65.10, 50.18), (64.72, 49.89)]),
    ((2, 2), [(29.92, 21.60), (57.95, 42.83), (63.33, 48.70), (64.71, 50.66), (16.15, 12.66)]),
    ((4, 0), [(43.56, 31.99), (60.33, 45.14), (64.13, 48.84), (66.05, 51.15), (65.14, 50.35)]),
    ((5, 0), [(42.75, 31.56), (60.23, 45.10), (64.32, 49.08), (65.96, 51.08), (64.15, 49.44)]),
    ((3, 3), [(27.29, 19.72), (59.31, 44.20), (65.22, 50.52), (66.10, 51.82), (9.24, 7.48)]),
    ((4, 4), [(26.99, 19.32), (59.29, 44.23), (69.43, 54.54), (70.36, 55.76), (4.01, 3.41)]),
    ((5, 5), [(23.27, 16.64), (58.90, 43.98), (68.02, 53.26), (69.32, 55.09), (2.71, 2.17)]),
];

/// Table 3: GlaS, ViT Large.
const GLAS_VIT_L: PointsTable = [
    ((1, 0), [(56.60, 42.60), (65.76, 50.90), (48.35, 33.82), (51.36, 36.71), (65.53, 50.75)]),
    ((1, 1), [(5.72, 3.84), (65.74, 50.91), (63.77, 48.81), (64.88, 50.21), (31.79, 24.55)]),
    ((2, 0), [(57.64, 43.37), (65.82, 50.95), (63.66, 48.19), (65.26, 50.19), (65.28, 50.43)]),
    ((3, 0), [(57.89, 43.53), (65.89, 51.06), (63.90, 48.66), (65.32, 50.43), (64.72, 49.89)]),
    ((2, 2), [(4.50, 2.84), (65.75, 50.89), (68.45, 53.91), (69.45, 55.16), (16.15, 12.66)]),
    ((4, 0), [(57.64, 43.39), (65.97, 51.14), (64.62, 49.55), (66.02, 51.30), (65.14, 50.35)]),
    ((5, 0), [(57.52, 43.28), (65.96, 51.43), (65.25, 50.05), (66.78, 51.94), (64.15, 49.44)]),
    ((3, 3), [(3.18, 2.03), (65.82, 50.97), (69.94, 55.26), (71.27, 56.98), (9.24, 7.48)]),
    ((4, 4), [(4.07, 2.55), (65.95, 51.11), (69.80, 55.05), (70.56, 56.12), (4.01, 3.41)]),
    ((5, 5), [(4.22, 2.69), (65.84, 50.98), (72.02, 57.71), (72.82, 58.84), (2.71, 2.17)]),
];

/// Table 1: AMOS22, ViT Base: for each number of positive points the Dice of [`ORGAN_ROWS`] for every one of [`ORGANS`].
const AMOS22_VIT_B: [(u32, [[f64; 14]; 4]); 3] = [
    (
        1,
        [
            [0.329, 0.454, 0.474, 0.311, 0.287, 0.272, 0.212, 0.422, 0.358, 0.220, 0.038, 0.023, 0.235, 0.245],
            [0.632, 0.759, 0.770, 0.616, 0.382, 0.577, 0.508, 0.720, 0.453, 0.317, 0.085, 0.196, 0.339, 0.542],
            [0.512, 0.629, 0.701, 0.576, 0.292, 0.467, 0.428, 0.680, 0.413, 0.281, 0.150, 0.260, 0.349, 0.532],
            [0.667, 0.781, 0.784, 0.686, 0.377, 0.533, 0.528, 0.767, 0.463, 0.309, 0.135, 0.182, 0.358, 0.611],
        ],
    ),
    (
        3,
        [
            [0.430, 0.488, 0.482, 0.377, 0.293, 0.363, 0.274, 0.455, 0.398, 0.248, 0.044, 0.039, 0.272, 0.298],
            [0.733, 0.784, 0.786, 0.683, 0.448, 0.658, 0.577, 0.758, 0.493, 0.343, 0.129, 0.240, 0.325, 0.631],
            [0.594, 0.663, 0.749, 0.655, 0.378, 0.535, 0.502, 0.727, 0.462, 0.328, 0.201, 0.272, 0.332, 0.603],
            [0.742, 0.804, 0.797, 0.713, 0.468, 0.638, 0.557, 0.798, 0.502, 0.352, 0.214, 0.254, 0.365, 0.692],
        ],
    ),
    (
        10,
        [
            [0.654, 0.652, 0.661, 0.596, 0.548, 0.615, 0.661, 0.638, 0.533, 0.445, 0.303, 0.411, 0.385, 0.594],
            [0.857, 0.855, 0.857, 0.800, 0.643, 0.811, 0.759, 0.842, 0.637, 0.538, 0.405, 0.516, 0.480, 0.789],
            [0.834, 0.802, 0.816, 0.778, 0.662, 0.795, 0.729, 0.811, 0.602, 0.518, 0.332, 0.502, 0.421, 0.744],
            [0.872, 0.862, 0.866, 0.811, 0.677, 0.835, 0.779, 0.837, 0.622, 0.551, 0.375, 0.532, 0.455, 0.792],
        ],
    ),
];

/// A figure of the paper, between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// Dice coefficient.
    pub dice: f64,
    /// Intersection over union; table 1 has none.
    pub iou: Option<f64>,
}

/// What the paper has for a cell of our table, if it has it. `architecture` is `vit_b` or `vit_l`; `group` is an organ's name (AMOS22).
pub fn figure(kind: Kind, architecture: &str, group: &str, setting: Setting, method: Method) -> Option<Figure> {
    let table = match (kind, architecture) {
        (Kind::MonuSeg, "vit_b") => &MONUSEG_VIT_B,
        (Kind::MonuSeg, "vit_l") => &MONUSEG_VIT_L,
        (Kind::Glas, "vit_b") => &GLAS_VIT_B,
        (Kind::Glas, "vit_l") => &GLAS_VIT_L,
        (Kind::Amos22, "vit_b") => return organ_figure(group, setting, method),
        _ => return None,
    };
    let column = POINT_COLUMNS.iter().position(|&column| column == method)?;
    let (_, row) = table.iter().find(|(points, _)| *points == (setting.positive(), setting.negative()))?;
    let (dice, iou) = row[column];
    Some(Figure { dice: dice / 100.0, iou: Some(iou / 100.0) })
}

fn organ_figure(organ: &str, setting: Setting, method: Method) -> Option<Figure> {
    let column = ORGANS.iter().position(|&name| name == organ)?;
    let row = ORGAN_ROWS.iter().position(|&row| row == method)?;
    let (_, rows) = AMOS22_VIT_B.iter().find(|(positive, _)| (*positive, 0) == (setting.positive(), setting.negative()))?;
    Some(Figure { dice: rows[row][column], iou: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dice_and_iou(kind: Kind, architecture: &str, setting: &str, method: Method) -> Option<(f64, Option<f64>)> {
        let figure = figure(kind, architecture, "liver", setting.parse().unwrap(), method)?;
        let percent = |value: f64| (value * 1e4).round() / 1e2;
        Some((percent(figure.dice), figure.iou.map(percent)))
    }

    #[test]
    fn has_the_papers_headlines() {
        use Method::{Finetuned, InitialMask, SamPoints, SuperClustering};
        for (kind, architecture, setting, method, dice, iou) in [
            (Kind::MonuSeg, "vit_b", "4/4", Finetuned, 54.98, Some(39.49)),
            (Kind::MonuSeg, "vit_b", "4/4", InitialMask, 46.43, Some(30.67)),
            (Kind::MonuSeg, "vit_b", "4/4", SamPoints, 15.16, Some(9.14)),
            (Kind::MonuSeg, "vit_l", "1/1", SuperClustering, 44.77, Some(31.67)),
            (Kind::Glas, "vit_l", "5/5", Finetuned, 72.82, Some(58.84)),
            (Kind::Glas, "vit_l", "5/5", InitialMask, 72.02, Some(57.71)),
            (Kind::Amos22, "vit_b", "10/0", Finetuned, 83.5, None),
            (Kind::Amos22, "vit_b", "10/0", InitialMask, 79.5, None),
        ] {
            assert_eq!(dice_and_iou(kind, architecture, setting, method), Some((dice, iou)), "{kind:?} {setting} {method}");
        }
    }

    #[test]
    fn says_nothing_where_the_paper_says_nothing() {
        assert_eq!(dice_and_iou(Kind::MonuSeg, "vit_h", "4/4", Method::Finetuned), None);
        assert_eq!(dice_and_iou(Kind::MonuSeg, "vit_b", "4/3", Method::Finetuned), None);
        assert_eq!(dice_and_iou(Kind::MonuSeg, "vit_b", "4/4", Method::Untuned), None);
        assert_eq!(dice_and_iou(Kind::Amos22, "vit_b", "10/1", Method::Finetuned), None);
        assert_eq!(dice_and_iou(Kind::Folder, "vit_b", "4/4", Method::Finetuned), None);
    }
}
