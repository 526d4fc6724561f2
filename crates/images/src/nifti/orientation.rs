//! How the voxels of a slice lie in the picture: as radiologists look at it, anterior up and the patient's right on the left.

use super::{FORMAT, header::Axes};
use crate::ImageError;

const PERMUTATIONS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Which voxel axis runs where.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// The axis along which slices are counted.
    pub slice_axis: usize,
    /// Width and height, in pixels.
    pub picture: [u32; 2],
    /// Whether the picture's rows run along the later of the two axes that are left.
    is_transposed: bool,
    /// Whether the picture's first column, and its first row, is the last along its axis.
    flips: [bool; 2],
}

impl Layout {
    /// Each voxel axis is taken for the patient's axis that it is nearest to, all three together. A flat image is its own slice.
    pub fn of(sizes: [u32; 3], axes: &Axes) -> Result<Self, ImageError> {
        let lengths = axes.map(|axis| axis.iter().map(|part| part * part).sum::<f64>().sqrt());
        if lengths.iter().any(|length| !length.is_normal()) {
            return Err(ImageError::Damaged {
                format: FORMAT,
                reason: "its affine says of an axis that it points nowhere".into(),
            });
        }
        // The patient's axis for each voxel axis: 0 is to the right, 1 anterior, 2 superior.
        let nearness = |patient: &[usize; 3]| (0..3).map(|axis| axes[axis][patient[axis]].abs() / lengths[axis]).sum::<f64>();
        let patient =
            PERMUTATIONS.into_iter().max_by(|a, b| nearness(a).total_cmp(&nearness(b)).then(b.cmp(a))).expect("there are six");
        let slice_axis =
            if sizes[2] == 1 { 2 } else { patient.iter().position(|&axis| axis == 2).expect("a permutation has all three") };
        let [first, second] = [[1, 2], [0, 2], [0, 1]][slice_axis];
        // Of a slice that is not axial, up is superior, and left is the patient's right or anterior.
        let is_transposed = patient[first] > patient[second];
        let [across, down] = if is_transposed { [second, first] } else { [first, second] };
        Ok(Self {
            slice_axis,
            picture: [sizes[across], sizes[down]],
            is_transposed,
            flips: [across, down].map(|axis| axes[axis][patient[axis]] > 0.0),
        })
    }

    /// A slice in the file's order to rows of the picture.
    pub fn turn(&self, values: &[f64]) -> Vec<f64> {
        let [width, height] = self.picture.map(|size| size as usize);
        let [flips_columns, flips_rows] = self.flips;
        let mut turned = Vec::with_capacity(values.len());
        for row in 0..height {
            let down = if flips_rows { height - 1 - row } else { row };
            turned.extend((0..width).map(|column| {
                let across = if flips_columns { width - 1 - column } else { column };
                values[if self.is_transposed { across * height + down } else { down * width + across }]
            }));
        }
        turned
    }
}
