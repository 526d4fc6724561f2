//! What SAM says without any fine-tuning: what the method is compared with (the paper, section 4).

use request::{Choices, Label, Points, SamPoints, SamThreshold};
use tch::{TchError, Tensor, no_grad};

use crate::{
    SegmentError,
    grid::{HALF, Part, SoftMask},
    loss::min_max,
    sam::{Extent, PointPrompt, Sam},
    similarity::InitialMask,
};

/// SAM prompted with the points, its single-mask output. Embedding [1, C, T, T]
///
/// [`SamPoints::Joint`]: all points as one prompt. [`SamPoints::OneByOne`]: each point alone with its own label, the logits of each label
/// summed; with negative points foreground is where THEIR sum is the greater, which is the wrong side, and what the published code does.
/// Without them it is cut as [`SamThreshold`] says.
pub fn sam_points(
    sam: &Sam,
    embedding: &Tensor,
    points: &Points,
    extent: &Extent,
    choices: &Choices,
) -> Result<SoftMask, TchError> {
    no_grad(|| {
        let prompts = prompts(points, extent);
        match choices.sam_points {
            SamPoints::Joint => cut(ask(sam, embedding, &prompts, None)?, choices.sam_threshold),
            SamPoints::OneByOne => {
                let sum = |label| -> Result<Option<Tensor>, TchError> {
                    let mut sum: Option<Tensor> = None;
                    for prompt in prompts.iter().filter(|prompt| prompt.label == label) {
                        let logits = ask(sam, embedding, &[*prompt], None)?;
                        sum = Some(match sum {
                            None => logits,
                            Some(sum) => sum.f_add(&logits)?,
                        });
                    }
                    Ok(sum)
                };
                let positive = sum(Label::Positive)?.expect("Points has a positive point");
                match sum(Label::Negative)? {
                    None => cut(positive, choices.sam_threshold),
                    Some(negative) => Ok(SoftMask { values: negative.f_sub(&positive)?, threshold: 0.0 }),
                }
            }
        }
    })
}

/// SAM prompted with the initial mask alone.
///
/// SAM was trained on logits as mask prompts; what is given here is the mask's 0 and 1, token by token, as in the published code.
pub fn sam_mask(sam: &Sam, embedding: &Tensor, initial: &InitialMask, threshold: SamThreshold) -> Result<SoftMask, TchError> {
    no_grad(|| cut(ask(sam, embedding, &[], Some(&initial.prompt()?))?, threshold))
}

/// Logits and where they are cut.
fn cut(logits: Tensor, threshold: SamThreshold) -> Result<SoftMask, TchError> {
    let threshold = match threshold {
        SamThreshold::Zero => 0.0,
        SamThreshold::Middle => f64::midpoint(logits.f_min()?.f_double_value(&[])?, logits.f_max()?.f_double_value(&[])?),
    };
    Ok(SoftMask { values: logits, threshold })
}

/// SAM without a prompt, min-max and threshold: the prediction of the first step.
pub fn untuned(sam: &Sam, embedding: &Tensor, part: Part) -> Result<SoftMask, SegmentError> {
    no_grad(|| {
        let logits = ask(sam, embedding, &[], None)?;
        let values = min_max(&logits, part)?.ok_or(SegmentError::ConstantPrediction)?;
        Ok(SoftMask { values, threshold: HALF })
    })
}

/// Logits, foreground above 0. [1, 1, 4T, 4T]
fn ask(sam: &Sam, embedding: &Tensor, points: &[PointPrompt], mask: Option<&Tensor>) -> Result<Tensor, TchError> {
    sam.decode(embedding, &sam.prompt_encoder.forward(points, mask)?)
}

fn prompts(points: &Points, extent: &Extent) -> Vec<PointPrompt> {
    let scale = extent.scale();
    points.as_slice().iter().map(|point| PointPrompt { x: point.x * scale, y: point.y * scale, label: point.label }).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use request::Recipe;
    use tch::{Device, Kind};

    use super::*;
    use crate::Checkpoint;

    fn asked(points: &str, how: SamPoints) -> SoftMask {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/tall.safetensors");
        let sam = Sam::new(&Checkpoint::read(&path).unwrap(), Device::Cpu).unwrap();
        tch::manual_seed(1);
        let (c, t) = (sam.architecture.embedding, sam.architecture.grid);
        let embedding = Tensor::randn([1, c, t, t], (Kind::Float, Device::Cpu));
        let extent = Extent::new(100, 80, sam.architecture.image_size);
        let choices = Choices { sam_points: how, ..Choices::of(Recipe::PublishedCode) };
        sam_points(&sam, &embedding, &points.parse().unwrap(), &extent, &choices).unwrap()
    }

    fn logits(points: &str, how: SamPoints) -> Tensor {
        asked(points, how).values
    }

    #[test]
    fn one_by_one_without_negative_points_the_threshold_is_the_middle_of_the_range() {
        let SoftMask { values, threshold } = asked("10,20,1;60,70,1", SamPoints::OneByOne);
        let (least, greatest) = (values.min().double_value(&[]), values.max().double_value(&[]));
        assert!((threshold - f64::midpoint(least, greatest)).abs() < 1e-9 && threshold.abs() > 1e-6);
        assert!(asked("10,20,1;60,70,0", SamPoints::OneByOne).threshold.abs() < f64::EPSILON);
    }

    #[test]
    fn one_by_one_sums_each_points_own_answer_and_takes_the_negative_points_side() {
        let alone = logits("10,20,1", SamPoints::OneByOne);
        assert!(alone.equal(&logits("10,20,1", SamPoints::Joint)), "one positive point is the same either way");
        let both = logits("10,20,1;60,70,1", SamPoints::OneByOne);
        let other = logits("60,70,1", SamPoints::Joint);
        assert!(both.equal(&(&alone + &other)));
        assert!(!both.equal(&logits("10,20,1;60,70,1", SamPoints::Joint)));
        // A negative point's own answer is what its sum with a positive one leaves.
        let negative = logits("10,20,1;60,70,0", SamPoints::OneByOne) + &alone;
        let twice = logits("10,20,1;60,70,0;60,70,0", SamPoints::OneByOne) + &alone;
        assert!((twice - negative * 2.0).abs().max().double_value(&[]) < 1e-5);
    }
}
