//! Where the time of an image goes: whoever asks is told whenever a stage of it has ended.

use tch::{Cuda, Device};

/// What the model does for an image, in the order in which it begins. [`Stage::Encode`], [`Stage::Decode`], [`Stage::Backward`] and
/// [`Stage::Optimise`] make a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The pre-trained weights are put back.
    Restore,
    /// The image is resized, normalised and brought to the device.
    Preprocess,
    /// The image encoder's forward pass; the first is also what the initial mask is made of.
    Encode,
    /// The similarity and the initial mask of an object.
    InitialMask,
    /// The optimiser's state and the target.
    Prepare,
    /// The mask decoder's forward pass, the loss, the IoU and the report of a step.
    Decode,
    /// The gradient of the loss for all parameters of the image encoder.
    Backward,
    /// Adam.
    Optimise,
    /// An object's mask at the image's size, and its verdict.
    Upsample,
}

/// Tells an observer which stage has ended. A stage lasts from the end of the one before it; what is between two images belongs to none.
pub struct Stages {
    device: Device,
    observer: Option<Box<dyn FnMut(Stage) + Send>>,
}

impl Stages {
    pub(crate) fn new(device: Device) -> Self {
        Self { device, observer: None }
    }

    pub(crate) fn observe(&mut self, observer: Box<dyn FnMut(Stage) + Send>) {
        self.observer = Some(observer);
    }

    /// Costs nothing where nobody observes. Where somebody does, a GPU finishes first what it was given, which makes steps a little slower.
    pub(crate) fn ended(&mut self, stage: Stage) {
        if let Some(observer) = &mut self.observer {
            if let Device::Cuda(index) = self.device {
                Cuda::synchronize(index as i64);
            }
            observer(stage);
        }
    }
}
