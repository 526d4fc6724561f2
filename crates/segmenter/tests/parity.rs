//! The crate against the official SAM and a plain PyTorch version of the method, on tiny models; see `parity/make_fixtures.py`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{ops::ControlFlow, path::PathBuf};

use image::{GrayImage, RgbImage};
use request::{Label, Parameters, Point, Points};
use segmenter::{
    Checkpoint, Device, Segmenter,
    sam::{Extent, PointPrompt, Sam, preprocess},
};
use tch::{Kind, Tensor};

/// The largest error allowed, relative to the largest number of the expected tensor.
const TOLERANCE: f64 = 1e-4;

fn fixture(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(file)
}

/// What PyTorch made of one case.
struct Expected(Vec<(String, Tensor)>);

impl Expected {
    fn read(case: &str) -> Self {
        Self(Tensor::read_safetensors(fixture(&format!("{case}.expected.safetensors"))).unwrap())
    }

    fn tensor(&self, name: &str) -> &Tensor {
        &self.0.iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        Vec::try_from(self.tensor(name).to_kind(Kind::Double).flatten(0, -1)).unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        Vec::try_from(self.tensor(name).flatten(0, -1)).unwrap()
    }

    fn image(&self) -> RgbImage {
        let (height, width, _) = self.tensor("image").size3().unwrap();
        RgbImage::from_raw(width as u32, height as u32, self.bytes("image")).unwrap()
    }

    fn points(&self) -> Vec<Point> {
        let point =
            |row: &[f64]| Point { x: row[0], y: row[1], label: if row[2] > 0.5 { Label::Positive } else { Label::Negative } };
        self.numbers("points").chunks(3).map(point).collect()
    }

    #[track_caller]
    fn assert_close(&self, name: &str, found: &Tensor) {
        let expected = self.tensor(name);
        assert_eq!(found.size(), expected.size(), "{name}");
        let error = (found - expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[]);
        assert!(error < TOLERANCE, "{name} is off by {error:e} of its largest number");
    }
}

fn compare_the_parts_of_the_model(case: &str) {
    segmenter::set_threads(1);
    let expected = Expected::read(case);
    let checkpoint = Checkpoint::read(&fixture(&format!("{case}.safetensors"))).unwrap();
    let sam = Sam::new(&checkpoint, tch::Device::Cpu).unwrap();
    let image = expected.image();
    let extent = Extent::new(image.width(), image.height(), sam.architecture.image_size);

    let pixels = preprocess(&image, &extent, tch::Device::Cpu).unwrap();
    expected.assert_close("pixels", &pixels);
    let embedding = sam.image_encoder.forward(&pixels).unwrap();
    expected.assert_close("embedding", &embedding);

    let scaled = |point: &Point| PointPrompt { x: point.x * extent.scale(), y: point.y * extent.scale(), label: point.label };
    let points: Vec<PointPrompt> = expected.points().iter().map(scaled).collect();
    let mask = expected.tensor("initial_mask").to_kind(Kind::Float) * 20 - 10;
    let position = sam.prompt_encoder.dense_position();
    for (name, points, mask) in [("null", &[][..], None), ("pointed", &points, None), ("masked", &[], Some(&mask))] {
        let prompts = sam.prompt_encoder.forward(points, mask).unwrap();
        let masks = sam.mask_decoder.forward(&embedding, position, &prompts).unwrap();
        expected.assert_close(name, &masks.logits);
        expected.assert_close(&format!("{name}_iou"), &masks.iou_predictions);
    }
    assert!(
        (expected.tensor("null") - expected.tensor("pointed")).abs().max().double_value(&[]) > 0.01
            && (expected.tensor("null") - expected.tensor("masked")).abs().max().double_value(&[]) > 0.01,
        "the prompts change what is compared"
    );
}

fn compare_five_steps(case: &str, checkpoint: &str) {
    segmenter::set_threads(1);
    let expected = Expected::read(case);
    let checkpoint = Checkpoint::read(&fixture(checkpoint)).unwrap();
    let mut segmenter = Segmenter::new(&checkpoint, Device::Cpu).unwrap();
    let (losses, ious) = (expected.numbers("losses"), expected.numbers("ious"));
    let parameters =
        Parameters { steps: losses.len() as u32, learning_rate: expected.numbers("learning_rate")[0], ..Parameters::default() };
    let points = Points::new(expected.points()).unwrap();
    let mut reports = Vec::new();
    let found = segmenter
        .segment(&expected.image(), &[points], &parameters, &mut |report| {
            reports.push((report.step, report.loss, report.iou));
            ControlFlow::Continue(())
        })
        .unwrap()
        .remove(0);

    assert_eq!(binary(&found.initial_mask), expected.bytes("initial_mask"), "J is the same");
    assert!(
        (losses[0] - losses[losses.len() - 1]).abs() > 100.0 * TOLERANCE,
        "the steps change the loss by far more than the tolerance"
    );
    for (step, (found, expected)) in found.losses.iter().zip(&losses).enumerate() {
        assert!((found - expected).abs() < TOLERANCE * expected, "loss of step {}: {found}, expected {expected}", step + 1);
    }
    for (step, (found, expected)) in found.ious.iter().zip(&ious).enumerate() {
        assert!((found - expected).abs() < 1e-3, "IoU of step {}: {found}, expected {expected}", step + 1);
    }
    assert_eq!(found.best_step, expected.numbers("best_step")[0] as u32);
    assert_eq!(binary(&found.mask), expected.bytes("mask"), "the final mask is the same");
    assert_eq!(found.mask.dimensions(), expected.image().dimensions());

    assert_eq!(reports.iter().map(|report| report.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(reports.iter().map(|report| report.1).collect::<Vec<_>>(), found.losses);
    assert_eq!(reports.iter().map(|report| report.2).collect::<Vec<_>>(), found.ious);
}

fn binary(mask: &GrayImage) -> Vec<u8> {
    mask.as_raw().iter().map(|&value| u8::from(value > 0)).collect()
}

#[test]
fn padded_windows_beside_a_global_block_compute_what_the_official_model_does() {
    compare_the_parts_of_the_model("mixed");
}

#[test]
fn unusual_sizes_everywhere_compute_what_the_official_model_does() {
    compare_the_parts_of_the_model("tall");
}

#[test]
fn global_blocks_alone_compute_what_the_official_model_does() {
    compare_the_parts_of_the_model("global");
}

#[test]
fn five_steps_on_a_wide_image_with_both_labels_follow_pytorch() {
    compare_five_steps("mixed", "mixed.safetensors");
}

#[test]
fn five_steps_on_a_tall_image_with_one_point_follow_pytorch() {
    compare_five_steps("tall", "tall.safetensors");
}

#[test]
fn five_steps_on_a_square_image_with_unequal_counts_follow_pytorch() {
    compare_five_steps("global", "global.safetensors");
}

#[test]
fn the_official_file_format_gives_the_same_model() {
    compare_five_steps("tall", "tall.pth");
}
