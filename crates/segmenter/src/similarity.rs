//! Stage one: the initial mask J from the similarity of the image's tokens with the points' (the paper, section 3).

use request::{Label, Point, Points};
use tch::{Kind, TchError, Tensor, no_grad};

use crate::{SegmentError, recipe::Choices, sam::Extent};

/// Cosine similarities of fp32 features carry errors of about 1e-7: a map that varies less than this varies by accident.
const CONSTANT: f64 = 1e-6;

/// The initial mask, 0 or 1, four pixels a token's side. Embedding [1, C, T, T] -> [1, 1, 4T, 4T]
///
/// With positive points alone the mean of their similarities, min-max normalised, is foreground above the threshold. With negative
/// points too, foreground is what resembles the positive points more, in the mean, and a tie, up to rounding, is background. The means
/// stand for the paper's sums, which are the same for equal counts, and let three points against one be more than a vote on counts.
pub fn initial_mask(embedding: &Tensor, points: &Points, extent: &Extent, choices: &Choices) -> Result<Tensor, SegmentError> {
    no_grad(|| {
        let (_, c, t, _) = embedding.size4()?;
        let features = embedding.f_view([c, t * t])?.f_transpose(0, 1)?; // [T * T, C]
        let lengths = features.f_square()?.f_sum_dim_intlist(1, true, None::<Kind>)?.f_sqrt()?; // [T * T, 1]
        let features = features.f_div(&lengths.f_clamp_min(1e-12)?)?;

        let positive = similarity(&features, points, Label::Positive, extent, t)?; // [T * T]
        let foreground = if points.of(Label::Negative).next().is_none() {
            above_threshold(&positive, choices)?
        } else {
            let negative = similarity(&features, points, Label::Negative, extent, t)?; // [T * T]
            if is_constant(&positive)? && is_constant(&negative)? {
                return Err(SegmentError::ConstantSimilarity);
            }
            positive.f_sub(&negative)?.f_gt(CONSTANT)?
        };
        let tokens = foreground.f_to_kind(Kind::Float)?.f_view([1, 1, t, t])?; // [1, 1, T, T]
        let pixels = tokens.f_upsample_bilinear2d([4 * t, 4 * t], true, None, None)?; // [1, 1, 4T, 4T]
        Ok(pixels.f_gt(choices.threshold)?.f_to_kind(Kind::Float)?)
    })
}

/// The mean cosine similarity of every token with the tokens under the points of one label. [T * T]
fn similarity(features: &Tensor, points: &Points, label: Label, extent: &Extent, grid: i64) -> Result<Tensor, TchError> {
    let tokens: Vec<i64> = points.of(label).map(|point| token(point, extent, grid)).collect();
    let tokens = Tensor::f_from_slice(&tokens)?.f_to_device(features.device())?;
    let prototypes = features.f_index_select(0, &tokens)?; // [n, C]
    let similarities = prototypes.f_matmul(&features.f_transpose(0, 1)?)?; // [n, T * T]
    similarities.f_mean_dim(0, false, None::<Kind>)
}

/// The token under a point, row by row from the top left.
fn token(point: &Point, extent: &Extent, grid: i64) -> i64 {
    let patch = (extent.image_size / grid) as f64;
    // Rounding may put a point on the last pixel's far edge one token too far.
    let index = |pixels: f64| ((pixels * extent.scale() / patch) as i64).min(grid - 1);
    index(point.y) * grid + index(point.x)
}

fn above_threshold(map: &Tensor, choices: &Choices) -> Result<Tensor, SegmentError> {
    if is_constant(map)? {
        return Err(SegmentError::ConstantSimilarity);
    }
    let (min, max) = (map.f_min()?, map.f_max()?);
    Ok(map.f_sub(&min)?.f_div(&max.f_sub(&min)?)?.f_gt(choices.threshold)?)
}

/// Whether a map varies by accident only, or is not a number somewhere.
fn is_constant(map: &Tensor) -> Result<bool, TchError> {
    let width = map.f_max()?.f_sub(&map.f_min()?)?.f_double_value(&[])?;
    Ok(width.is_nan() || width <= CONSTANT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use request::Recipe;

    /// A 4 x 4 grid of two-channel features, given by each token's angle in degrees.
    fn embedding(angles: [f64; 16]) -> Tensor {
        let (x, y): (Vec<f32>, Vec<f32>) =
            angles.map(|degrees| (degrees.to_radians().cos() as f32, degrees.to_radians().sin() as f32)).into_iter().unzip();
        Tensor::stack(&[Tensor::from_slice(&x), Tensor::from_slice(&y)], 0).view([1, 2, 4, 4])
    }

    fn mask(angles: [f64; 16], points: &str) -> Result<Vec<i64>, SegmentError> {
        let extent = Extent::new(8, 8, 64);
        let mask = initial_mask(&embedding(angles), &points.parse().unwrap(), &extent, &Choices::of(Recipe::Paper))?;
        assert_eq!(mask.size(), [1, 1, 16, 16]);
        // With corners aligned, pixels 0, 5, 10 and 15 are the tokens' own.
        let at_tokens = Tensor::from_slice(&[0_i64, 5, 10, 15]);
        let values = mask.index_select(2, &at_tokens).index_select(3, &at_tokens).view([16]);
        Ok(Vec::<f64>::try_from(values).unwrap().into_iter().map(|value| value as i64).collect())
    }

    const LEFT: [f64; 16] = [0.0, 10.0, 80.0, 90.0, 5.0, 5.0, 90.0, 90.0, 0.0, 0.0, 90.0, 90.0, 0.0, 0.0, 90.0, 90.0];

    #[test]
    fn takes_what_resembles_the_positive_points() {
        let left = [1, 1, 0, 0].repeat(4);
        assert_eq!(mask(LEFT, "0,0,1").unwrap(), left);
        assert_eq!(mask(LEFT, "0,0,1;7.9,7.9,0").unwrap(), left);
        let right: Vec<i64> = left.iter().map(|value| 1 - value).collect();
        assert_eq!(mask(LEFT, "7.9,7.9,1;0,7.9,0").unwrap(), right);
    }

    #[test]
    fn more_points_of_one_label_do_not_outvote_the_other() {
        let left = [1, 1, 0, 0].repeat(4);
        assert_eq!(mask(LEFT, "0,0,1;0,2,1;0,4,1;7.9,7.9,0").unwrap(), left);
    }

    #[test]
    fn a_point_labelled_both_ways_is_background() {
        assert_eq!(mask(LEFT, "0,0,1;0,0,0").unwrap(), vec![0; 16]);
    }

    #[test]
    fn a_margin_within_the_error_of_rounding_is_a_tie() {
        // Each token resembles either point as much as the other, but for an angle far below what the features resolve.
        let mut angles = [45.0; 16];
        (angles[0], angles[15]) = (0.0, 90.0);
        angles[5] = 45.0 - 1e-5;
        let mask = mask(angles, "0,0,1;7.9,7.9,0").unwrap();
        assert_eq!(mask.iter().position(|&value| value == 1), Some(0));
        assert_eq!(mask.iter().sum::<i64>(), 1);
    }

    #[test]
    fn refuses_a_map_that_is_the_same_everywhere() {
        assert!(matches!(mask([30.0; 16], "0,0,1"), Err(SegmentError::ConstantSimilarity)));
        assert!(matches!(mask([30.0; 16], "0,0,1;7.9,7.9,0"), Err(SegmentError::ConstantSimilarity)));
        assert!(matches!(mask([f64::NAN; 16], "0,0,1"), Err(SegmentError::ConstantSimilarity)));
        assert!(matches!(mask([f64::NAN; 16], "0,0,1;1,1,0"), Err(SegmentError::ConstantSimilarity)));
    }

    #[test]
    fn finds_the_token_under_a_point_of_a_scaled_image() {
        // 100 x 50 pixels become 64 x 32; tokens have 16 pixels, 25 of the original.
        let extent = Extent::new(100, 50, 64);
        let token_at = |x, y| token(&Point { x, y, label: Label::Positive }, &extent, 4);
        assert_eq!([token_at(0.0, 0.0), token_at(24.9, 0.0), token_at(25.0, 0.0), token_at(99.999, 49.999)], [0, 0, 1, 7]);
        assert_eq!(token_at(f64::from_bits(100.0_f64.to_bits() - 1), 0.0), 3);
    }
}
