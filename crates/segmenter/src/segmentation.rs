use image::GrayImage;

use crate::sam::Kept;

/// A segmented image.
#[derive(Debug, Clone)]
pub struct Segmentation {
    /// The answer, 0 or 255, of the image's size.
    pub mask: GrayImage,
    /// The initial mask J, 0 or 255, on the grid of 4 x 4 pixels a token; it covers the padded square, not the image alone. All
    /// background where the method needs none and the image has none, which a warning says.
    pub initial_mask: GrayImage,
    /// Each step's loss. Shorter than the steps asked for where the prediction became J exactly; empty where J was no target and for
    /// every method but the fine-tuned one.
    pub losses: Vec<f64>,
    /// Each step's IoU of the prediction with J, as long as `losses`.
    pub ious: Vec<f64>,
    /// The step whose prediction is the answer, from 1; 0 where no step was run.
    pub best_step: u32,
    /// The answer's IoU with J, on J's grid; 1 where the answer is J.
    pub iou: f64,
    /// With [`request::Upsampling::Binary`], 255 where the resized binary map is neither 0 nor 1, of the image's size: pixels which the
    /// published code's score leaves out.
    pub undecided: Option<GrayImage>,
    /// The share of the dots on whose side the mask is, from 0 to 1.
    pub agreement: f64,
    /// From 0 to 1, for a reviewer to sort by: the root of the IoU with J times the agreement with the dots, averaged over the labels; 0
    /// for a mask that is all foreground or all background.
    pub confidence: f64,
    /// Where the time went.
    pub seconds: Seconds,
    /// What the user should know about this result.
    pub warnings: Vec<String>,
    /// What of a forward pass was kept for the backward pass; the masks are the same.
    pub kept: Kept,
}

/// Wall-clock times of one answer, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seconds {
    /// The initial mask, and, in the first answer of an image, resizing it and its forward pass.
    pub embed: f64,
    /// The steps, or what another method does in their place.
    pub finetune: f64,
    /// The answer to the image's own size.
    pub upsample: f64,
}
