use image::Rgb;

use super::*;

const RED: Rgb<u8> = Rgb([180, 40, 60]);
const BLUE: Rgb<u8> = Rgb([60, 70, 200]);

/// A picture in two colours, and the mask of the first.
fn picture(width: u32, height: u32, is_red: impl Fn(u32, u32) -> bool) -> (RgbImage, GrayImage) {
    let image = RgbImage::from_fn(width, height, |x, y| if is_red(x, y) { RED } else { BLUE });
    let mask = GrayImage::from_fn(width, height, |x, y| Luma([if is_red(x, y) { 255 } else { 0 }]));
    (image, mask)
}

fn inverted(mask: &GrayImage) -> GrayImage {
    GrayImage::from_fn(mask.width(), mask.height(), |x, y| Luma([255 - mask.get_pixel(x, y).0[0]]))
}

fn mask(image: &RgbImage, points: &str) -> GrayImage {
    super_clustering(image, &points.parse().unwrap())
}

/// In this many of a hundred pixels the masks agree.
fn agreement(a: &GrayImage, b: &GrayImage) -> f64 {
    let same = a.as_raw().iter().zip(b.as_raw()).filter(|(a, b)| a == b).count();
    100.0 * same as f64 / a.as_raw().len() as f64
}

/// The same picture with each channel off by up to `most`, the same way every time.
fn noisy(image: &RgbImage, most: i16) -> RgbImage {
    let mut state = 7_u32;
    let mut noisy = image.clone();
    for value in noisy.iter_mut() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let offset = (state >> 16) as i16 % (2 * most + 1);
        *value = (i16::from(*value) + offset.abs() - most).clamp(0, 255) as u8;
    }
    noisy
}

#[test]
fn two_flat_regions_are_told_apart_to_the_pixel() {
    let slanted = |x: u32, y: u32| 3 * x + 2 * y < 420;
    let disc = |x: u32, y: u32| x.abs_diff(90).pow(2) + y.abs_diff(60).pow(2) < 1_600;
    for (image, expected) in [picture(180, 120, slanted), picture(180, 120, disc), picture(121, 333, slanted)] {
        let [red, blue] = [255, 0].map(|value| {
            let (x, y, _) = expected.enumerate_pixels().find(|(.., pixel)| pixel.0[0] == value).unwrap();
            (x, y)
        });
        assert!(mask(&image, &format!("{},{},1", red.0, red.1)) == expected, "the positive point's colour");
        assert!(mask(&image, &format!("{},{},1", blue.0, blue.1)) == inverted(&expected), "the positive point's colour");
    }
}

#[test]
fn a_colour_is_found_wherever_it_lies() {
    let (image, expected) = picture(256, 192, |x, y| (x / 32 + y / 32) % 2 == 0);
    assert!(mask(&image, "1,1,1") == expected);
    assert!(mask(&image, "40,8,1;3,3,0") == inverted(&expected));
}

#[test]
fn noise_moves_only_the_border() {
    let (image, expected) = picture(240, 180, |x, y| x.abs_diff(100).pow(2) + y.abs_diff(90).pow(2) < 3_600);
    let found = mask(&noisy(&image, 40), "100,90,1;5,5,0");
    assert!(agreement(&found, &expected) > 99.0, "{}", agreement(&found, &expected));
}

#[test]
fn noise_alone_still_gives_a_mask_and_the_same_one_each_time() {
    let image = noisy(&RgbImage::from_pixel(100, 80, Rgb([128; 3])), 127);
    let found = mask(&image, "50,40,1");
    assert_eq!(found.dimensions(), (100, 80));
    assert!(found.as_raw().iter().all(|value| matches!(value, 0 | 255)));
    assert_eq!(found.get_pixel(50, 40).0[0], 255);
    assert!(found == mask(&image, "50,40,1"));
}

#[test]
fn the_cluster_with_more_positive_and_fewer_negative_points_is_chosen() {
    let (image, left) = picture(100, 60, |x, _| x < 50);
    for (points, chosen) in [
        ("10,10,1;60,10,1;70,10,1", inverted(&left)),
        ("10,10,1;20,10,1;60,10,1", left.clone()),
        ("10,10,1;60,10,1;70,10,0;80,10,0", left.clone()),
        ("10,10,1;20,10,0;30,10,0", inverted(&left)),
        ("99.9,59.9,1", inverted(&left)),
    ] {
        assert!(mask(&image, points) == chosen, "{points}");
    }
}

#[test]
fn with_equal_votes_it_is_the_first_positive_points_cluster() {
    let (image, left) = picture(100, 60, |x, _| x < 50);
    assert!(mask(&image, "10,10,1;60,10,1") == left);
    assert!(mask(&image, "60,10,1;10,10,1") == inverted(&left));
    assert!(mask(&image, "10,10,1;20,20,0") == left, "one colour under both kinds of points");
}

#[test]
fn an_image_of_one_colour_is_one_cluster() {
    let image = RgbImage::from_pixel(70, 50, Rgb([33, 150, 77]));
    assert!(mask(&image, "3,4,1;20,20,0").as_raw().iter().all(|&value| value == 255));
}

#[test]
fn an_image_may_be_as_narrow_as_one_pixel() {
    assert_eq!(mask(&RgbImage::from_pixel(1, 1, RED), "0,0,1").as_raw(), &[255]);
    for (width, height) in [(1, 300), (300, 1), (2, 1), (3, 3_000)] {
        let (image, expected) = picture(width, height, |x, y| 2 * x.max(y) < width.max(height));
        assert!(mask(&image, "0,0,1") == expected, "{width} x {height}");
    }
    assert_eq!(mask(&RgbImage::new(0, 0), "0,0,1").dimensions(), (0, 0));
}
