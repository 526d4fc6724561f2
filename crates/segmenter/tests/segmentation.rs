//! What one image's segmentation promises, whatever the model.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{ops::ControlFlow, path::PathBuf};

use image::{GrayImage, Rgb, RgbImage};
use request::{
    Choices, Extremes, Method, Normalisation, Padding, Parameters, Points, Recipe, Region, SamPoints, Similarity, Upsampling,
};
use segmenter::{Checkpoint, Device, SegmentError, Segmentation, Segmenter, Step};

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

fn to_the_end(_: Step<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn segment(segmenter: &mut Segmenter, image: &RgbImage, dots: &str, steps: u32) -> Result<Segmentation, SegmentError> {
    Ok(segmenter.segment(image, &[points(dots)], &parameters(steps), &mut to_the_end)?.remove(0))
}

/// One object by one method, the image embedded for it alone.
fn answer(
    segmenter: &mut Segmenter,
    image: &RgbImage,
    dots: &str,
    method: Method,
    choices: Choices,
) -> Result<Segmentation, SegmentError> {
    let mut embedded = segmenter.embed(image, &choices)?;
    let parameters = Parameters { choices, ..parameters(3) };
    segmenter.answer(&mut embedded, image, &points(dots), method, &parameters, &mut to_the_end)
}

#[test]
fn a_blank_image_is_refused_and_never_a_confident_mask() {
    let blank = RgbImage::from_pixel(40, 30, Rgb([90, 120, 30]));
    let refused = segment(&mut segmenter(), &blank, "10,10,1;30,20,0", 2);
    assert!(matches!(refused, Err(SegmentError::ConstantSimilarity)));
}

fn paper() -> Choices {
    Choices::of(Recipe::Paper)
}

fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|number| number.to_bits()).collect()
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
    let mut stop_at_two = |report: Step<'_>| {
        steps_seen = report.step;
        if report.step == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = segmenter.segment(&disc(70, 120, 40, 80), &[points("40,80,1;5,5,0")], &parameters(100), &mut stop_at_two);
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
    assert!(found.warnings.iter().all(|warning| warning.contains("on the other side")), "{:?}", found.warnings);
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
    for (width, height, dots) in [(1, 300, "0,150,1;0,10,0"), (300, 2, "20,1,1;290,0,0"), (24, 5, "0,0,1;23,4,0")] {
        let found = segment(&mut segmenter, &disc(width, height, 0, 0), dots, 1).unwrap();
        assert_eq!(found.mask.dimensions(), (width, height));
        assert_eq!(found.initial_mask.dimensions(), (32, 32));
    }
}

#[test]
fn of_a_narrow_image_every_figure_is_a_number_with_and_without_its_padding() {
    let mut segmenter = segmenter();
    for (width, height, dots) in [(1, 300, "0,150,1;0,10,0"), (300, 2, "20,1,1"), (24, 5, "0,0,1;23,4,0")] {
        let image = disc(width, height, 0, 0);
        for padding in [Padding::Included, Padding::Excluded] {
            for method in Method::ALL {
                let found = answer(&mut segmenter, &image, dots, method, Choices { padding, ..paper() }).unwrap();
                let figures = found.losses.iter().chain([&found.iou, &found.agreement, &found.confidence]);
                assert!(figures.clone().all(|figure| figure.is_finite()), "{method}, {padding:?}: {figures:?}");
                assert_eq!(found.mask.dimensions(), (width, height), "{method}, {padding:?}");
            }
        }
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

#[test]
fn several_objects_on_one_image_are_segmented_as_if_each_were_alone() {
    let image = disc(90, 60, 30, 30);
    let objects = ["30,30,1;80,50,0", "80,50,1;30,30,0", "30,30,1"];
    for choices in [paper(), Choices::of(Recipe::PublishedCode)] {
        let parameters = Parameters { choices, ..parameters(4) };
        let mut segmenter = segmenter();
        let together = segmenter.segment(&image, &objects.map(points), &parameters, &mut to_the_end).unwrap();
        assert_eq!(together.len(), objects.len());
        for (dots, found) in objects.iter().zip(&together) {
            let alone = segmenter.segment(&image, &[points(dots)], &parameters, &mut to_the_end).unwrap().remove(0);
            assert_eq!(bits(&found.losses), bits(&alone.losses), "{dots}");
            assert_eq!((&found.mask, &found.initial_mask), (&alone.mask, &alone.initial_mask), "{dots}");
        }
        assert_ne!(together[0].losses, together[1].losses);
    }
}

#[test]
fn an_embedded_image_is_answered_the_same_after_another_was_embedded() {
    let (first, second) = (disc(90, 60, 30, 30), disc(70, 120, 40, 80));
    let mut segmenter = segmenter();
    let alone = segment(&mut segmenter, &first, "30,30,1;80,50,0", 3).unwrap();

    let mut embedded = segmenter.embed(&first, &paper()).unwrap();
    segment(&mut segmenter, &second, "40,80,1;5,5,0", 3).unwrap();
    let dots = points("30,30,1;80,50,0");
    let after = segmenter.answer(&mut embedded, &first, &dots, Method::Finetuned, &parameters(3), &mut to_the_end).unwrap();
    assert_eq!(bits(&alone.losses), bits(&after.losses));
    assert_eq!(alone.mask, after.mask);
}

#[test]
fn every_method_gives_a_mask_of_the_images_size_in_any_order() {
    let image = disc(90, 60, 30, 30);
    let dots = points("30,30,1;80,50,0");
    let mut segmenter = segmenter();
    for recipe in [Recipe::Paper, Recipe::PublishedCode] {
        let parameters = Parameters { steps: 2, learning_rate: 1e-3, ..Parameters::of(recipe) };
        let mut embedded = segmenter.embed(&image, &parameters.choices).unwrap();
        let mut answer = |method| segmenter.answer(&mut embedded, &image, &dots, method, &parameters, &mut to_the_end).unwrap();
        for method in Method::ALL {
            let (found, again) = (answer(method), answer(method));
            assert_eq!(found.mask.dimensions(), (90, 60), "{method}");
            assert!(is_binary(&found.mask), "{method}");
            assert_eq!(found.mask, again.mask, "{method}");
            let has_a_grid = method != Method::SuperClustering;
            assert_eq!(found.undecided.is_some(), recipe == Recipe::PublishedCode && has_a_grid, "{method}");
            let shares = [found.iou, found.agreement, found.confidence];
            assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{method}: {shares:?}");
            let steps = if method == Method::Finetuned { 2 } else { 0 };
            assert_eq!((found.losses.len(), found.ious.len()), (steps, steps), "{method}");
        }
    }
}

#[test]
fn the_untuned_mask_is_the_first_steps_and_the_initial_mask_agrees_with_itself() {
    let image = disc(90, 60, 30, 30);
    let dots = "30,30,1;80,50,0";
    let mut segmenter = segmenter();
    let untuned = answer(&mut segmenter, &image, dots, Method::Untuned, paper()).unwrap();
    let mut first = None;
    let parameters = parameters(2);
    let mut keep_the_first = |step: Step<'_>| {
        if step.step == 1 {
            first = Some((step.iou, step.mask().unwrap()));
        }
        ControlFlow::Continue(())
    };
    segmenter.segment(&image, &[points(dots)], &parameters, &mut keep_the_first).unwrap();
    let (iou, mask) = first.unwrap();
    assert_eq!(untuned.iou.to_bits(), iou.to_bits());
    assert_eq!(untuned.mask, mask);
    let initial = answer(&mut segmenter, &image, dots, Method::InitialMask, paper()).unwrap();
    assert_eq!(initial.iou.to_bits(), 1.0_f64.to_bits());
    assert_ne!(initial.mask, untuned.mask);
}

#[test]
fn every_choice_changes_what_it_speaks_of() {
    let image = disc(90, 60, 30, 30);
    let dots = "30,30,1;20,30,1;80,50,0";
    let mut segmenter = segmenter();
    let mut found = |method, choices| answer(&mut segmenter, &image, dots, method, choices).unwrap();
    let once = found(Method::Finetuned, paper());

    let twice = found(Method::Finetuned, Choices { normalisation: Normalisation::Twice, ..paper() });
    assert_eq!(twice.initial_mask, once.initial_mask, "J is of pixels normalised once either way");
    assert_ne!(twice.losses[0].to_bits(), once.losses[0].to_bits());
    let twice = found(Method::SamPoints, Choices { normalisation: Normalisation::Twice, ..paper() });
    assert_ne!(twice.mask, found(Method::SamPoints, paper()).mask);

    let smooth = found(Method::Finetuned, Choices { dice_smoothing: 500.0, ..paper() });
    assert_ne!(smooth.losses[0].to_bits(), once.losses[0].to_bits());
    let excluded = found(Method::Finetuned, Choices { padding: Padding::Excluded, ..paper() });
    assert_ne!(excluded.losses[0].to_bits(), once.losses[0].to_bits());
    let autograd = found(Method::Finetuned, Choices { extremes: Extremes::Autograd, ..paper() });
    assert_eq!(autograd.losses[0].to_bits(), once.losses[0].to_bits(), "the loss is the same and its gradient is not");
    assert_ne!(autograd.losses[2].to_bits(), once.losses[2].to_bits());
    let sum = found(Method::InitialMask, Choices { similarity: Similarity::Sum, ..paper() });
    let near = found(Method::InitialMask, Choices { region: Region::NearPoints, ..paper() });
    for other in [&sum, &near] {
        assert_ne!(other.initial_mask, once.initial_mask);
    }
    let foreground = |mask: &GrayImage| mask.as_raw().iter().filter(|&&value| value > 0).count();
    assert!(foreground(&sum.mask) > foreground(&near.mask), "two dots outvote one, and what is far is left out");
    assert!(foreground(&near.mask) > 0, "what is under the dots is not");

    let binary = found(Method::Untuned, Choices { upsampling: Upsampling::Binary, ..paper() });
    let soft = found(Method::Untuned, paper());
    assert_ne!(binary.mask, soft.mask);
    assert!(soft.undecided.is_none() && foreground(&binary.undecided.unwrap()) > 0);
    let one_by_one = found(Method::SamPoints, Choices { sam_points: SamPoints::OneByOne, ..paper() });
    assert_ne!(one_by_one.mask, found(Method::SamPoints, paper()).mask);
}

#[test]
fn dots_that_the_answer_contradicts_are_named() {
    let image = disc(90, 60, 30, 30);
    let found = answer(&mut segmenter(), &image, "30,30,1;30,30,0", Method::InitialMask, paper()).unwrap();
    assert!(found.warnings[0].contains("the initial mask is empty"), "{:?}", found.warnings);
    assert_eq!(found.warnings[1], "1 of 2 points is on the other side of the mask: point 1 (positive, 30,30)");
    assert!((found.agreement - 0.5).abs() < f64::EPSILON && found.confidence.abs() < f64::EPSILON);
}

#[test]
fn an_embedding_answers_for_its_own_image_and_choices_only() {
    let (image, other) = (disc(90, 60, 30, 30), disc(60, 90, 30, 30));
    let mut segmenter = segmenter();
    let mut embedded = segmenter.embed(&image, &paper()).unwrap();
    let dots = points("30,30,1");
    let published = Parameters::of(Recipe::PublishedCode);
    for (image, parameters, part) in
        [(&other, parameters(1), "90 x 60"), (&image, published, "normalised once, asked for is twice")]
    {
        let refused = segmenter.answer(&mut embedded, image, &dots, Method::Untuned, &parameters, &mut to_the_end).unwrap_err();
        assert!(refused.to_string().contains(part), "{refused}");
    }
}
