//! Stage two: the image encoder is fine-tuned on the one image until the decoder's mask agrees with J (the paper, section 3).

use std::ops::ControlFlow;

use request::Parameters;
use tch::{Kind, Reduction, TchError, Tensor, no_grad};

use crate::{SegmentError, StepReport, adam::Adam, recipe::Choices, sam::Sam};

/// The best prediction, and how it was come by.
pub struct Finetuned {
    /// The soft map in [0, 1]. [1, 1, 4T, 4T]
    pub prediction: Tensor,
    pub best_step: u32,
    pub best_iou: f64,
    pub losses: Vec<f64>,
    pub ious: Vec<f64>,
}

/// Fine-tunes the image encoder, whose parameters must be the pre-trained ones, on the image [1, 3, S, S] towards `target`, which is
/// J [1, 1, 4T, 4T]. `embedding` is the image's under the pre-trained parameters, with its graph: step 1's forward pass is the one J
/// was made of.
///
/// A step judges the prediction before its own update, so the last step needs none, and nothing after an IoU of exactly 1, which
/// no later prediction can beat.
pub fn finetune(
    sam: &mut Sam,
    image: &Tensor,
    embedding: Tensor,
    target: &Tensor,
    parameters: &Parameters,
    progress: &mut dyn FnMut(StepReport) -> ControlFlow<()>,
) -> Result<Finetuned, SegmentError> {
    let choices = Choices::of(parameters.recipe);
    let &Parameters { steps, learning_rate, .. } = parameters;
    let mut adam = Adam::new(sam.encoder_parameters.values_mut(), learning_rate, &choices)?;
    let (mut losses, mut ious) = (Vec::new(), Vec::new());
    let mut best: Option<(u32, f64, Tensor)> = None;
    let mut embedding = embedding;

    for step in 1..=steps {
        let logits = sam.decode(&embedding, sam.prompt_encoder.null())?; // M_o = S(I, null, null)
        let Some(prediction) = min_max(&logits)? else {
            return Err(SegmentError::Diverged { step, learning_rate });
        };
        let loss = loss(&prediction, target, &choices)?;

        let (loss_value, iou) = (loss.f_double_value(&[])?, iou(&prediction, target, &choices)?);
        losses.push(loss_value);
        ious.push(iou);
        if best.as_ref().is_none_or(|(_, best_iou, _)| iou >= *best_iou) {
            best = Some((step, iou, prediction.f_detach()?));
        }
        if progress(StepReport { step, steps, loss: loss_value, iou }).is_break() {
            return Err(SegmentError::Stopped { step, steps });
        }
        if step == steps || iou >= 1.0 {
            break;
        }

        let gradient = sam.encoder_parameters.gradient(&loss)?;
        adam.step(sam.encoder_parameters.values_mut(), &gradient)?;
        embedding = sam.image_encoder.forward(image)?;
    }

    let (best_step, best_iou, prediction) = best.expect("Parameters::checked asks for at least one step");
    Ok(Finetuned { prediction, best_step, best_iou, losses, ious })
}

/// To [0, 1] by the map's own minimum and maximum, through which gradients flow. `None` for a map that is constant or not finite.
fn min_max(map: &Tensor) -> Result<Option<Tensor>, TchError> {
    let (min, max) = (map.f_min()?, map.f_max()?);
    let range = max.f_sub(&min)?;
    let width = range.f_double_value(&[])?;
    if width > 0.0 && width.is_finite() { Ok(Some(map.f_sub(&min)?.f_div(&range)?)) } else { Ok(None) }
}

/// Mean binary cross-entropy plus soft Dice.
///
/// At the prediction's minimum and maximum, which are 0 and 1 whatever the parameters, the cross-entropy is a constant. Through
/// autograd it would be terms of 1e7 and more that cancel in real numbers and not in fp32, so there it is taken as one.
fn loss(prediction: &Tensor, target: &Tensor, choices: &Choices) -> Result<Tensor, TchError> {
    let extreme = prediction.f_eq(0.0)?.f_logical_or(&prediction.f_eq(1.0)?)?;
    let moving = prediction.f_detach()?.f_where_self(&extreme, prediction)?;
    let cross_entropy = moving.f_binary_cross_entropy::<Tensor>(target, None, Reduction::Mean)?;

    let sum = |map: &Tensor| map.f_sum(None::<Kind>);
    let intersection = sum(&prediction.f_mul(target)?)?.f_mul_scalar(2.0)?.f_add_scalar(choices.dice_smoothing)?;
    let total = sum(prediction)?.f_add(&sum(target)?)?.f_add_scalar(choices.dice_smoothing)?;
    let dice = intersection.f_div(&total)?;
    cross_entropy.f_sub(&dice)?.f_add_scalar(1.0)
}

/// Intersection over union of the thresholded prediction with the target; a ratio of two counts, so 1 means equal.
fn iou(prediction: &Tensor, target: &Tensor, choices: &Choices) -> Result<f64, TchError> {
    no_grad(|| {
        let (prediction, target) = (prediction.f_gt(choices.threshold)?, target.f_gt(choices.threshold)?);
        let count = |map: Tensor| map.f_sum(Kind::Int64)?.f_int64_value(&[]);
        let intersection = count(prediction.f_logical_and(&target)?)?;
        let union = count(prediction.f_logical_or(&target)?)?;
        Ok(if union == 0 { 1.0 } else { intersection as f64 / union as f64 })
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use request::Recipe;
    use tch::Device;

    use super::*;
    use crate::Checkpoint;

    /// Loss and gradient of a map of logits, in the given precision.
    fn loss_and_gradient(logits: &Tensor, target: &Tensor, kind: Kind) -> (f64, Tensor) {
        let logits = logits.to_kind(kind).set_requires_grad(true);
        let loss = loss(&min_max(&logits).unwrap().unwrap(), &target.to_kind(kind), &Choices::of(Recipe::Paper)).unwrap();
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
                let (_, gradient) = loss_and_gradient(&logits, &target, kind);
                let error = (&gradient - &expected).abs().max().double_value(&[]) / scale;
                assert!(error < tolerance, "{flipped:?} in {kind:?}: {error:e}");
            }
        }
    }

    #[test]
    fn the_loss_counts_a_wrong_extreme_at_the_cap_of_the_cross_entropy() {
        let logits = Tensor::from_slice(&[0.0_f32, 0.5, 1.0, 0.5]).view([1, 1, 2, 2]);
        let target = Tensor::from_slice(&[0.0_f32, 1.0, 0.0, 0.0]).view([1, 1, 2, 2]);
        let (loss, _) = loss_and_gradient(&logits, &target, Kind::Float);
        // Two pixels at ln 2, one right and one wrong extreme; 2 * 0.5 + 1 over 2 + 1 + 1.
        let expected = (2.0 * 2.0_f64.ln() + 0.0 + 100.0) / 4.0 + 1.0 - 2.0 / 4.0;
        assert!((loss - expected).abs() < 1e-5, "{loss} instead of {expected}");
    }

    #[test]
    fn a_map_that_is_constant_or_not_finite_has_no_prediction() {
        for map in [[2.0_f32; 4], [1.0, f32::NAN, 2.0, 3.0], [1.0, f32::INFINITY, 2.0, 3.0]] {
            assert!(min_max(&Tensor::from_slice(&map)).unwrap().is_none(), "{map:?}");
        }
    }

    fn sam() -> Sam {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/tall.safetensors");
        Sam::new(&Checkpoint::read(&path).unwrap(), Device::Cpu).unwrap()
    }

    fn finetune_towards(target: impl Fn(&Tensor) -> Tensor, sam: &mut Sam, image: &Tensor) -> Result<Finetuned, SegmentError> {
        let embedding = sam.image_encoder.forward(image).unwrap();
        let untuned = sam.decode(&embedding, sam.prompt_encoder.null()).unwrap().detach();
        let parameters = Parameters { steps: 5, ..Parameters::default() };
        finetune(sam, image, embedding, &target(&untuned), &parameters, &mut |_| ControlFlow::Continue(()))
    }

    #[test]
    fn stops_where_the_prediction_is_the_target_exactly() {
        let mut sam = sam();
        let size = sam.architecture.image_size;
        let image = Tensor::randn([1, 3, size, size], (Kind::Float, Device::Cpu));
        let same = |untuned: &Tensor| min_max(untuned).unwrap().unwrap().gt(0.5).to_kind(Kind::Float);
        let found = finetune_towards(same, &mut sam, &image).unwrap();
        assert_eq!((found.losses.len(), found.ious, found.best_step), (1, vec![1.0], 1));
        let opposite = |untuned: &Tensor| 1.0 - same(untuned);
        let found = finetune_towards(opposite, &mut sam, &image).unwrap();
        assert_eq!((found.losses.len(), found.ious.len(), found.ious[0].to_bits()), (5, 5, 0.0_f64.to_bits()));
    }

    #[test]
    fn says_at_which_step_the_numbers_ran_away() {
        let mut sam = sam();
        let size = sam.architecture.image_size;
        let image = Tensor::full([1, 3, size, size], f64::NAN, (Kind::Float, Device::Cpu));
        let error = finetune_towards(Tensor::zeros_like, &mut sam, &image).err().expect("must be refused");
        assert!(matches!(error, SegmentError::Diverged { step: 1, .. }) && !error.is_transient(), "{error}");
    }
}
