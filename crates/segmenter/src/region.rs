//! One object near its points: an answer beside the paper's to which of the similar tokens belong to the initial mask.
//!
//! Similarity alone takes every look-alike of the image, which is right for a kind of nuclei and wrong for one organ. This takes the
//! tokens that are similar to the positive points, lie within or about their convex hull, and are nearer to a positive point than to
//! any negative one; then closes gaps. All in tokens; distances are between their centres.

use std::collections::BTreeSet;

use crate::grid::Part;

/// What is known of an image's tokens, row by row on a square grid.
pub struct Tokens<'a> {
    /// Tokens a side.
    pub side: usize,
    /// The mean similarity of every token with the positive points' tokens. `side * side`
    pub similarity: &'a [f32],
    /// The positive points' tokens, by their place in the grid.
    pub positive: &'a [usize],
    /// The negative points' tokens, by their place in the grid.
    pub negative: &'a [usize],
    /// For every positive point the mean similarity of its token with the others'; 1 for a single point.
    pub among_positive: &'a [f32],
    /// The tokens that tell what the background is like.
    pub part: Part,
}

/// How far about the hull the object may reach where one point says nothing of its size.
const REACH_OF_ONE_POINT: f64 = 12.0;
/// Gaps and spurs narrower than twice this are closed and cut.
const CLOSING: usize = 2;

/// Where the object is. `side * side`
pub fn near_points(tokens: &Tokens) -> Vec<bool> {
    let place = |&token: &usize| ((token % tokens.side) as f64, (token / tokens.side) as f64);
    // Two points on one token say no more of the object's size than one.
    let distinct: BTreeSet<usize> = tokens.positive.iter().copied().collect();
    let positive: Vec<(f64, f64)> = distinct.iter().map(place).collect();
    let negative: Vec<(f64, f64)> = tokens.negative.iter().map(place).collect();
    let hull = convex_hull(&positive);
    let reach = reach(&positive);
    let from_hull: Vec<f64> = (0..tokens.similarity.len()).map(|token| distance_to_hull(&hull, place(&token))).collect();

    // Half-way between what the points have in common and what lies far from them.
    let far: Vec<f64> = similarities(tokens, |token| from_hull[token] > 2.0 * reach + 3.0);
    let background = if far.is_empty() {
        similarities(tokens, |_| true).into_iter().fold(f64::INFINITY, f64::min)
    } else {
        far.iter().sum::<f64>() / far.len() as f64
    };
    let threshold =
        f64::midpoint(median(tokens.among_positive.iter().map(|&similarity| f64::from(similarity)).collect()), background);

    let belongs = |token: usize| {
        let here = place(&token);
        from_hull[token] <= reach + 1.0
            && f64::from(tokens.similarity[token]) > threshold
            && nearest(&positive, here) <= nearest(&negative, here)
    };
    let found: Vec<bool> = (0..tokens.similarity.len()).map(belongs).collect();
    close_gaps(&found, tokens.side, tokens.positive)
}

/// The similarities of the wanted tokens of the part that counts.
fn similarities(tokens: &Tokens, wanted: impl Fn(usize) -> bool) -> Vec<f64> {
    let Part { height, width } = tokens.part;
    let counts = |token: usize| ((token % tokens.side) as i64) < width && ((token / tokens.side) as i64) < height;
    let values = tokens.similarity.iter().enumerate().filter(|&(token, _)| counts(token) && wanted(token));
    values.map(|(_, &value)| f64::from(value)).collect()
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// How far the points are from each other: the median distance to the nearest other one.
fn reach(points: &[(f64, f64)]) -> f64 {
    if points.len() < 2 {
        return REACH_OF_ONE_POINT;
    }
    let others = |index: usize| [&points[..index], &points[index + 1..]].concat();
    median(points.iter().enumerate().map(|(index, &point)| nearest(&others(index), point)).collect())
}

/// The distance to the nearest of the points; infinite if there is none.
fn nearest(points: &[(f64, f64)], (x, y): (f64, f64)) -> f64 {
    points.iter().fold(f64::INFINITY, |least, &(px, py)| least.min((px - x).hypot(py - y)))
}

/// Twice the area of the triangle, positive where it turns left.
fn turn(a: (f64, f64), b: (f64, f64), c: (f64, f64)) -> f64 {
    (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0)
}

/// The corners of the smallest convex polygon about the points, in order (Andrew's monotone chain).
fn convex_hull(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    sorted.dedup();
    if sorted.len() < 3 {
        return sorted;
    }
    let half = |points: &mut dyn Iterator<Item = (f64, f64)>| {
        let mut chain: Vec<(f64, f64)> = Vec::new();
        for point in points {
            while chain.len() >= 2 && turn(chain[chain.len() - 2], chain[chain.len() - 1], point) <= 0.0 {
                chain.pop();
            }
            chain.push(point);
        }
        chain.pop();
        chain
    };
    let lower = half(&mut sorted.iter().copied());
    let upper = half(&mut sorted.iter().rev().copied());
    [lower, upper].concat()
}

/// Zero inside.
fn distance_to_hull(hull: &[(f64, f64)], point: (f64, f64)) -> f64 {
    let edges = || hull.iter().zip(hull.iter().cycle().skip(1));
    if hull.len() >= 3 && edges().all(|(&a, &b)| turn(a, b, point) >= 0.0) {
        return 0.0;
    }
    edges().fold(f64::INFINITY, |least, (&a, &b)| least.min(distance_to_segment(a, b, point)))
}

fn distance_to_segment(a: (f64, f64), b: (f64, f64), (x, y): (f64, f64)) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length = dx * dx + dy * dy;
    let along = if length > 0.0 { (((x - a.0) * dx + (y - a.1) * dy) / length).clamp(0.0, 1.0) } else { 0.0 };
    (a.0 + along * dx - x).hypot(a.1 + along * dy - y)
}

/// Morphological closing, then opening, with a cross, then holes filled. Beyond the grid is background.
///
/// An object narrower than the opening would vanish: where it leaves none of the points' tokens, there is no opening.
fn close_gaps(map: &[bool], side: usize, points: &[usize]) -> Vec<bool> {
    // Room about the grid, so that the closing does not eat from the edges.
    let margin = CLOSING + 1;
    let padded = side + 2 * margin;
    let at = |cell: usize| (cell / side + margin) * padded + cell % side + margin;
    let map: Vec<bool> = (0..padded * padded)
        .map(|cell| {
            let (x, y) = ((cell % padded).wrapping_sub(margin), (cell / padded).wrapping_sub(margin));
            x < side && y < side && map[y * side + x]
        })
        .collect();
    let spread = |map, value| (0..CLOSING).fold(map, |map: Vec<bool>, _| spread(&map, padded, value));
    let closed = spread(spread(map, true), false);
    let opened = spread(spread(closed.clone(), false), true);
    let mut map = if points.iter().any(|&point| opened[at(point)]) { opened } else { closed };
    fill_holes(&mut map, padded);
    (0..side * side).map(|cell| map[at(cell)]).collect()
}

/// The four neighbours of a cell that are on the grid.
fn neighbours(cell: usize, side: usize) -> impl Iterator<Item = usize> {
    let (x, y) = (cell % side, cell / side);
    let near = [
        (x > 0).then(|| cell - 1),
        (x + 1 < side).then_some(cell + 1),
        (y > 0).then(|| cell - side),
        (y + 1 < side).then_some(cell + side),
    ];
    near.into_iter().flatten()
}

/// Cells of `value` take their neighbours: dilation for true, erosion for false.
fn spread(map: &[bool], side: usize, value: bool) -> Vec<bool> {
    (0..map.len()).map(|cell| if neighbours(cell, side).any(|near| map[near] == value) { value } else { map[cell] }).collect()
}

/// Background that cannot be reached from the corner becomes foreground.
fn fill_holes(map: &mut [bool], side: usize) {
    let mut outside = vec![false; map.len()];
    let mut todo = vec![0];
    while let Some(cell) = todo.pop() {
        if !map[cell] && !std::mem::replace(&mut outside[cell], true) {
            todo.extend(neighbours(cell, side));
        }
    }
    for (cell, outside) in map.iter_mut().zip(outside) {
        *cell = !outside;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 32;

    fn at(x: usize, y: usize) -> usize {
        y * SIDE + x
    }

    /// Two like discs, at (8, 16) and (24, 16), and points on them.
    fn two_discs(positive: &[usize], negative: &[usize]) -> Vec<bool> {
        let in_disc =
            |token: usize| [8.0, 24.0].iter().any(|x| ((token % SIDE) as f64 - x).hypot((token / SIDE) as f64 - 16.0) <= 5.0);
        let similarity: Vec<f32> = (0..SIDE * SIDE).map(|token| if in_disc(token) { 0.9 } else { 0.1 }).collect();
        near_points(&Tokens {
            side: SIDE,
            similarity: &similarity,
            positive,
            negative,
            among_positive: &vec![0.9; positive.len()],
            part: Part { height: SIDE as i64, width: SIDE as i64 },
        })
    }

    #[test]
    fn an_object_smaller_than_a_spur_stays_however_many_points_are_on_it() {
        let small = [at(8, 16), at(9, 16), at(8, 17)];
        let similarity: Vec<f32> = (0..SIDE * SIDE).map(|token| if small.contains(&token) { 0.9 } else { 0.1 }).collect();
        for positive in [vec![small[0]], vec![small[0]; 4], small.to_vec()] {
            let found = near_points(&Tokens {
                side: SIDE,
                similarity: &similarity,
                positive: &positive,
                negative: &[at(16, 16)],
                among_positive: &vec![0.9; positive.len()],
                part: Part { height: SIDE as i64, width: SIDE as i64 },
            });
            assert!(small.iter().all(|&token| found[token]), "{positive:?}");
            assert!(found.iter().filter(|&&found| found).count() < 8, "{positive:?}");
        }
    }

    #[test]
    fn what_does_not_count_tells_nothing_of_the_background() {
        // Left of column 16 the image, right of it padding that is like the object.
        let similarity: Vec<f32> = (0..SIDE * SIDE)
            .map(|token| match token % SIDE {
                0..4 => 0.9,
                4..8 => 0.6,
                8..16 => 0.1,
                _ => 0.7,
            })
            .collect();
        let positive = [at(1, 10), at(2, 12), at(1, 14), at(2, 16)];
        let found = |width| {
            near_points(&Tokens {
                side: SIDE,
                similarity: &similarity,
                positive: &positive,
                negative: &[],
                among_positive: &[0.9; 4],
                part: Part { height: SIDE as i64, width },
            })[at(4, 13)]
        };
        assert!(found(16), "0.6 is more than half-way from 0.1 to 0.9");
        assert!(!found(SIDE as i64), "0.6 is less than half-way from what is far, padding and all, to 0.9");
    }

    #[test]
    fn takes_the_object_under_the_points_and_not_its_twin() {
        let found = two_discs(&[at(6, 14), at(10, 14), at(6, 18), at(10, 18)], &[at(16, 16)]);
        let expected: Vec<bool> =
            (0..SIDE * SIDE).map(|token| ((token % SIDE) as f64 - 8.0).hypot((token / SIDE) as f64 - 16.0) <= 5.0).collect();
        let differing = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert!(differing <= 12, "{differing} tokens differ: only the disc's rim may, by the opening");
        assert!(!found[at(24, 16)]);
    }

    #[test]
    fn a_negative_point_keeps_its_own_surroundings() {
        let all = two_discs(&[at(8, 16)], &[]);
        assert!(all[at(8, 16)] && all[at(11, 16)]);
        let right_half_denied = two_discs(&[at(8, 16)], &[at(12, 16)]);
        assert!(right_half_denied[at(8, 16)] && !right_half_denied[at(11, 16)]);
    }

    #[test]
    fn the_hull_of_points_is_convex_and_knows_its_inside() {
        let hull = convex_hull(&[(0.0, 0.0), (4.0, 0.0), (2.0, 1.0), (4.0, 4.0), (0.0, 4.0), (2.0, 2.0)]);
        assert_eq!(hull.len(), 4);
        assert!(distance_to_hull(&hull, (2.0, 2.0)).abs() < 1e-12);
        assert!((distance_to_hull(&hull, (7.0, 2.0)) - 3.0).abs() < 1e-12);
        assert!((distance_to_hull(&hull, (7.0, 8.0)) - 5.0).abs() < 1e-12);
        assert!((distance_to_hull(&[(1.0, 1.0)], (1.0, 3.0)) - 2.0).abs() < 1e-12);
        assert!(
            (distance_to_hull(&convex_hull(&[(0.0, 0.0), (2.0, 2.0), (4.0, 4.0)]), (0.0, 4.0)) - 8.0_f64.sqrt()).abs() < 1e-12
        );
    }

    #[test]
    fn gaps_are_closed_spurs_cut_and_holes_filled() {
        let block = |token: usize| (8..24).contains(&(token % SIDE)) && (8..24).contains(&(token / SIDE));
        let mut map: Vec<bool> = (0..SIDE * SIDE).map(block).collect();
        map[at(16, 16)] = false;
        map[at(28, 28)] = true;
        let closed = close_gaps(&map, SIDE, &[at(16, 16)]);
        assert!(closed[at(16, 16)] && !closed[at(28, 28)] && closed[at(12, 20)]);
        let to_the_edge = close_gaps(&[true; SIDE * SIDE], SIDE, &[at(16, 16)]);
        assert!(to_the_edge[at(0, 16)] && to_the_edge[at(16, 31)]);
    }
}
