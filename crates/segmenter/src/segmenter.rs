use std::{ops::ControlFlow, str::FromStr, time::Instant};

use image::{GrayImage, RgbImage};
use request::{Parameters, Points};

use crate::{
    Checkpoint, SegmentError, SegmenterError,
    cuda::first_cuda_device,
    finetune::{Finetuned, finetune},
    recipe::Choices,
    sam::{Architecture, Extent, Sam, preprocess},
    similarity::initial_mask,
    upsample::{to_image, to_original_size},
};

/// Where the model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor, in fp32.
    #[default]
    Cpu,
    /// The first CUDA device.
    Cuda,
}

impl FromStr for Device {
    type Err = SegmenterError;

    fn from_str(name: &str) -> Result<Self, SegmenterError> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            other => Err(SegmenterError::UnknownDevice { name: other.into() }),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

/// How many threads libtorch may use, for the whole process.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(threads.clamp(1, 1_024) as i32);
}

/// What one fine-tuning step came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Which step, from 1.
    pub step: u32,
    /// How many steps were asked for; fewer are run when the prediction becomes the initial mask exactly.
    pub steps: u32,
    /// BCE plus Dice of the prediction before this step's update.
    pub loss: f64,
    /// IoU with the initial mask of the prediction before this step's update.
    pub iou: f64,
}

/// A segmented image.
#[derive(Debug, Clone)]
pub struct Segmentation {
    /// The answer, 0 or 255, of the image's size.
    pub mask: GrayImage,
    /// The initial mask J, 0 or 255, on the grid of 4 x 4 pixels a token; it covers the padded square, not the image alone.
    pub initial_mask: GrayImage,
    /// Each step's loss. Shorter than the steps asked for where the prediction became J exactly; empty where J was no target.
    pub losses: Vec<f64>,
    /// Each step's IoU of the prediction with J, as long as `losses`.
    pub ious: Vec<f64>,
    /// The step whose prediction is the answer, from 1; 0 where no step was run and the answer is J.
    pub best_step: u32,
    /// That step's IoU with J; 1 where the answer is J.
    pub iou: f64,
    /// Where the time went.
    pub seconds: Seconds,
    /// What the user should know about this result.
    pub warnings: Vec<String>,
}

/// Wall-clock times of one image, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seconds {
    /// Resizing, the first forward pass and the initial mask.
    pub embed: f64,
    /// The steps.
    pub finetune: f64,
    /// The answer to the image's own size.
    pub upsample: f64,
}

/// The model on its device. Owned by one thread at a time.
pub struct Segmenter {
    sam: Sam,
    checkpoint_sha256: String,
}

impl Segmenter {
    /// Checks the checkpoint's tensors against SAM's architecture and builds the model of them.
    pub fn new(checkpoint: &Checkpoint, device: Device) -> Result<Self, SegmenterError> {
        let device = match device {
            Device::Cpu => tch::Device::Cpu,
            Device::Cuda => first_cuda_device()?,
        };
        Ok(Self { sam: Sam::new(checkpoint, device)?, checkpoint_sha256: checkpoint.sha256().into() })
    }

    /// SHA-256 of the checkpoint's file, in lower-case hexadecimal.
    pub fn checkpoint_sha256(&self) -> &str {
        &self.checkpoint_sha256
    }

    /// Every size of the model.
    pub fn architecture(&self) -> &Architecture {
        &self.sam.architecture
    }

    /// Segments one image: the initial mask J from the points, then the fine-tuning towards it, from the checkpoint's weights every time.
    ///
    /// `progress` is called after each step; breaking ends with [`SegmentError::Stopped`]. Where J is empty or full within the image there is
    /// nothing to fine-tune towards, and the answer is J with a warning.
    pub fn segment(
        &mut self,
        image: &RgbImage,
        points: &Points,
        parameters: &Parameters,
        progress: &mut dyn FnMut(StepReport) -> ControlFlow<()>,
    ) -> Result<Segmentation, SegmentError> {
        let (width, height) = image.dimensions();
        if width == 0 || height == 0 {
            return Err(SegmentError::EmptyImage { width, height });
        }
        points.check_inside(width, height)?;
        let parameters = parameters.clone().checked()?;
        let choices = Choices::of(parameters.recipe);
        let extent = Extent::new(width, height, self.sam.architecture.image_size);

        let started = Instant::now();
        self.sam.encoder_parameters.restore()?;
        let pixels = preprocess(image, &extent, self.sam.device())?;
        let embedding = self.sam.image_encoder.forward(&pixels)?;
        let target = initial_mask(&embedding, points, &extent, &choices)?;
        let initial_mask = to_image(&target, choices.threshold)?;
        let embed = started.elapsed();

        let started = Instant::now();
        let unusable = unusable_target(&initial_mask, &extent);
        let Finetuned { prediction, best_step, best_iou, losses, ious } = match unusable {
            Some(_) => Finetuned { prediction: target, best_step: 0, best_iou: 1.0, losses: vec![], ious: vec![] },
            None => finetune(&mut self.sam, &pixels, embedding, &target, &parameters, progress)?,
        };
        let finetune = started.elapsed();

        let started = Instant::now();
        let mask = to_original_size(&prediction, &extent, choices.threshold)?;
        let upsample = started.elapsed();

        let seconds = Seconds { embed: embed.as_secs_f64(), finetune: finetune.as_secs_f64(), upsample: upsample.as_secs_f64() };
        let warnings = unusable.map(str::to_owned).into_iter().collect();
        Ok(Segmentation { mask, initial_mask, losses, ious, best_step, iou: best_iou, seconds, warnings })
    }
}

/// Why the initial mask is nothing to fine-tune towards, looking only at the part of it that is not padding.
fn unusable_target(initial_mask: &GrayImage, extent: &Extent) -> Option<&'static str> {
    let side = i64::from(initial_mask.width());
    let within = |pixels: i64| ((pixels * side + extent.image_size - 1) / extent.image_size) as usize;
    let (width, height) = (within(extent.width), within(extent.height));
    let mut pixels = initial_mask.rows().take(height).flat_map(|row| row.take(width)).map(|pixel| pixel.0[0] > 0);
    let first = pixels.next()?;
    match (first, pixels.all(|pixel| pixel == first)) {
        (_, false) => None,
        (false, true) => Some(
            "the initial mask is empty: the negative points resemble everything at least as much as the positive ones do; \
             the answer is this empty mask, not fine-tuned; check the points' labels or place them on clearer examples",
        ),
        (true, true) => Some(
            "the initial mask is the whole image: everything resembles the positive points; \
             the answer is this full mask, not fine-tuned; add negative points on the background",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(foreground: impl Fn(u32, u32) -> bool) -> Option<&'static str> {
        // The image is the upper half of the square.
        let mask = GrayImage::from_fn(16, 16, |x, y| image::Luma([if foreground(x, y) { 255 } else { 0 }]));
        unusable_target(&mask, &Extent::new(200, 100, 64))
    }

    #[test]
    fn an_initial_mask_that_says_nothing_within_the_image_is_no_target() {
        assert!(verdict(|_, _| false).unwrap().contains("empty"));
        assert!(verdict(|_, _| true).unwrap().contains("whole image"));
        assert!(verdict(|_, y| y < 8).unwrap().contains("whole image"), "the padding does not count");
        assert!(verdict(|_, y| y >= 8).unwrap().contains("empty"), "the padding does not count");
        assert_eq!(verdict(|x, y| (x, y) == (15, 7)), None);
        assert_eq!(verdict(|x, y| (x, y) != (0, 0)), None);
    }

    #[test]
    fn a_segmenter_can_be_handed_to_the_thread_that_owns_it() {
        fn assert_send<T: Send>() {}
        assert_send::<Segmenter>();
    }

    #[test]
    fn knows_its_devices_by_name() {
        assert_eq!("cpu".parse::<Device>().unwrap(), Device::Cpu);
        assert_eq!("cuda".parse::<Device>().unwrap().to_string(), "cuda");
        assert!("gpu".parse::<Device>().unwrap_err().to_string().contains("expected cpu or cuda"));
    }
}
