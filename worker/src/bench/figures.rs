//! From times by stage to what a step and an image cost.

use request::{Parameters, Points};
use segmenter::{GpuPeak, Stage};
use serde::Serialize;

use super::clock::{ResidentMemory, Time};
use crate::cli::PictureSize;

/// What an image's time is told for, whatever number of steps was measured: the paper's.
pub const STEPS_OF_AN_IMAGE: u32 = 100;

/// What an image goes through, in order. The names are those of the model's stages, and of the two that the worker adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The file's bytes to pixels.
    DecodeFile,
    Restore,
    Preprocess,
    Encode,
    InitialMask,
    Prepare,
    Decode,
    Backward,
    Optimise,
    Upsample,
    /// Masks and overlay to files' bytes, and the receipt.
    EncodeFiles,
}

impl From<Stage> for Part {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Restore => Self::Restore,
            Stage::Preprocess => Self::Preprocess,
            Stage::Encode => Self::Encode,
            Stage::InitialMask => Self::InitialMask,
            Stage::Prepare => Self::Prepare,
            Stage::Decode => Self::Decode,
            Stage::Backward => Self::Backward,
            Stage::Optimise => Self::Optimise,
            Stage::Upsample => Self::Upsample,
        }
    }
}

impl Part {
    /// The parts of a step, in order.
    pub const STEP: [Self; 4] = [Self::Encode, Self::Decode, Self::Backward, Self::Optimise];
    /// What an image takes beside its steps, in order.
    pub const BESIDE: [Self; 7] =
        [Self::DecodeFile, Self::Restore, Self::Preprocess, Self::InitialMask, Self::Prepare, Self::Upsample, Self::EncodeFiles];
}

/// One part, once.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PartTime {
    pub part: Part,
    #[serde(flatten)]
    pub time: Time,
}

/// One image from its file's bytes to its results'.
#[derive(Debug, Clone, Serialize)]
pub struct ImageRun {
    /// From beginning to end.
    #[serde(flatten)]
    pub time: Time,
    /// Its parts, in order.
    pub parts: Vec<PartTime>,
    /// Each object's steps.
    pub objects: Vec<ObjectRun>,
}

/// One object's fine-tuning.
#[derive(Debug, Clone, Serialize)]
pub struct ObjectRun {
    pub losses: Vec<f64>,
    pub ious: Vec<f64>,
    /// The share of the initial mask that is foreground.
    pub initial_foreground: f64,
}

/// A step, of all whole steps after the warm-up.
#[derive(Debug, Clone, Serialize)]
pub struct StepFigures {
    /// How many there were.
    pub measured: usize,
    /// The mean, which is the sum of the parts' means.
    #[serde(flatten)]
    pub mean: Time,
    pub least_seconds: f64,
    pub most_seconds: f64,
    /// The mean of each part.
    pub parts: [PartTime; 4],
}

impl StepFigures {
    /// Leaves out the first steps of the first image. `None` where no whole step is left.
    pub fn new(images: &[ImageRun], warm_up: u32) -> Option<Self> {
        let steps: Vec<[Time; 4]> = whole_steps(images).skip(warm_up as usize).collect();
        let whole = steps.iter().map(|step| step.iter().copied().sum::<Time>().seconds);
        let mean = |index: usize| steps.iter().map(|step| step[index]).sum::<Time>().shared_by(steps.len());
        let mut parts = [0, 1, 2, 3].map(|index| PartTime { part: Part::STEP[index], time: Time::default() });
        if steps.is_empty() {
            return None;
        }
        for (index, part) in parts.iter_mut().enumerate() {
            part.time = mean(index);
        }
        Some(Self {
            measured: steps.len(),
            mean: parts.iter().map(|part| part.time).sum(),
            least_seconds: whole.clone().fold(f64::INFINITY, f64::min),
            most_seconds: whole.fold(0.0, f64::max),
            parts,
        })
    }

    fn part(&self, wanted: Part) -> Time {
        self.parts.iter().filter(|part| part.part == wanted).map(|part| part.time).sum()
    }

    /// That many steps of one fine-tuning, the last without an update.
    fn fine_tuning(&self, steps: u32) -> Time {
        let update = self.part(Part::Backward) + self.part(Part::Optimise);
        self.mean.times(f64::from(steps)) + update.times(-1.0)
    }
}

/// The steps that have all their parts: each fine-tuning's but its last.
fn whole_steps(images: &[ImageRun]) -> impl Iterator<Item = [Time; 4]> {
    let mut step = [None; 4];
    let parts = images.iter().flat_map(|image| &image.parts);
    parts.filter_map(move |&PartTime { part, time }| {
        let index = Part::STEP.iter().position(|&of_step| of_step == part)?;
        step[index] = Some(time);
        if part != Part::Optimise {
            return None;
        }
        let [encode, decode, backward, optimise] = std::mem::take(&mut step);
        Some([encode?, decode?, backward?, optimise?])
    })
}

/// What an image takes beside its steps, for all its objects; the mean of all images but the first, where there are others.
pub fn beside(images: &[ImageRun]) -> Vec<PartTime> {
    let counted = &images[usize::from(images.len() > 1)..];
    let mean = |wanted: Part| {
        let parts = counted.iter().flat_map(|image| &image.parts);
        parts.filter(|part| part.part == wanted).map(|part| part.time).sum::<Time>().shared_by(counted.len())
    };
    Part::BESIDE.into_iter().map(|part| PartTime { part, time: mean(part) }).collect()
}

/// Floating-point operations.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Flops {
    /// Of a step, as SAM was published.
    pub step: f64,
    /// A second, in the mean step.
    pub rate: f64,
    /// A second, in a product of two large square matrices before the steps and after them.
    pub matrix_product_rates: [f64; 2],
    /// The rate as a share of the faster product's.
    pub share: f64,
}

impl Flops {
    /// Of those steps.
    pub fn new(step_flops: f64, step: &StepFigures, matrix_product_rates: [f64; 2]) -> Self {
        let rate = step_flops / step.mean.seconds;
        let share = rate / matrix_product_rates.into_iter().fold(0.0, f64::max);
        Self { step: step_flops, rate, matrix_product_rates, share }
    }
}

/// What was held at most.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// Resident when the model was loaded, before the first image.
    pub loaded_rss_bytes: u64,
    /// The most that was resident from then on; from the process's beginning where `peak_includes_loading`.
    pub peak_rss_bytes: u64,
    /// Linux did not let the peak be begun anew.
    pub peak_includes_loading: bool,
    /// On a GPU, by libtorch's own counters, from the first image on.
    pub cuda: Option<CudaMemory>,
}

impl Memory {
    /// Of readings before the first image and after the last.
    pub fn new(loaded: ResidentMemory, ended: ResidentMemory, peak_includes_loading: bool, cuda: Option<GpuPeak>) -> Self {
        let cuda = cuda.map(|GpuPeak { allocated_bytes, reserved_bytes }| CudaMemory { allocated_bytes, reserved_bytes });
        Self { loaded_rss_bytes: loaded.now_bytes, peak_rss_bytes: ended.peak_bytes, peak_includes_loading, cuda }
    }
}

/// The most that libtorch held of the GPU's memory.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct CudaMemory {
    pub allocated_bytes: u64,
    pub reserved_bytes: u64,
}

/// An image of [`STEPS_OF_AN_IMAGE`] steps an object, made of the means of a step and of what is beside the steps.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ImageFigures {
    pub steps: u32,
    #[serde(flatten)]
    pub time: Time,
    /// One after the other.
    pub images_an_hour: f64,
}

impl ImageFigures {
    /// With that many objects.
    pub fn new(step: &StepFigures, beside: &[PartTime], objects: u32) -> Self {
        let steps = STEPS_OF_AN_IMAGE;
        let time = step.fine_tuning(steps).times(f64::from(objects)) + beside.iter().map(|part| part.time).sum();
        Self { steps, time, images_an_hour: 3600.0 / time.seconds }
    }
}

/// All that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    pub version: &'static str,
    pub device: String,
    /// Whether activations were kept for the backward pass, or recomputed.
    pub activations: &'static str,
    pub threads: usize,
    /// The size whose weights nobody trained, or the file's name.
    pub checkpoint: String,
    pub checkpoint_sha256: String,
    pub image: PictureSize,
    /// Each object's dots.
    pub points: Vec<Points>,
    pub parameters: Parameters,
    pub warm_up: u32,
    pub step: StepFigures,
    /// What an image takes beside its steps.
    pub beside: Vec<PartTime>,
    pub image_of_100_steps: ImageFigures,
    pub flops: Flops,
    pub memory: Memory,
    pub images: Vec<ImageRun>,
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "halves and small whole numbers are exact")]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Time {
        Time { seconds, cpu_seconds: 2.0 * seconds }
    }

    /// Two objects of three steps and two steps, each part of its own length.
    fn images() -> Vec<ImageRun> {
        use Part::{Backward, Decode, DecodeFile, Encode, InitialMask, Optimise, Restore, Upsample};
        let parts = [
            (DecodeFile, 0.5),
            (Encode, 9.0),
            (InitialMask, 0.25),
            (Decode, 9.0),
            (Backward, 9.0),
            (Optimise, 9.0),
            (Encode, 1.0),
            (Decode, 2.0),
            (Backward, 3.0),
            (Optimise, 4.0),
            (Encode, 70.0),
            (Decode, 70.0),
            (Upsample, 0.25),
            (Restore, 1.0),
            (Encode, 3.0),
            (InitialMask, 0.25),
            (Decode, 4.0),
            (Backward, 5.0),
            (Optimise, 6.0),
            (Encode, 70.0),
            (Decode, 70.0),
            (Upsample, 0.25),
        ];
        let parts = parts.into_iter().map(|(part, time)| PartTime { part, time: seconds(time) }).collect();
        vec![ImageRun { time: seconds(0.0), parts, objects: Vec::new() }]
    }

    #[test]
    fn a_step_is_the_mean_of_the_whole_steps_after_the_warm_up() {
        let step = StepFigures::new(&images(), 1).unwrap();
        assert_eq!((step.measured, step.least_seconds, step.most_seconds), (2, 10.0, 18.0));
        assert_eq!(step.parts.map(|part| part.time.seconds), [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(step.mean, seconds(14.0));
        assert_eq!(StepFigures::new(&images(), 0).unwrap().measured, 3);
        assert!(StepFigures::new(&images(), 3).is_none(), "a fine-tuning's last step has no update");
    }

    #[test]
    fn an_image_is_its_steps_and_what_is_beside_them() {
        let (step, beside) = (StepFigures::new(&images(), 1).unwrap(), beside(&images()));
        let sum: Time = beside.iter().map(|part| part.time).sum();
        assert_eq!(sum, seconds(2.5), "both objects' parts");
        let image = ImageFigures::new(&step, &beside, 2);
        assert_eq!(image.time.seconds, 2.0 * (100.0 * 14.0 - 9.0) + 2.5);
        assert_eq!(image.images_an_hour, 3600.0 / image.time.seconds);
    }

    #[test]
    fn the_first_image_does_not_count_beside_others() {
        let first = images().remove(0);
        let mut second = first.clone();
        second.parts.iter_mut().for_each(|part| part.time = part.time.times(3.0));
        let sum: Time = beside(&[first, second]).iter().map(|part| part.time).sum();
        assert_eq!(sum, seconds(7.5));
    }

    #[test]
    fn the_rate_is_a_share_of_the_faster_matrix_product() {
        let step = StepFigures::new(&images(), 1).unwrap();
        let flops = Flops::new(28.0, &step, [1.0, 8.0]);
        assert_eq!((flops.rate, flops.share), (2.0, 0.25));
    }
}
