//! What one image's segmentation promises, whatever the model.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{ops::ControlFlow, path::PathBuf};

use image::{GrayImage, Rgb, RgbImage};
use request::{Parameters, Points};
use segmenter::{Checkpoint, Device, SegmentError, Segmentation, Segmenter, StepReport};

fn segmenter() -> Segmenter {
    segmenter::set_threads(1);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/parity/tall.safetensors");
    Segmenter::new(&Checkpoint::read(&path).unwrap(), Device::Cpu).unwrap()
}

/// A bright disc on a dark ground.
fn disc(width: u32, height: u32, x: u32, y: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |column, row| {
        let inside = column.abs_diff(x).pow(2) + row.abs_diff(y).pow(2) < 400;
        if inside { Rgb([220, 180, 90]) } else { Rgb([30, (column % 50) as u8, 60]) }
    })
}

fn points(text: &str) -> Points {
    text.parse().unwrap()
}

fn parameters(steps: u32) -> Parameters {
    Parameters { steps, learning_rate: 1e-3, ..Parameters::default() }
}

fn to_the_end(_: StepReport) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn segment(segmenter: &mut Segmenter, image: &RgbImage, dots: &str, steps: u32) -> Result<Segmentation, SegmentError> {
    segmenter.segment(image, &points(dots), &parameters(steps), &mut to_the_end)
}

fn is_binary(mask: &GrayImage) -> bool {
    mask.as_raw().iter().all(|value| matches!(value, 0 | 255))
}

#[test]
fn an_image_is_segmented_the_same_alone_and_after_another() {
    let (first, second) = (disc(90, 60, 30, 30), disc(70, 120, 40, 80));
    let alone = segment(&mut segmenter(), &second, "40,80,1;5,5,0", 4).unwrap();

    let mut segmenter = segmenter();
    let other = segment(&mut segmenter, &first, "30,30,1;80,50,0", 4).unwrap();
    let after = segment(&mut segmenter, &second, "40,80,1;5,5,0", 4).unwrap();

    assert_ne!(other.losses, after.losses);
    assert_eq!(alone.losses, after.losses);
    assert_eq!(alone.ious, after.ious);
    assert_eq!(alone.mask, after.mask);
    assert_eq!(alone.initial_mask, after.initial_mask);
}

#[test]
fn an_image_is_segmented_the_same_after_one_that_was_stopped() {
    let image = disc(90, 60, 30, 30);
    let alone = segment(&mut segmenter(), &image, "30,30,1;80,50,0", 3).unwrap();

    let mut segmenter = segmenter();
    let mut steps_seen = 0;
    let mut stop_at_two = |report: StepReport| {
        steps_seen = report.step;
        if report.step == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = segmenter.segment(&disc(70, 120, 40, 80), &points("40,80,1;5,5,0"), &parameters(100), &mut stop_at_two);
    assert!(matches!(stopped, Err(SegmentError::Stopped { step: 2, steps: 100 })));
    assert_eq!(steps_seen, 2);
    assert_eq!(segment(&mut segmenter, &image, "30,30,1;80,50,0", 3).unwrap().losses, alone.losses);
}

#[test]
fn the_answer_is_the_best_prediction_and_the_later_of_equals() {
    let found = segment(&mut segmenter(), &disc(90, 60, 30, 30), "30,30,1;80,50,0", 12).unwrap();
    assert_eq!((found.losses.len(), found.ious.len()), (12, 12));
    let best = found.ious.iter().copied().fold(0.0, f64::max);
    let last_best = found.ious.iter().rposition(|&iou| iou >= best).unwrap();
    assert_eq!(found.best_step as usize, last_best + 1);
    assert!((found.iou - best).abs() < f64::EPSILON);
    assert!(is_binary(&found.mask) && is_binary(&found.initial_mask));
    assert_eq!(found.warnings, Vec::<String>::new());
}

#[test]
fn one_step_is_the_untuned_prediction() {
    let mut segmenter = segmenter();
    let image = disc(90, 60, 30, 30);
    let one = segment(&mut segmenter, &image, "30,30,1;80,50,0", 1).unwrap();
    let two = segment(&mut segmenter, &image, "30,30,1;80,50,0", 2).unwrap();
    assert_eq!((one.losses.len(), one.best_step), (1, 1));
    assert_eq!(one.losses[0].to_bits(), two.losses[0].to_bits());
    assert_ne!(two.losses[0].to_bits(), two.losses[1].to_bits());
}

#[test]
fn masks_have_the_images_size_however_narrow_it_is() {
    let mut segmenter = segmenter();
    for (width, height, dots) in [(1, 300, "0,150,1;0,10,0"), (300, 2, "20,1,1;290,0,0"), (7, 5, "0,0,1;6,4,0")] {
        let found = segment(&mut segmenter, &disc(width, height, 0, 0), dots, 1).unwrap();
        assert_eq!(found.mask.dimensions(), (width, height));
        assert_eq!(found.initial_mask.dimensions(), (32, 32));
    }
}

#[test]
fn points_that_contradict_each_other_give_an_empty_mask_and_say_so() {
    let found = segment(&mut segmenter(), &disc(90, 60, 30, 30), "30,30,1;30,30,0", 5).unwrap();
    assert!(found.mask.as_raw().iter().all(|&value| value == 0));
    assert_eq!((found.best_step, found.losses.len(), found.ious.len()), (0, 0, 0));
    assert!(found.warnings[0].contains("the initial mask is empty"), "{:?}", found.warnings);
}

#[test]
fn refuses_bad_input_before_any_work_and_for_good() {
    let mut segmenter = segmenter();
    let image = disc(90, 60, 30, 30);
    let outside = segment(&mut segmenter, &image, "90,30,1", 5).unwrap_err();
    assert!(outside.to_string().contains("point 1 at (90, 30) is outside the image"), "{outside}");
    let no_steps = segment(&mut segmenter, &image, "30,30,1", 0).unwrap_err();
    assert!(no_steps.to_string().contains("steps is 0"), "{no_steps}");
    let empty = segment(&mut segmenter, &RgbImage::new(0, 0), "0,0,1", 5).unwrap_err();
    assert!(empty.to_string().contains("0 x 0 pixels"), "{empty}");
    for error in [outside, no_steps, empty] {
        assert!(!error.is_transient(), "{error}");
    }
}
