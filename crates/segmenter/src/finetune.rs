//! Stage two: the image encoder is fine-tuned on the one image until the decoder's mask agrees with J (the paper, section 3).

use std::ops::ControlFlow;

use image::GrayImage;
use request::{Parameters, Upsampling};
use tch::{Kind, TchError, Tensor};

use crate::{
    SegmentError,
    adam::Adam,
    grid::{HALF, Part, SoftMask},
    loss::{Normalised, iou, loss, overlap, ratio},
    sam::{EncoderPass, Extent, Kept, Sam},
    stages::Stage,
    upsample::to_original_size,
};

/// What one fine-tuning step came to.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Which step, from 1.
    pub step: u32,
    /// How many steps were asked for; fewer are run when the prediction becomes the initial mask exactly.
    pub steps: u32,
    /// BCE plus Dice of the prediction before this step's update.
    pub loss: f64,
    /// IoU with the initial mask of the prediction before this step's update.
    pub iou: f64,
    prediction: &'a SoftMask,
    extent: &'a Extent,
    upsampling: Upsampling,
}

impl Step<'_> {
    /// This step's prediction at the image's size, 0 or 255; costs an upsampling.
    pub fn mask(&self) -> Result<GrayImage, SegmentError> {
        Ok(to_original_size(self.prediction, self.extent, self.upsampling)?.mask)
    }
}

/// A prediction, and how it was come by.
pub struct Finetuned {
    /// Of the best step.
    pub prediction: SoftMask,
    pub best_step: u32,
    pub best_iou: f64,
    pub losses: Vec<f64>,
    pub ious: Vec<f64>,
}

impl Finetuned {
    /// An answer that took no steps, judged against `target`, J [1, 1, 4T, 4T], within the part that counts.
    pub fn without_steps(prediction: SoftMask, target: &Tensor, part: Part) -> Result<Self, TchError> {
        let best_iou = iou(&part.of(&prediction.values)?, prediction.threshold, &part.of(target)?)?;
        Ok(Self { prediction, best_step: 0, best_iou, losses: Vec::new(), ious: Vec::new() })
    }
}

/// Fine-tunes the image encoder, whose parameters must be the pre-trained ones, on the image [1, 3, S, S] towards `target`, which is
/// J [1, 1, 4T, 4T]. `first_pass` is the image's under the pre-trained parameters: step 1's forward pass. What of the others is kept for
/// their backward passes is `kept`.
///
/// A step judges the prediction before its own update, so the last step needs none, and nothing after an IoU of exactly 1, which
/// no later prediction can beat. It waits for the device once, for the numbers that are reported.
#[expect(clippy::too_many_arguments, reason = "the method's own inputs")]
pub fn finetune(
    sam: &mut Sam,
    image: &Tensor,
    first_pass: EncoderPass,
    kept: Kept,
    target: &Tensor,
    extent: &Extent,
    parameters: &Parameters,
    progress: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Finetuned, SegmentError> {
    let &Parameters { steps, learning_rate, ref choices, .. } = parameters;
    let part = Part::that_counts(extent, target.size4()?.3, choices.padding);
    let target = part.of(target)?; // [1, 1, h, w]
    let mut adam = Adam::new(sam.encoder_parameters.tensors(), learning_rate)?;
    let (mut losses, mut ious) = (Vec::new(), Vec::new());
    let mut best: Option<(u32, f64, SoftMask)> = None;
    let mut pass = first_pass;
    sam.stages.ended(Stage::Prepare);

    for step in 1..=steps {
        let logits = sam.decode(pass.embedding(), sam.prompt_encoder.null())?; // M_o = S(I, null, null)
        let Normalised { values: prediction, range } = Normalised::of(&logits, part)?;
        let own = part.of(&prediction)?; // [1, 1, h, w]
        let loss = loss(&own, &target, choices)?;

        let [intersection, union] = overlap(&own, HALF, &target)?;
        let [range, loss_value, intersection, union] = read([&range, &loss, &intersection, &union])?;
        if !Normalised::is_sound(range) {
            return Err(SegmentError::Diverged { step, learning_rate });
        }
        let iou = ratio(intersection, union);
        losses.push(loss_value);
        ious.push(iou);
        let prediction = SoftMask { values: prediction.f_detach()?, threshold: HALF };
        let upsampling = choices.upsampling;
        let report = Step { step, steps, loss: loss_value, iou, prediction: &prediction, extent, upsampling };
        if progress(report).is_break() {
            return Err(SegmentError::Stopped { step, steps });
        }
        if best.as_ref().is_none_or(|(_, best_iou, _)| iou >= *best_iou) {
            best = Some((step, iou, prediction));
        }
        sam.stages.ended(Stage::Decode);
        if step == steps || iou >= 1.0 {
            break;
        }

        let gradients = pass.gradients(&loss, &sam.image_encoder, &sam.encoder_parameters)?;
        sam.stages.ended(Stage::Backward);
        adam.step(sam.encoder_parameters.tensors_mut(), &gradients)?;
        drop(gradients);
        sam.stages.ended(Stage::Optimise);
        pass = EncoderPass::forward(&sam.image_encoder, image, kept)?;
        sam.stages.ended(Stage::Encode);
    }

    let (best_step, best_iou, prediction) = best.expect("Parameters::checked asks for at least one step");
    Ok(Finetuned { prediction, best_step, best_iou, losses, ious })
}

/// Numbers from their device, all with one wait.
fn read<const N: usize>(numbers: [&Tensor; N]) -> Result<[f64; N], TchError> {
    let numbers: Vec<Tensor> =
        numbers.iter().map(|number| number.f_detach()?.f_to_kind(Kind::Double)).collect::<Result<_, _>>()?;
    let read = Vec::<f64>::try_from(Tensor::f_stack(&numbers, 0)?)?;
    Ok(read.try_into().expect("as many as were stacked"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::Device;

    use super::*;
    use crate::{Checkpoint, loss::min_max};

    fn sam() -> Sam {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/tall.safetensors");
        Sam::new(&Checkpoint::read(&path).unwrap(), Device::Cpu).unwrap()
    }

    fn finetune_towards(target: impl Fn(&Tensor) -> Tensor, sam: &mut Sam, image: &Tensor) -> Result<Finetuned, SegmentError> {
        let pass = EncoderPass::forward(&sam.image_encoder, image, Kept::Activations).unwrap();
        let untuned = sam.decode(pass.embedding(), sam.prompt_encoder.null()).unwrap().detach();
        let parameters = Parameters { steps: 5, ..Parameters::default() };
        let size = sam.architecture.image_size;
        let extent = Extent::new(size as u32, size as u32, size);
        finetune(sam, image, pass, Kept::Activations, &target(&untuned), &extent, &parameters, &mut |_| ControlFlow::Continue(()))
    }

    #[test]
    fn stops_where_the_prediction_is_the_target_exactly() {
        let mut sam = sam();
        let size = sam.architecture.image_size;
        let image = Tensor::randn([1, 3, size, size], (Kind::Float, Device::Cpu));
        let part = Part { height: 4 * sam.architecture.grid, width: 4 * sam.architecture.grid };
        let same = |untuned: &Tensor| min_max(untuned, part).unwrap().unwrap().gt(0.5).to_kind(Kind::Float);
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
