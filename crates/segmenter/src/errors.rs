use request::{ParametersError, PointsError};
use tch::TchError;

/// Why a [`crate::Segmenter`] cannot be made of a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum SegmenterError {
    /// CUDA was asked for and is not there.
    #[error(
        "no CUDA device: {reason}; install all of torch with `DOTMASK_TORCH=full make setup` (LD_LIBRARY_PATH says where another one \
         lies), check with nvidia-smi that the driver shows a GPU, or use device cpu"
    )]
    NoCuda {
        /// What the dynamic linker or libtorch said.
        reason: String,
    },
    /// A name that stands for nothing.
    #[error("{what} {name:?} is unknown, expected {expected}")]
    UnknownName {
        /// What it was to name.
        what: &'static str,
        /// As given.
        name: String,
        /// All names there are.
        expected: String,
    },
    /// A precision that the processor does not have.
    #[error("precision tf32 is of GPUs: use fp32 on device cpu, or device cuda")]
    NoTf32,
    /// The checkpoint's tensors are not those of a SAM.
    #[error("{checkpoint} is not a SAM checkpoint this program can run: {reason}")]
    Architecture {
        /// The checkpoint's file.
        checkpoint: String,
        /// Every missing, unexpected and mis-shaped tensor, or what is impossible about the sizes.
        reason: String,
    },
    /// libtorch failed while the model was built.
    #[error("cannot put {checkpoint} on the device: {reason}")]
    Torch {
        /// The checkpoint's file.
        checkpoint: String,
        /// libtorch's message.
        reason: String,
    },
}

/// Why an image was not segmented.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// An image without pixels.
    #[error("the image is {width} x {height} pixels, expected at least 1 x 1")]
    EmptyImage {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// A point outside the image, or none that is positive.
    #[error(transparent)]
    Points(#[from] PointsError),
    /// Steps or learning rate out of range.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// All tokens are equally similar to the points: nothing to divide.
    #[error(
        "the image looks the same everywhere to the model, so the points cannot tell foreground from background; check that the image is not blank"
    )]
    ConstantSimilarity,
    /// The prediction became constant, infinite or NaN.
    #[error(
        "the fine-tuning diverged at step {step}: the prediction is constant or not finite; use a smaller learning_rate than {learning_rate}"
    )]
    Diverged {
        /// The step, from 1.
        step: u32,
        /// As asked for.
        learning_rate: f64,
    },
    /// The mask without a prompt says nothing before any step.
    #[error(
        "SAM's mask without a prompt is constant or not finite; check that the checkpoint is a trained SAM and the image is not blank"
    )]
    ConstantPrediction,
    /// An embedding of another image, or one made for other choices.
    #[error("the embedding does not fit the request: {reason}; embed this image with these choices")]
    OtherEmbedding {
        /// What differs.
        reason: String,
    },
    /// The progress callback said so.
    #[error("stopped after step {step} of {steps}")]
    Stopped {
        /// The last step done, from 1.
        step: u32,
        /// Steps asked for.
        steps: u32,
    },
    /// The device's memory does not hold the model's activations.
    #[error("out of memory on the device: {reason}; use a smaller checkpoint or a device with more memory")]
    OutOfMemory {
        /// libtorch's message.
        reason: String,
    },
    /// Any other failure of libtorch.
    #[error("libtorch failed: {reason}")]
    Torch {
        /// libtorch's message.
        reason: String,
    },
}

impl SegmentError {
    /// Whether the same request may succeed at another time or on another machine. What is wrong with the request itself stays wrong.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::OutOfMemory { .. } | Self::Torch { .. } | Self::Stopped { .. } => true,
            Self::EmptyImage { .. }
            | Self::Points(_)
            | Self::Parameters(_)
            | Self::ConstantSimilarity
            | Self::ConstantPrediction
            | Self::OtherEmbedding { .. }
            | Self::Diverged { .. } => false,
        }
    }
}

impl From<TchError> for SegmentError {
    fn from(error: TchError) -> Self {
        let message = error.to_string();
        // What follows the first line is libtorch's C++ stack trace.
        let reason = message.lines().next().unwrap_or_default().trim_start_matches("Internal torch error: ").to_owned();
        let lower = reason.to_lowercase();
        if lower.contains("out of memory") || lower.contains("can't allocate memory") {
            Self::OutOfMemory { reason }
        } else {
            Self::Torch { reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_full_device_from_other_failures() {
        for message in [
            "CUDA out of memory. Tried to allocate 2.00 GiB.\nException raised from malloc\nframe #0: ...",
            "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.",
        ] {
            let error = SegmentError::from(TchError::Torch(message.into()));
            assert!(matches!(error, SegmentError::OutOfMemory { .. }) && error.is_transient(), "{error}");
            assert_eq!(error.to_string().lines().count(), 1, "without libtorch's stack trace");
        }
        let other = SegmentError::from(TchError::Torch("CUDA error: an illegal memory access was encountered".into()));
        assert!(matches!(other, SegmentError::Torch { .. }) && other.is_transient());
        assert_eq!(other.to_string(), "libtorch failed: CUDA error: an illegal memory access was encountered");
    }
}
