//! What computes, behind a trait: SAM, or what a test puts in its place to see the rest of the worker under faults.

use std::ops::ControlFlow;

use evaluation::Row;
use image::{GrayImage, RgbImage};
use request::{Parameters, Points};
use segmenter::{Checkpoint, Compute, SegmentError, Segmentation, Segmenter, Step};

use crate::evaluate::score::{Scored, score_image};

pub use crate::evaluate::score::{Plan, Question};

/// A model on its device, driven by one thread. After a panic, [`SegmentError::OutOfMemory`] or [`SegmentError::Torch`] it is thrown away
/// and a fresh one is built.
pub trait Engine: Sized + 'static {
    /// Builds it.
    fn build(checkpoint: &Checkpoint, compute: Compute) -> anyhow::Result<Self>;

    /// One mask an object, each as if it were alone and whatever was segmented before. `on_step` is called in each step; breaking ends
    /// with [`SegmentError::Stopped`].
    fn segment(
        &mut self,
        image: &RgbImage,
        objects: &[Points],
        parameters: &Parameters,
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Segmentation>, SegmentError>;

    /// The plan's rows, one after the other. The truth is 255 where the object is and has the image's size. Breaking in either ends with
    /// [`SegmentError::Stopped`].
    fn evaluate(
        &mut self,
        image: &RgbImage,
        truth: &GrayImage,
        plan: &Plan<'_>,
        on_row: &mut dyn FnMut(Row) -> ControlFlow<()>,
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<(), SegmentError>;
}

impl Engine for Segmenter {
    fn build(checkpoint: &Checkpoint, compute: Compute) -> anyhow::Result<Self> {
        Ok(Self::new(checkpoint, compute)?)
    }

    fn segment(
        &mut self,
        image: &RgbImage,
        objects: &[Points],
        parameters: &Parameters,
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Segmentation>, SegmentError> {
        self.segment(image, objects, parameters, &mut |_: Step<'_>| on_step())
    }

    fn evaluate(
        &mut self,
        image: &RgbImage,
        truth: &GrayImage,
        plan: &Plan<'_>,
        on_row: &mut dyn FnMut(Row) -> ControlFlow<()>,
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<(), SegmentError> {
        let mut on_row = |_: Question, scored: Scored<'_>| on_row(scored.row);
        score_image(self, image, truth, plan, &mut on_row, &mut |_: Question, _: Step<'_>| on_step())
    }
}
