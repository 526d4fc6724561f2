//! The recipe `published_code` against the authors' loop in plain PyTorch; see `parity/published_loop.py`.
//!
//! In a step whose prediction has its maximum or minimum on a pixel that is on the other side in J, this recipe's gradient is what
//! cancellation leaves in fp32, and no two programs share the steps after it: the losses are up to a tenth apart at the very next one. So
//! whole runs are compared on pictures without such a step, and up to the first such step elsewhere.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{collections::HashMap, ops::ControlFlow, path::PathBuf};

use image::{GrayImage, RgbImage};
use request::{Label, Parameters, Point, Points, Recipe};
use segmenter::{Checkpoint, Device, Segmentation, Segmenter};
use tch::{Kind, Tensor};

/// The largest error of a loss, relative to it.
const TOLERANCE: f64 = 1e-4;

/// What PyTorch made of a picture, by name.
struct Expected(HashMap<String, Tensor>);

impl Expected {
    fn read(case: &str) -> Self {
        let file = format!("tests/parity/published.{case}.safetensors");
        Self(Tensor::read_safetensors(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap().into_iter().collect())
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        Vec::try_from(self.0[name].to_kind(Kind::Double).flatten(0, -1)).unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        Vec::try_from(self.0[name].flatten(0, -1)).unwrap()
    }

    fn image(&self) -> RgbImage {
        let (height, width, _) = self.0["image"].size3().unwrap();
        RgbImage::from_raw(width as u32, height as u32, self.bytes("image")).unwrap()
    }

    fn points(&self) -> Points {
        let label = |number: f64| if number > 0.5 { Label::Positive } else { Label::Negative };
        let point = |row: &[f64]| Point { x: row[0], y: row[1], label: label(row[2]) };
        Points::new(self.numbers("points").chunks(3).map(point).collect()).unwrap()
    }

    /// As many losses as are comparable agree, and with them J.
    #[track_caller]
    fn assert_follows(&self, found: &Segmentation) {
        assert_eq!(binary(&found.initial_mask), self.bytes("initial_mask"), "J is the same");
        let losses = self.numbers("losses");
        let comparable = self.numbers("comparable_steps")[0] as usize;
        assert_eq!(found.losses.len(), losses.len());
        for (step, (found, expected)) in found.losses.iter().zip(&losses).enumerate().take(comparable) {
            assert!((found - expected).abs() < TOLERANCE * expected, "loss of step {}: {found}, expected {expected}", step + 1);
        }
    }
}

fn binary(mask: &GrayImage) -> Vec<u8> {
    mask.as_raw().iter().map(|&value| u8::from(value > 0)).collect()
}

/// Of two masks of zeros and ones.
fn iou(a: &[u8], b: &[u8]) -> f64 {
    let count = |both: fn(u8, u8) -> bool| a.iter().zip(b).filter(|&(&a, &b)| both(a, b)).count() as f64;
    count(|a, b| a == 1 && b == 1) / count(|a, b| a == 1 || b == 1)
}

fn run(expected: &Expected, checkpoint: &str) -> Segmentation {
    segmenter::set_threads(1);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(checkpoint);
    let mut segmenter = Segmenter::new(&Checkpoint::read(&path).unwrap(), Device::Cpu).unwrap();
    let parameters = Parameters {
        steps: expected.numbers("losses").len() as u32,
        learning_rate: expected.numbers("learning_rate")[0],
        ..Parameters::of(Recipe::PublishedCode)
    };
    let progress = &mut |_: segmenter::Step<'_>| ControlFlow::Continue(());
    segmenter.segment(&expected.image(), &[expected.points()], &parameters, progress).unwrap().remove(0)
}

fn compare_whole_runs(case: &str, checkpoint: &str) {
    let expected = Expected::read(case);
    let found = run(&expected, checkpoint);
    let losses = expected.numbers("losses");
    assert_eq!(expected.numbers("comparable_steps")[0] as usize, losses.len());
    assert!((losses[0] - losses[losses.len() - 1]).abs() > 5.0 * TOLERANCE * losses[0], "the steps change the loss");
    expected.assert_follows(&found);
    for (step, (found, expected)) in found.ious.iter().zip(expected.numbers("ious")).enumerate() {
        assert!((found - expected).abs() < 2e-3, "IoU of step {}: {found}, expected {expected}", step + 1);
    }
    assert_eq!(found.best_step, expected.numbers("best_step")[0] as u32);
    let iou = iou(&binary(&found.mask), &expected.bytes("mask"));
    assert!(iou > 0.99, "the masks' IoU is {iou}");
}

#[test]
fn a_wide_image_with_more_positive_than_negative_points_follows_the_authors_loop() {
    compare_whole_runs("agreeing.wide", "tests/parity/mixed.safetensors");
}

#[test]
fn a_tall_image_with_positive_points_alone_follows_the_authors_loop() {
    compare_whole_runs("agreeing.tall", "tests/parity/tall.safetensors");
}

#[test]
fn a_square_image_with_more_negative_than_positive_points_follows_the_authors_loop() {
    compare_whole_runs("agreeing.square", "tests/parity/global.safetensors");
}

#[test]
fn the_committed_checkpoint_follows_the_authors_loop() {
    compare_whole_runs("agreeing.nano", "../../models/nano/nano.safetensors");
}

#[test]
fn where_an_extreme_disagrees_the_authors_loop_is_followed_up_to_that_step() {
    let expected = Expected::read("disagreeing.wide");
    assert!(expected.numbers("comparable_steps")[0] < 10.0);
    expected.assert_follows(&run(&expected, "tests/parity/mixed.safetensors"));
}
