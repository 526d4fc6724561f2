use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use image::RgbImage;
use request::{Choices, Method, Parameters, Points};
use tch::{Kind, TchError, Tensor};

use crate::{
    Checkpoint, Compute, Device, Embedded, Precision, Seconds, SegmentError, Segmentation, SegmenterError, Step,
    confidence::Verdict,
    cuda::first_cuda_device,
    embedded::check_pixels,
    finetune::{Finetuned, finetune},
    grid::{HALF, Part, SoftMask},
    memory::kept,
    native::{self, allow_tf32},
    sam::{Architecture, Kept, Sam},
    sam_answers::{sam_mask, sam_points, untuned},
    similarity::{InitialMask, initial_mask},
    stages::Stage,
    super_clustering::super_clustering,
    upsample::{Upsampled, to_image, to_original_size},
    warnings::{NO_INITIAL_MASK, Unusable},
};

/// How many threads libtorch may use, for the whole process.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(threads.clamp(1, 1_024) as i32);
}

/// How many threads libtorch uses.
pub fn threads() -> usize {
    tch::get_num_threads() as usize
}

/// The model on its device. Owned by one thread at a time.
pub struct Segmenter {
    sam: Sam,
    checkpoint_sha256: String,
    kept: Kept,
    precision: Kind,
}

impl Segmenter {
    /// Checks the checkpoint's tensors against SAM's architecture and builds the model of them. With a device alone it computes in fp32.
    pub fn new(checkpoint: &Checkpoint, compute: impl Into<Compute>) -> Result<Self, SegmenterError> {
        let compute = compute.into();
        let failed = |error: TchError| SegmenterError::Torch {
            checkpoint: checkpoint.path().display().to_string(),
            reason: error.to_string(),
        };
        let device = match compute.device {
            Device::Cpu if compute.precision == Precision::Tf32 => return Err(SegmenterError::NoTf32),
            Device::Cpu => tch::Device::Cpu,
            Device::Cuda => {
                let device = first_cuda_device()?;
                allow_tf32(compute.precision == Precision::Tf32).map_err(failed)?;
                device
            }
        };
        let sam = Sam::with_precision(checkpoint, device, compute.precision.kind())?;
        let kept = kept(compute, &sam.architecture, sam.encoder_parameters.count());
        Ok(Self { sam, checkpoint_sha256: checkpoint.sha256().into(), kept, precision: compute.precision.kind() })
    }

    /// What of a forward pass is kept, which [`crate::Activations::Auto`] decides by the memory that was free.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// SHA-256 of the checkpoint's file, in lower-case hexadecimal.
    pub fn checkpoint_sha256(&self) -> &str {
        &self.checkpoint_sha256
    }

    /// Every size of the model.
    pub fn architecture(&self) -> &Architecture {
        &self.sam.architecture
    }

    /// Has `observer` told whenever a stage of an image has ended, for measurements.
    pub fn observe(&mut self, observer: impl FnMut(Stage) + Send + 'static) {
        self.sam.stages.observe(Box::new(observer));
    }

    /// Floating-point operations a second of a product of two large square matrices on the model's device, in the model's precision: what
    /// a step's own rate is to be compared with. The fastest of as many products as go into half a second.
    pub fn matrix_product_rate(&self) -> Result<f64, SegmentError> {
        matrix_product_rate(self.sam.device(), self.precision).map_err(Into::into)
    }

    /// Restores the weights, preprocesses (once, or with [`request::Normalisation::Twice`] also a second time), one encoder forward
    /// each. What a gradient would need is not kept, so that the methods that take no step need little memory.
    pub fn embed(&mut self, image: &RgbImage, choices: &Choices) -> Result<Embedded, SegmentError> {
        Embedded::new(&mut self.sam, image, choices)
    }

    /// One object by one method, on an image embedded with the same choices.
    ///
    /// The fine-tuning starts from the checkpoint's weights every time. Where J is empty or full within the image there is nothing to fine-tune towards, and
    /// the answer is J with a warning. `progress` is called in each step; breaking ends with [`SegmentError::Stopped`].
    pub fn answer(
        &mut self,
        embedded: &mut Embedded,
        image: &RgbImage,
        points: &Points,
        method: Method,
        parameters: &Parameters,
        progress: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Segmentation, SegmentError> {
        let parameters = parameters.clone().checked()?;
        embedded.check(image, &parameters.choices)?;
        points.check_inside(image.width(), image.height())?;
        let extent = embedded.extent;
        let mut warnings = Vec::new();

        let started = Instant::now();
        let found = if is_blank(image) {
            // What its tokens differ by is their positions: noise to the eye, and still a mask.
            Err(SegmentError::ConstantSimilarity)
        } else {
            initial_mask(&embedded.embedding, points, &extent, &parameters.choices)
        };
        let initial = match found {
            Err(SegmentError::ConstantSimilarity) if !builds_on_the_initial_mask(method) => {
                warnings.push(NO_INITIAL_MASK.to_owned());
                InitialMask::empty(self.sam.architecture.grid, self.sam.device())?
            }
            initial => initial?,
        };
        let target = &initial.pixels;
        let initial_mask = to_image(&target.f_gt(HALF)?)?;
        let unusable = Unusable::of(&initial_mask, &extent).filter(|_| builds_on_the_initial_mask(method));
        warnings.extend(unusable.map(|unusable| unusable.warning(method)));
        self.sam.stages.ended(Stage::InitialMask);
        let embed = std::mem::take(&mut embedded.seconds) + started.elapsed().as_secs_f64();

        let started = Instant::now();
        let part = Part::that_counts(&extent, target.size4()?.3, parameters.choices.padding);
        let mut clustered = None;
        let found = if method == Method::Finetuned && unusable.is_none() {
            let first_pass = embedded.pass(&mut self.sam, self.kept)?;
            finetune(&mut self.sam, &embedded.pixels, first_pass, self.kept, target, &extent, &parameters, progress)?
        } else {
            let (sam, embedding) = (&self.sam, &embedded.sam_embedding);
            let prediction = match method {
                Method::Finetuned | Method::InitialMask => SoftMask { values: target.shallow_clone(), threshold: HALF },
                Method::SamPoints => sam_points(sam, embedding, points, &extent, &parameters.choices)?,
                Method::SamMask => sam_mask(sam, embedding, &initial, parameters.choices.sam_threshold)?,
                Method::Untuned => untuned(sam, embedding, part)?,
                Method::SuperClustering => {
                    let mask = clustered.insert(super_clustering(image, points));
                    SoftMask::of_image(mask, &extent, target.size4()?.3, target.device())?
                }
            };
            Finetuned::without_steps(prediction, target, part)?
        };
        let Finetuned { prediction, best_step, best_iou, losses, ious } = found;
        let finetune = started.elapsed().as_secs_f64();

        let started = Instant::now();
        let Upsampled { mask, undecided } = match clustered {
            Some(mask) => Upsampled { mask, undecided: None },
            None => to_original_size(&prediction, &extent, parameters.choices.upsampling)?,
        };
        let upsample = started.elapsed().as_secs_f64();

        let verdict = Verdict::new(points, &mask);
        warnings.extend(verdict.contradictions());
        let (agreement, confidence) = (verdict.agreement(), verdict.confidence(best_iou));
        self.sam.stages.ended(Stage::Upsample);
        let seconds = Seconds { embed, finetune, upsample };
        Ok(Segmentation {
            mask,
            initial_mask,
            losses,
            ious,
            best_step,
            iou: best_iou,
            undecided,
            agreement,
            confidence,
            seconds,
            warnings,
            kept: self.kept,
        })
    }

    /// Embeds an image and fine-tunes for each of its objects: as many answers as objects, each the same as if it were alone. The first
    /// fine-tuning goes on from the forward pass that J is made of, the others run their own.
    pub fn segment(
        &mut self,
        image: &RgbImage,
        objects: &[Points],
        parameters: &Parameters,
        progress: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Segmentation>, SegmentError> {
        check_pixels(image)?;
        let parameters = parameters.clone().checked()?;
        for points in objects {
            points.check_inside(image.width(), image.height())?;
        }
        let mut embedded = Embedded::with_pass(&mut self.sam, image, &parameters.choices, self.kept)?;
        let answer = |points| self.answer(&mut embedded, image, points, Method::Finetuned, &parameters, progress);
        objects.iter().map(answer).collect()
    }
}

fn matrix_product_rate(device: tch::Device, precision: Kind) -> Result<f64, TchError> {
    // Large enough for a GPU to be busy; on a processor, where it does not matter beyond a thousand, quick.
    let side: i64 = if device.is_cuda() { 8_192 } else { 2_048 };
    let [a, b] = [(); 2].map(|()| Tensor::f_rand([side, side], (Kind::Float, device)));
    let (a, b) = (a?.f_to_kind(precision)?, b?.f_to_kind(precision)?);
    let started = Instant::now();
    let mut fastest = f64::INFINITY;
    while started.elapsed() < Duration::from_millis(500) {
        let begun = Instant::now();
        // Reading one number waits for all of them.
        let product = native::linear(&a, &b, None, native::Prologue::None, precision)?;
        let _ = product.f_get(0)?.f_double_value(&[0])?;
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    Ok(2.0 * (side as f64).powi(3) / fastest)
}

/// Whether all pixels have the same colour.
fn is_blank(image: &RgbImage) -> bool {
    let mut pixels = image.pixels();
    pixels.next().is_none_or(|first| pixels.all(|pixel| pixel == first))
}

/// Whether without an initial mask there is no answer.
fn builds_on_the_initial_mask(method: Method) -> bool {
    match method {
        Method::SamMask | Method::InitialMask | Method::Finetuned => true,
        Method::SamPoints | Method::SuperClustering | Method::Untuned => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn where_the_image_is_the_same_everywhere_only_methods_that_need_j_refuse() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/tall.safetensors");
        let mut segmenter = Segmenter::new(&Checkpoint::read(&path).unwrap(), Device::Cpu).unwrap();
        let image = RgbImage::from_fn(40, 30, |x, y| image::Rgb([4 * x as u8, 8 * y as u8, 90]));
        let parameters = Parameters::default();
        let mut embedded = segmenter.embed(&image, &parameters.choices).unwrap();
        embedded.embedding = embedded.embedding.ones_like();
        let points = "10,10,1;30,20,0".parse().unwrap();
        for method in Method::ALL {
            let mut to_the_end = |_: Step<'_>| ControlFlow::Continue(());
            let found = segmenter.answer(&mut embedded, &image, &points, method, &parameters, &mut to_the_end);
            match found {
                Ok(found) => {
                    assert!(!builds_on_the_initial_mask(method), "{method}");
                    assert_eq!(found.mask.dimensions(), (40, 30), "{method}");
                    assert_eq!(found.warnings[0], NO_INITIAL_MASK, "{method}");
                }
                Err(error) => {
                    assert!(builds_on_the_initial_mask(method), "{method}");
                    assert!(matches!(error, SegmentError::ConstantSimilarity) && !error.is_transient(), "{method}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_segmenter_can_be_handed_to_the_thread_that_owns_it() {
        fn assert_send<T: Send>() {}
        assert_send::<Segmenter>();
    }
}
