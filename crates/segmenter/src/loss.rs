//! What the fine-tuning minimises, and what it is judged by (the paper, section 3).

use request::{Choices, Extremes};
use tch::{Kind, Reduction, TchError, Tensor, no_grad};

use crate::grid::{HALF, Part};

/// A map, min-max normalised.
pub struct Normalised {
    /// In [0, 1] within the part that counts; gradients flow through the minimum and the maximum.
    pub values: Tensor,
    /// The maximum less the minimum: for a map that is constant or not finite there is nothing to say where it is not positive or not finite.
    pub range: Tensor,
}

impl Normalised {
    /// To [0, 1] by the minimum and maximum of the part that counts.
    pub fn of(map: &Tensor, part: Part) -> Result<Self, TchError> {
        let own = part.of(map)?;
        let min = own.f_min()?;
        let range = own.f_max()?.f_sub(&min)?;
        Ok(Self { values: map.f_sub(&min)?.f_div(&range)?, range })
    }

    /// Whether a map of this range has a prediction.
    pub fn is_sound(range: f64) -> bool {
        range > 0.0 && range.is_finite()
    }
}

/// The same at once. `None` for a map that is constant or not finite in the part that counts.
pub fn min_max(map: &Tensor, part: Part) -> Result<Option<Tensor>, TchError> {
    let Normalised { values, range } = Normalised::of(map, part)?;
    Ok(Normalised::is_sound(range.f_double_value(&[])?).then_some(values))
}

/// Mean binary cross-entropy plus soft Dice, of a prediction and a target in [0, 1].
///
/// At the prediction's minimum and maximum, which are 0 and 1 whatever the parameters, the cross-entropy is a constant. Through
/// autograd it is terms of 1e7 and more that cancel in real numbers and not in fp32: with [`Extremes::Constant`] it is taken as one.
///
/// The Dice is the paper's, whose 2 * both + only here + only there is the sum of both maps.
pub fn loss(prediction: &Tensor, target: &Tensor, choices: &Choices) -> Result<Tensor, TchError> {
    let moving = match choices.extremes {
        Extremes::Constant => without_extremes(prediction)?,
        Extremes::Autograd => prediction.shallow_clone(),
    };
    // A map without a prediction has NaN here. libtorch's cross-entropy would stop the program on it, and with it a GPU.
    let cross_entropy = moving.f_nan_to_num(0.0, 1.0, 0.0)?.f_binary_cross_entropy::<Tensor>(target, None, Reduction::Mean)?;

    let sum = |map: &Tensor| map.f_sum(None::<Kind>);
    let intersection = sum(&prediction.f_mul(target)?)?.f_mul_scalar(2.0)?.f_add_scalar(choices.dice_smoothing)?;
    let total = sum(prediction)?.f_add(&sum(target)?)?.f_add_scalar(choices.dice_smoothing)?;
    let dice = intersection.f_div(&total)?;
    cross_entropy.f_sub(&dice)?.f_add_scalar(1.0)
}

/// The same numbers, without a gradient where they are exactly 0 or 1.
fn without_extremes(prediction: &Tensor) -> Result<Tensor, TchError> {
    let extreme = prediction.f_eq(0.0)?.f_logical_or(&prediction.f_eq(1.0)?)?;
    prediction.f_detach()?.f_where_self(&extreme, prediction)
}

/// Intersection over union of a map above its threshold with a target of 0 and 1; a ratio of two counts, so 1 means equal.
pub fn iou(map: &Tensor, threshold: f64, target: &Tensor) -> Result<f64, TchError> {
    let [intersection, union] = overlap(map, threshold, target)?.map(|count| count.f_double_value(&[]));
    Ok(ratio(intersection?, union?))
}

/// How many cells are foreground in both, and in either, as tensors on their device.
pub fn overlap(map: &Tensor, threshold: f64, target: &Tensor) -> Result<[Tensor; 2], TchError> {
    no_grad(|| {
        let (prediction, target) = (map.f_gt(threshold)?, target.f_gt(HALF)?);
        let count = |map: Tensor| map.f_sum(Kind::Int64);
        Ok([count(prediction.f_logical_and(&target)?)?, count(prediction.f_logical_or(&target)?)?])
    })
}

/// The IoU of such counts.
pub fn ratio(intersection: f64, union: f64) -> f64 {
    if union == 0.0 { 1.0 } else { intersection / union }
}

#[cfg(test)]
mod tests {
    use request::Recipe;
    use tch::Device;

    use super::*;

    fn paper() -> Choices {
        Choices::of(Recipe::Paper)
    }

    fn whole(map: &Tensor) -> Part {
        let (_, _, height, width) = map.size4().unwrap();
        Part { height, width }
    }

    /// Loss and gradient of a map of logits, in the given precision.
    fn loss_and_gradient(logits: &Tensor, target: &Tensor, kind: Kind, choices: &Choices) -> (f64, Tensor) {
        let logits = logits.to_kind(kind).set_requires_grad(true);
        let loss = loss(&min_max(&logits, whole(&logits)).unwrap().unwrap(), &target.to_kind(kind), choices).unwrap();
        let gradient = Tensor::run_backward(&[&loss], &[&logits], false, false).remove(0);
        (loss.double_value(&[]), gradient.to_kind(Kind::Double))
    }

    /// The derivative by central differences in f64, of the formula as the paper writes it: no autograd, nothing held constant.
    /// The extremes' own cross-entropy is left out, as it is the same for all logits.
    fn gradient_by_differences(logits: &[f64], target: &[f64]) -> Vec<f64> {
        let loss = |logits: &[f64]| {
            let min = logits.iter().copied().fold(f64::INFINITY, f64::min);
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let (mut entropy, mut intersection, mut total) = (0.0, 0.0, 0.0);
            for (logit, t) in logits.iter().zip(target) {
                let p = (logit - min) / (max - min);
                if p > 0.0 && p < 1.0 {
                    entropy -= t * p.ln() + (1.0 - t) * (1.0 - p).ln();
                }
                intersection += p * t;
                total += p + t;
            }
            entropy / logits.len() as f64 + 1.0 - (2.0 * intersection + 1.0) / (total + 1.0)
        };
        let step = 1e-5;
        let moved = |i: usize, by: f64| {
            loss(&logits.iter().enumerate().map(|(j, &x)| if i == j { x + by } else { x }).collect::<Vec<_>>())
        };
        (0..logits.len()).map(|i| (moved(i, step) - moved(i, -step)) / (2.0 * step)).collect()
    }

    fn random_map(seed: i64) -> (Tensor, Tensor) {
        tch::manual_seed(seed);
        let logits = Tensor::randn([1, 1, 16, 16], (Kind::Double, Device::Cpu));
        let target = logits.gt(0.5).to_kind(Kind::Double);
        (logits, target)
    }

    #[test]
    fn the_gradient_is_sound_where_an_extreme_disagrees_with_the_target() {
        let (logits, agreeing) = random_map(7);
        let (highest, lowest) = (logits.argmax(None, false).int64_value(&[]), logits.argmin(None, false).int64_value(&[]));
        for flipped in [vec![], vec![highest], vec![lowest], vec![highest, lowest]] {
            let mut target = Vec::<f64>::try_from(agreeing.view([-1])).unwrap();
            for &pixel in &flipped {
                target[pixel as usize] = 1.0 - target[pixel as usize];
            }
            let expected = gradient_by_differences(&Vec::try_from(logits.view([-1])).unwrap(), &target);
            let target = Tensor::from_slice(&target).view([1, 1, 16, 16]);
            let expected = Tensor::from_slice(&expected).view([1, 1, 16, 16]);
            let scale = expected.abs().max().double_value(&[]);
            for (kind, tolerance) in [(Kind::Double, 1e-6), (Kind::Float, 1e-5)] {
                let (_, gradient) = loss_and_gradient(&logits, &target, kind, &paper());
                let error = (&gradient - &expected).abs().max().double_value(&[]) / scale;
                assert!(error < tolerance, "{flipped:?} in {kind:?}: {error:e}");
            }
        }
    }

    #[test]
    fn the_loss_counts_a_wrong_extreme_at_the_cap_of_the_cross_entropy() {
        let logits = Tensor::from_slice(&[0.0_f32, 0.5, 1.0, 0.5]).view([1, 1, 2, 2]);
        let target = Tensor::from_slice(&[0.0_f32, 1.0, 0.0, 0.0]).view([1, 1, 2, 2]);
        let (loss, _) = loss_and_gradient(&logits, &target, Kind::Float, &paper());
        // Two pixels at ln 2, one right and one wrong extreme; 2 * 0.5 + 1 over 2 + 1 + 1.
        let expected = (2.0 * 2.0_f64.ln() + 0.0 + 100.0) / 4.0 + 1.0 - 2.0 / 4.0;
        assert!((loss - expected).abs() < 1e-5, "{loss} instead of {expected}");
    }

    #[test]
    fn a_map_that_is_constant_or_not_finite_has_no_prediction() {
        for map in [[2.0_f32; 4], [1.0, f32::NAN, 2.0, 3.0], [1.0, f32::INFINITY, 2.0, 3.0]] {
            let map = Tensor::from_slice(&map).view([1, 1, 2, 2]);
            assert!(min_max(&map, whole(&map)).unwrap().is_none(), "{map:?}");
        }
    }

    #[test]
    fn autograds_own_gradient_at_a_wrong_extreme_is_far_from_the_sound_one_and_elsewhere_the_same() {
        let (logits, agreeing) = random_map(7);
        let autograd = Choices { extremes: Extremes::Autograd, ..paper() };
        let highest = logits.argmax(None, false).int64_value(&[]) as usize;
        let mut wrong = Vec::<f64>::try_from(agreeing.view([-1])).unwrap();
        wrong[highest] = 1.0 - wrong[highest];
        let wrong = Tensor::from_slice(&wrong).view([1, 1, 16, 16]);
        for (target, is_far) in [(&agreeing, false), (&wrong, true)] {
            let (sound_loss, sound) = loss_and_gradient(&logits, target, Kind::Float, &paper());
            let (loss, gradient) = loss_and_gradient(&logits, target, Kind::Float, &autograd);
            assert_eq!(loss.to_bits(), sound_loss.to_bits(), "only the gradient differs");
            let error = (&gradient - &sound).abs().max().double_value(&[]) / sound.abs().max().double_value(&[]);
            assert_eq!(error > 0.05, is_far, "{error:e}");
        }
    }

    #[test]
    fn the_smoothing_is_added_to_numerator_and_denominator_of_the_dice() {
        let prediction = Tensor::from_slice(&[0.0_f32, 0.5, 1.0, 0.5]).view([1, 1, 2, 2]);
        let target = Tensor::from_slice(&[0.0_f32, 1.0, 1.0, 0.0]).view([1, 1, 2, 2]);
        let with = |dice_smoothing| loss(&prediction, &target, &Choices { dice_smoothing, ..paper() }).unwrap().double_value(&[]);
        // 2 * 1.5 + s over 2 + 2 + s.
        assert!((with(2.0) - with(1.0) - (4.0 / 5.0 - 5.0 / 6.0)).abs() < 1e-6);
    }

    #[test]
    fn the_minimum_and_maximum_are_those_of_the_part_that_counts() {
        let map = Tensor::from_slice(&[1.0_f32, 2.0, 9.0, 3.0, 1.5, -9.0, 7.0, 7.0, 7.0]).view([1, 1, 3, 3]);
        let part = Part { height: 2, width: 2 };
        let found = part.of(&min_max(&map, part).unwrap().unwrap()).unwrap();
        assert_eq!(Vec::<f32>::try_from(found.contiguous().view([-1])).unwrap(), [0.0, 0.5, 1.0, 0.25]);
    }
}
