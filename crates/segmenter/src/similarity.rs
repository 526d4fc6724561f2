//! Stage one: the initial mask J from the similarity of the image's tokens with the points' (the paper, section 3).

use request::{Choices, Label, Point, Points, Region, Similarity};
use tch::{Device, Kind, TchError, Tensor, no_grad};

use crate::{
    SegmentError,
    grid::{HALF, Part},
    region::{Tokens, near_points},
    sam::Extent,
};

/// Cosine similarities of fp32 features carry errors of about 1e-7: a map that varies less than this varies by accident.
const CONSTANT: f64 = 1e-6;

/// The initial mask, 0 or 1.
pub struct InitialMask {
    /// Token by token. [1, 1, T, T]
    pub tokens: Tensor,
    /// J: four pixels a token's side, bilinear with aligned corners and a threshold at a half, as in the published code. [1, 1, 4T, 4T]
    pub pixels: Tensor,
}

impl InitialMask {
    fn of(tokens: Tensor) -> Result<Self, TchError> {
        let (_, _, t, _) = tokens.size4()?;
        let pixels = tokens.f_upsample_bilinear2d([4 * t, 4 * t], true, None, None)?;
        Ok(Self { pixels: pixels.f_gt(HALF)?.f_to_kind(Kind::Float)?, tokens })
    }

    /// Nothing, on a grid of so many tokens a side.
    pub fn empty(grid: i64, device: Device) -> Result<Self, TchError> {
        Self::of(Tensor::f_zeros([1, 1, grid, grid], (Kind::Float, device))?)
    }

    /// As a mask prompt: every token's value on its four by four pixels. [1, 1, 4T, 4T]
    pub fn prompt(&self) -> Result<Tensor, TchError> {
        let (_, _, t, _) = self.tokens.size4()?;
        self.tokens.f_upsample_nearest2d([4 * t, 4 * t], None, None)
    }
}

/// The initial mask of points. Embedding [1, C, T, T]
///
/// With positive points alone the mean of their similarities, min-max normalised, is foreground above a half. With negative
/// points too, foreground is what resembles the positive points more, and a tie, up to rounding, is background: more in the mean, or, with
/// [`Similarity::Sum`], in the paper's sum, which is the same for equal counts, and else a vote on counts as well.
pub fn initial_mask(
    embedding: &Tensor,
    points: &Points,
    extent: &Extent,
    choices: &Choices,
) -> Result<InitialMask, SegmentError> {
    no_grad(|| {
        let (_, c, t, _) = embedding.size4()?;
        let features = embedding.f_view([c, t * t])?.f_transpose(0, 1)?; // [T * T, C]
        let lengths = features.f_square()?.f_sum_dim_intlist(1, true, None::<Kind>)?.f_sqrt()?; // [T * T, 1]
        let features = features.f_div(&lengths.f_clamp_min(1e-12)?)?;
        let part = Part::that_counts(extent, t, choices.padding);

        let positives = tokens(points, Label::Positive, extent, t);
        let negatives = tokens(points, Label::Negative, extent, t);
        let foreground = match choices.region {
            Region::Everywhere => everywhere(&features, &positives, &negatives, part, choices)?,
            Region::NearPoints => about_the_points(&features, &positives, &negatives, part)?,
        };
        Ok(InitialMask::of(foreground.f_to_kind(Kind::Float)?.f_view([1, 1, t, t])?)?)
    })
}

/// Every token that resembles the positive points enough, or more than the negative ones. Features [T * T, C] -> [T, T]
fn everywhere(
    features: &Tensor,
    positives: &[usize],
    negatives: &[usize],
    part: Part,
    choices: &Choices,
) -> Result<Tensor, SegmentError> {
    let positive = similarity(features, positives)?; // [T, T]
    if negatives.is_empty() {
        return above_half(&positive, part);
    }
    let negative = similarity(features, negatives)?; // [T, T]
    if is_constant(&positive, part)? && is_constant(&negative, part)? {
        return Err(SegmentError::ConstantSimilarity);
    }
    // A sum is a mean times its count; divided by the larger count, rounding errors stay those of means.
    let (positive_weight, negative_weight) = match choices.similarity {
        Similarity::Mean => (1.0, 1.0),
        Similarity::Sum => {
            let larger = positives.len().max(negatives.len()) as f64;
            (positives.len() as f64 / larger, negatives.len() as f64 / larger)
        }
    };
    Ok(positive.f_mul_scalar(positive_weight)?.f_sub(&negative.f_mul_scalar(negative_weight)?)?.f_gt(CONSTANT)?)
}

/// The one object the positive points are on. Features [T * T, C] -> [T, T]
fn about_the_points(features: &Tensor, positives: &[usize], negatives: &[usize], part: Part) -> Result<Tensor, SegmentError> {
    let positive = similarity(features, positives)?; // [T, T]
    if is_constant(&positive, part)? {
        return Err(SegmentError::ConstantSimilarity);
    }
    let side = positive.size()[0];
    let found = near_points(&Tokens {
        side: side as usize,
        similarity: &Vec::try_from(positive.f_view([-1])?)?,
        positive: positives,
        negative: negatives,
        among_positive: &among(features, positives)?,
        part,
    });
    Ok(Tensor::f_from_slice(&found)?.f_view([side, side])?.f_to_device(features.device())?)
}

/// The mean cosine similarity of each of these tokens with the others; 1 where there is no other.
fn among(features: &Tensor, tokens: &[usize]) -> Result<Vec<f32>, TchError> {
    if tokens.len() < 2 {
        return Ok(vec![1.0; tokens.len()]);
    }
    let prototypes = prototypes(features, tokens)?; // [n, C]
    let similarities = prototypes.f_matmul(&prototypes.f_transpose(0, 1)?)?; // [n, n], 1 on the diagonal
    let others = similarities.f_sum_dim_intlist(1, false, None::<Kind>)?.f_sub_scalar(1.0)?;
    Vec::try_from(others.f_div_scalar((tokens.len() - 1) as f64)?)
}

/// The mean cosine similarity of every token with the tokens under the points of one label. Features [T * T, C] -> [T, T]
fn similarity(features: &Tensor, tokens: &[usize]) -> Result<Tensor, TchError> {
    let grid = features.size()[0].isqrt();
    let similarities = prototypes(features, tokens)?.f_matmul(&features.f_transpose(0, 1)?)?; // [n, T * T]
    similarities.f_mean_dim(0, false, None::<Kind>)?.f_view([grid, grid])
}

/// The features of some tokens. [T * T, C] -> [n, C]
fn prototypes(features: &Tensor, tokens: &[usize]) -> Result<Tensor, TchError> {
    let tokens: Vec<i64> = tokens.iter().map(|&token| token as i64).collect();
    features.f_index_select(0, &Tensor::f_from_slice(&tokens)?.f_to_device(features.device())?)
}

/// The tokens under the points of one label, one a point.
fn tokens(points: &Points, label: Label, extent: &Extent, grid: i64) -> Vec<usize> {
    points.of(label).map(|point| token(point, extent, grid)).collect()
}

/// The token under a point, row by row from the top left.
fn token(point: &Point, extent: &Extent, grid: i64) -> usize {
    let patch = (extent.image_size / grid) as f64;
    // Rounding may put a point on the last pixel's far edge one token too far.
    let index = |pixels: f64| ((pixels * extent.scale() / patch) as usize).min(grid as usize - 1);
    index(point.y) * grid as usize + index(point.x)
}

fn above_half(map: &Tensor, part: Part) -> Result<Tensor, SegmentError> {
    if is_constant(map, part)? {
        return Err(SegmentError::ConstantSimilarity);
    }
    let own = part.of(map)?;
    let (min, max) = (own.f_min()?, own.f_max()?);
    Ok(map.f_sub(&min)?.f_div(&max.f_sub(&min)?)?.f_gt(HALF)?)
}

/// Whether the part of a map that counts varies by accident only, or is not a number somewhere.
fn is_constant(map: &Tensor, part: Part) -> Result<bool, TchError> {
    let own = part.of(map)?;
    let width = own.f_max()?.f_sub(&own.f_min()?)?.f_double_value(&[])?;
    Ok(width.is_nan() || width <= CONSTANT)
}

#[cfg(test)]
mod tests {
    use request::{Padding, Recipe};

    use super::*;

    /// A 4 x 4 grid of two-channel features, given by each token's angle in degrees.
    fn embedding(angles: [f64; 16]) -> Tensor {
        let (x, y): (Vec<f32>, Vec<f32>) =
            angles.map(|degrees| (degrees.to_radians().cos() as f32, degrees.to_radians().sin() as f32)).into_iter().unzip();
        Tensor::stack(&[Tensor::from_slice(&x), Tensor::from_slice(&y)], 0).view([1, 2, 4, 4])
    }

    fn mask(angles: [f64; 16], points: &str) -> Result<Vec<i64>, SegmentError> {
        mask_of(angles, points, &Extent::new(8, 8, 64), &paper())
    }

    fn paper() -> Choices {
        Choices::of(Recipe::Paper)
    }

    fn mask_of(angles: [f64; 16], points: &str, extent: &Extent, choices: &Choices) -> Result<Vec<i64>, SegmentError> {
        let mask = initial_mask(&embedding(angles), &points.parse().unwrap(), extent, choices)?.pixels;
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
    fn in_sums_they_do_and_equal_counts_are_the_same_as_in_means() {
        let sum = Choices { similarity: Similarity::Sum, ..paper() };
        let extent = Extent::new(8, 8, 64);
        assert_eq!(mask_of(LEFT, "0,0,1;7.9,7.9,0", &extent, &sum).unwrap(), [1, 1, 0, 0].repeat(4));
        // At 60 degrees, cos 60 = 0.5 is less than cos 30 = 0.87, and three times as much is more.
        let mut angles = LEFT;
        angles[3] = 60.0;
        let points = "0,0,1;0,4,1;0,6,1;7.9,7.9,0";
        assert_eq!(mask_of(angles, points, &extent, &paper()).unwrap()[3], 0);
        assert_eq!(mask_of(angles, points, &extent, &sum).unwrap()[3], 1);
    }

    #[test]
    fn padding_that_is_left_out_has_no_say() {
        // The image is the upper half. Its own tokens lie between 0 and 40 degrees, those below it at 90.
        let angles: [f64; 16] = std::array::from_fn(|token| if token < 8 { [0.0, 0.0, 40.0, 40.0][token % 4] } else { 90.0 });
        let extent = Extent::new(8, 4, 64);
        let excluded = Choices { padding: Padding::Excluded, ..paper() };
        assert_eq!(mask_of(angles, "0,0,1", &extent, &paper()).unwrap()[..8], [1; 8], "all of it is nearer to 0 than to 90");
        assert_eq!(mask_of(angles, "0,0,1", &extent, &excluded).unwrap()[..8], [1, 1, 0, 0].repeat(2));
        let blank: [f64; 16] = std::array::from_fn(|token| if token < 8 { 10.0 } else { 90.0 });
        assert!(mask_of(blank, "0,0,1", &extent, &paper()).is_ok());
        let refused = mask_of(blank, "0,0,1", &extent, &excluded);
        assert!(matches!(refused, Err(SegmentError::ConstantSimilarity)));
    }

    #[test]
    fn near_the_points_a_look_alike_elsewhere_is_left_out() {
        // 16 x 16 tokens, two like blocks of 6 x 6 at opposite corners, the point in the middle of the first.
        let side = 16;
        let in_block = |token: i64| (token % side < 6 && token / side < 6) || (token % side >= 10 && token / side >= 10);
        let (x, y): (Vec<f32>, Vec<f32>) =
            (0..side * side).map(|token| if in_block(token) { (1.0, 0.0) } else { (0.0, 1.0) }).unzip();
        let embedding = Tensor::from_slice(&[x, y].concat()).view([1, 2, side, side]);
        let taken = |choices: &Choices| {
            let points = "11,11,1;13,11,1;11,13,1;13,13,1;63,0,0".parse().unwrap();
            let mask = initial_mask(&embedding, &points, &Extent::new(64, 64, 64), choices).unwrap().pixels;
            let pixel = |x, y| mask.double_value(&[0, 0, y, x]) > 0.0;
            (pixel(12, 12), pixel(52, 52), pixel(60, 4))
        };
        assert_eq!(taken(&paper()), (true, true, false));
        assert_eq!(taken(&Choices { region: Region::NearPoints, ..paper() }), (true, false, false));
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
