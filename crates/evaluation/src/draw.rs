use std::borrow::Cow;

use image::{GrayImage, Luma};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use request::{Dots, Label, Point, Points, Setting};
use sha2::{Digest, Sha256};

use crate::scores::is_foreground;

/// Tokens a side of the published code's grid.
const GRID: u32 = 64;

/// Why no points could be drawn: this image cannot be evaluated with this setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{available} {side} {unit}, {wanted} points wanted")]
pub struct Skip {
    available: usize,
    side: &'static str,
    unit: &'static str,
    wanted: usize,
}

/// Random points on the truth (255 is foreground), uniform and without replacement: the setting's positive ones on the foreground, then
/// its negative ones on the background.
///
/// The same arguments give the same points on every machine. The settings of one repeat are nested: 3/1 has the points of 1/1 and two
/// more.
///
/// [`Dots::Pixels`] draws pixels of the image; a point has its pixel's integer coordinates. [`Dots::Tokens`] draws tokens, as the
/// published code's `get_points` does: of a grid of 64 x 64 over the square that the image's longest side fills, a token is foreground
/// if the truth is at its top left corner, and there the point is. The published code draws negative points on the square's padding too; they would be outside the image, and are not drawn here.
pub fn draw(truth: &GrayImage, setting: Setting, dots: Dots, seed: u64, case_id: &str, repeat: u32) -> Result<Points, Skip> {
    let (grid, unit) = match dots {
        Dots::Pixels => (Cow::Borrowed(truth), "pixels"),
        Dots::Tokens => (Cow::Owned(tokens(truth)), "tokens"),
    };
    let mut points = Vec::new();
    for (label, side, wanted) in
        [(Label::Positive, "foreground", setting.positive()), (Label::Negative, "background", setting.negative())]
    {
        let wanted = wanted as usize;
        let is_wanted = |pixel: u8| is_foreground(pixel) == (label == Label::Positive);
        let mut places: Vec<u32> =
            (0..).zip(grid.as_raw()).filter(|(_, pixel)| is_wanted(**pixel)).map(|(index, _)| index).collect();
        if places.len() < wanted {
            return Err(Skip { available: places.len(), side, unit, wanted });
        }
        shuffle_first(&mut places, wanted, &mut generator(seed, case_id, repeat, side));
        points.extend(places[..wanted].iter().map(|index| {
            let (column, row) = (index % grid.width(), index / grid.width());
            let (x, y) = match dots {
                Dots::Pixels => (f64::from(column), f64::from(row)),
                Dots::Tokens => (corner(column, truth.width(), truth), corner(row, truth.height(), truth)),
            };
            Point { x, y, label }
        }));
    }
    Ok(Points::new(points).expect("a setting has a positive point, and every place is inside the image"))
}

/// Fisher and Yates' shuffle, as far as the first `count`: they do not depend on how many are asked for.
fn shuffle_first(places: &mut [u32], count: usize, random: &mut ChaCha8Rng) {
    for index in 0..count {
        let rest = (places.len() - index) as u64;
        places.swap(index, index + below(rest, random) as usize);
    }
}

/// Uniform in 0..bound: numbers beyond the last whole multiple of `bound` are drawn again.
fn below(bound: u64, random: &mut ChaCha8Rng) -> u64 {
    let end = u64::MAX - u64::MAX % bound;
    loop {
        let number = random.next_u64();
        if number < end {
            return number % bound;
        }
    }
}

/// A sequence of its own for every case, repeat and side.
fn generator(seed: u64, case_id: &str, repeat: u32, side: &str) -> ChaCha8Rng {
    let name = format!("{seed}\n{case_id}\n{repeat}\n{side}");
    ChaCha8Rng::from_seed(Sha256::digest(name).into())
}

/// The truth at the top left corner of every token that begins inside the image, at most 64 x 64.
fn tokens(truth: &GrayImage) -> GrayImage {
    let side = u64::from(truth.width().max(truth.height()));
    let tokens_along = |length: u32| (u64::from(length) * u64::from(GRID)).div_ceil(side) as u32;
    let pixel = |token: u32| (u64::from(token) * side / u64::from(GRID)) as u32;
    GrayImage::from_fn(tokens_along(truth.width()), tokens_along(truth.height()), |column, row| {
        let Luma([value]) = *truth.get_pixel(pixel(column), pixel(row));
        Luma([value])
    })
}

/// The corner of a token, in pixels of the image: half a pixel of the encoder's input within it, where the truth was looked up.
fn corner(token: u32, length: u32, truth: &GrayImage) -> f64 {
    let token_size = f64::from(truth.width().max(truth.height())) / f64::from(GRID);
    ((f64::from(token) + 1.0 / 32.0) * token_size).min(f64::from(length).next_down())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn disc(width: u32, height: u32) -> GrayImage {
        GrayImage::from_fn(width, height, |x, y| Luma([if x.abs_diff(10).pow(2) + y.abs_diff(10).pow(2) < 49 { 255 } else { 0 }]))
    }

    fn drawn(truth: &GrayImage, setting: &str, dots: Dots, repeat: u32) -> Vec<(f64, f64, bool)> {
        let points = draw(truth, setting.parse().unwrap(), dots, 1, "case", repeat).unwrap();
        points.as_slice().iter().map(|point| (point.x, point.y, point.label == Label::Positive)).collect()
    }

    #[test]
    fn the_points_of_a_seed_never_change() {
        assert_eq!(
            drawn(&disc(40, 30), "2/2", Dots::Pixels, 0),
            [(9.0, 10.0, true), (10.0, 5.0, true), (27.0, 25.0, false), (11.0, 28.0, false)]
        );
    }

    #[test]
    fn every_repeat_case_and_seed_has_points_of_its_own() {
        let (truth, setting) = (disc(40, 30), "3/3".parse().unwrap());
        let points = |seed, case, repeat| draw(&truth, setting, Dots::Pixels, seed, case, repeat).unwrap();
        let first = points(1, "a", 0);
        assert_eq!(points(1, "a", 0), first);
        for other in [points(2, "a", 0), points(1, "b", 0), points(1, "a", 1)] {
            assert_ne!(other, first);
        }
    }

    proptest! {
        #[test]
        fn points_are_on_their_side_inside_distinct_and_nested(
            width in 20_u32..90, height in 20_u32..90, positive in 1_u32..6, negative in 0_u32..6, repeat in 0_u32..9, on_tokens: bool
        ) {
            let truth = disc(width, height);
            let dots = if on_tokens { Dots::Tokens } else { Dots::Pixels };
            let points = drawn(&truth, &format!("{positive}/{negative}"), dots, repeat);
            let more = drawn(&truth, "6/6", dots, repeat);
            prop_assert_eq!(&points[..positive as usize], &more[..positive as usize]);
            prop_assert_eq!(&points[positive as usize..], &more[6..6 + negative as usize]);
            for (index, &(x, y, is_positive)) in more.iter().enumerate() {
                prop_assert!(x < f64::from(width) && y < f64::from(height));
                prop_assert!(!more[..index].iter().any(|&(other_x, other_y, _)| (other_x, other_y) == (x, y)));
                if dots == Dots::Pixels {
                    prop_assert_eq!(is_foreground(truth.get_pixel(x as u32, y as u32)[0]), is_positive);
                }
            }
        }
    }

    #[test]
    fn tokens_know_nothing_of_the_padding_and_stay_their_own_tokens() {
        // 128 pixels are 64 tokens of 2; of the 33 pixels' 17 tokens the last lies half outside.
        let truth = GrayImage::from_fn(128, 33, |x, y| Luma([if (x, y) == (126, 32) { 255 } else { 0 }]));
        assert_eq!(tokens(&truth).dimensions(), (64, 17));
        assert_eq!(drawn(&truth, "1/0", Dots::Tokens, 3), [(126.0625, 32.0625, true)]);
        let background = 64 * 17 - 1;
        let all = draw(&truth, Setting::new(1, 999).unwrap(), Dots::Tokens, 1, "case", 0).unwrap();
        let places: Vec<(u32, u32)> =
            all.of(Label::Negative).map(|point| ((point.x / 2.0) as u32, (point.y / 2.0) as u32)).collect();
        assert!(places.iter().all(|&(column, row)| column < 64 && row < 17 && (column, row) != (63, 16)));
        assert!(places.len() < background && places.iter().collect::<std::collections::HashSet<_>>().len() == places.len());
    }

    #[test]
    fn every_place_is_drawn_equally_often() {
        let truth = GrayImage::from_fn(4, 2, |x, _| Luma([if x < 3 { 255 } else { 0 }]));
        let mut counts = [0_u32; 6];
        for repeat in 0..6_000 {
            for (x, y, _) in drawn(&truth, "2/0", Dots::Pixels, repeat) {
                counts[(y as usize) * 3 + x as usize] += 1;
            }
        }
        // 12,000 draws over 6 places: 2,000 each, with a deviation of about 37.
        assert!(counts.iter().all(|count| count.abs_diff(2_000) < 200), "{counts:?}");
    }

    #[test]
    fn too_few_places_are_skipped_with_the_reason() {
        let truth = GrayImage::from_fn(64, 64, |x, y| Luma([if x < 3 && y == 0 { 255 } else { 0 }]));
        let skip = |truth: &GrayImage, setting: Setting, dots| draw(truth, setting, dots, 1, "case", 0).unwrap_err().to_string();
        let five = Setting::new(5, 0).unwrap();
        assert_eq!(skip(&truth, five, Dots::Tokens), "3 foreground tokens, 5 points wanted");
        assert_eq!(skip(&truth, five, Dots::Pixels), "3 foreground pixels, 5 points wanted");
        let full = GrayImage::from_pixel(8, 8, Luma([255]));
        assert_eq!(skip(&full, Setting::new(1, 1).unwrap(), Dots::Pixels), "0 background pixels, 1 points wanted");
    }
}
