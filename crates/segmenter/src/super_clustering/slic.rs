//! Superpixels by SLIC (Achanta et al., 2012): k-means of the pixels by colour and place, each centre reaching no further than its
//! neighbourhood.

use std::ops::Range;

use super::lab::{Lab, LabImage, Mean, squared_distance};

/// How many superpixels to start from, about.
const SUPERPIXELS: f64 = 600.0;

/// How much place weighs against colour: a step of the grid of centres is as far as this distance in CIELAB.
const COMPACTNESS: f32 = 10.0;

const ITERATIONS: usize = 10;

/// A division of an image into connected regions.
pub struct Superpixels {
    /// The superpixel of every pixel, row by row.
    pub labels: Vec<u32>,
    /// The mean colour of every superpixel.
    pub colours: Vec<Lab>,
}

/// Divides an image of at least one pixel.
pub fn superpixels(image: &LabImage) -> Superpixels {
    let step = (image.pixels.len() as f64 / SUPERPIXELS).sqrt().max(1.0);
    let mut clusters = Clusters::seeded(image, step);
    for _ in 0..ITERATIONS {
        clusters.assign(image, step as f32);
        clusters.update(image);
    }
    connected(image, &clusters.labels, (step * step / 4.0) as u32)
}

struct Centre {
    colour: Lab,
    x: f32,
    y: f32,
}

struct Clusters {
    centres: Vec<Centre>,
    /// The centre of every pixel.
    labels: Vec<u32>,
}

impl Clusters {
    /// Centres on a grid, each moved to the most even place of the nine around it, off edges and specks.
    fn seeded(image: &LabImage, step: f64) -> Self {
        let &LabImage { width, height, .. } = image;
        let (columns, rows) = ((width as f64 / step).ceil() as usize, (height as f64 / step).ceil() as usize);
        let middle = |cell: usize, cells: usize, side: usize| (2 * cell + 1) * side / (2 * cells);
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (column, row)));
        let centres = cells.map(|(column, row)| {
            let (x, y) = most_even_near(image, middle(column, columns, width), middle(row, rows, height));
            Centre { colour: image.pixels[y * width + x], x: x as f32, y: y as f32 }
        });
        let cell_of = |i: usize| (i / width * rows / height) * columns + i % width * columns / width;
        Self { centres: centres.collect(), labels: (0..width * height).map(|i| cell_of(i) as u32).collect() }
    }

    /// Every pixel to the nearest centre within a step of it; a pixel out of reach of all stays where it was.
    fn assign(&mut self, image: &LabImage, step: f32) {
        let place_weight = (COMPACTNESS / step).powi(2);
        let mut distances = vec![f32::INFINITY; self.labels.len()];
        for (label, centre) in (0..).zip(&self.centres) {
            let columns = within_reach(centre.x, step, image.width);
            for y in within_reach(centre.y, step, image.height) {
                let down = (y as f32 - centre.y).powi(2);
                for x in columns.clone() {
                    let i = y * image.width + x;
                    let place = (x as f32 - centre.x).powi(2) + down;
                    let distance = squared_distance(&image.pixels[i], &centre.colour) + place_weight * place;
                    if distance < distances[i] {
                        distances[i] = distance;
                        self.labels[i] = label;
                    }
                }
            }
        }
    }

    /// Every centre to the mean of its pixels; one that has lost them all stays.
    fn update(&mut self, image: &LabImage) {
        let mut means = vec![(Mean::default(), 0.0, 0.0); self.centres.len()];
        for (i, &label) in self.labels.iter().enumerate() {
            let (colour, x, y) = &mut means[label as usize];
            colour.add(&image.pixels[i]);
            *x += (i % image.width) as f64;
            *y += (i / image.width) as f64;
        }
        for (centre, (colour, x, y)) in self.centres.iter_mut().zip(means).filter(|(_, (colour, ..))| colour.count > 0) {
            let count = f64::from(colour.count);
            *centre = Centre { colour: colour.colour(), x: (x / count) as f32, y: (y / count) as f32 };
        }
    }
}

fn within_reach(place: f32, step: f32, side: usize) -> Range<usize> {
    (place - step).ceil().max(0.0) as usize..((place + step) as usize + 1).min(side)
}

/// The place of the smallest gradient among the pixel and its eight neighbours; the pixel itself among equals.
fn most_even_near(image: &LabImage, x: usize, y: usize) -> (usize, usize) {
    let &LabImage { width, height, .. } = image;
    let gradient = |(x, y): (usize, usize)| {
        let (left, right) = (y * width + x.saturating_sub(1), y * width + (x + 1).min(width - 1));
        let (above, below) = (y.saturating_sub(1) * width + x, (y + 1).min(height - 1) * width + x);
        squared_distance(&image.pixels[left], &image.pixels[right]) + squared_distance(&image.pixels[above], &image.pixels[below])
    };
    let mut best = ((x, y), gradient((x, y)));
    for row in y.saturating_sub(1)..=(y + 1).min(height - 1) {
        for column in x.saturating_sub(1)..=(x + 1).min(width - 1) {
            let found = gradient((column, row));
            if found < best.1 {
                best = ((column, row), found);
            }
        }
    }
    best.0
}

/// Makes every connected part of a cluster a superpixel of its own, but for parts of fewer pixels than `smallest`: those join the
/// neighbour of the nearest colour, again and again while there are any. (Achanta's program gives them to whichever it met last.)
fn connected(image: &LabImage, labels: &[u32], smallest: u32) -> Superpixels {
    let (mut parts, mut means) = connected_parts(image, labels);
    while let Some(joined) = join_small(image, &parts, &means, smallest) {
        (parts, means) = connected_parts(image, &joined);
    }
    Superpixels { labels: parts, colours: means.iter().map(Mean::colour).collect() }
}

/// Every small part joins its neighbour of the nearest colour, which may itself be small. `None` if no small part has a neighbour.
fn join_small(image: &LabImage, parts: &[u32], means: &[Mean], smallest: u32) -> Option<Vec<u32>> {
    // For each small part the square of the distance in colour of the nearest of its neighbours, and which one that is.
    let mut nearest: Vec<Option<(f32, u32)>> = vec![None; means.len()];
    for (i, &part) in parts.iter().enumerate() {
        for j in [(i % image.width + 1 < image.width).then_some(i + 1), Some(i + image.width)].into_iter().flatten() {
            let Some(&other) = parts.get(j).filter(|&&other| other != part) else { continue };
            for (part, other) in [(part, other), (other, part)] {
                let (mean, other_mean) = (&means[part as usize], &means[other as usize]);
                let distance = squared_distance(&mean.colour(), &other_mean.colour());
                let nearest = &mut nearest[part as usize];
                if mean.count < smallest && nearest.is_none_or(|(least, _)| distance < least) {
                    *nearest = Some((distance, other));
                }
            }
        }
    }

    // Parts that have joined are a chain that ends in the one that stands for all.
    let mut joined: Vec<u32> = (0..means.len() as u32).collect();
    for (part, nearest) in (0..).zip(&nearest) {
        if let Some((_, neighbour)) = nearest {
            let (from, to) = (end_of(&joined, part), end_of(&joined, *neighbour));
            joined[from as usize] = to;
        }
    }
    let any = nearest.iter().any(Option::is_some);
    any.then(|| parts.iter().map(|&part| end_of(&joined, part)).collect())
}

fn end_of(joined: &[u32], mut part: u32) -> u32 {
    while joined[part as usize] != part {
        part = joined[part as usize];
    }
    part
}

/// The connected part every pixel belongs to, by pixels that share an edge, and each part's mean colour.
fn connected_parts(image: &LabImage, labels: &[u32]) -> (Vec<u32>, Vec<Mean>) {
    const NONE: u32 = u32::MAX;
    let mut parts = vec![NONE; labels.len()];
    let mut means = Vec::new();
    let mut waiting = Vec::new();
    for start in 0..labels.len() {
        if parts[start] != NONE {
            continue;
        }
        let part = means.len() as u32;
        let mut mean = Mean::default();
        parts[start] = part;
        waiting.push(start);
        while let Some(i) = waiting.pop() {
            mean.add(&image.pixels[i]);
            let column = i % image.width;
            let sides = [(column > 0).then(|| i - 1), (column + 1 < image.width).then_some(i + 1)];
            let above_and_below = [i.checked_sub(image.width), Some(i + image.width).filter(|&j| j < labels.len())];
            for j in sides.into_iter().chain(above_and_below).flatten() {
                if parts[j] == NONE && labels[j] == labels[start] {
                    parts[j] = part;
                    waiting.push(j);
                }
            }
        }
        means.push(mean);
    }
    (parts, means)
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    /// Noise in which no two neighbours need be alike.
    fn noise(width: u32, height: u32) -> LabImage {
        let mut state = 1_u32;
        LabImage::of(&RgbImage::from_fn(width, height, |_, _| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [_, r, g, b] = state.to_le_bytes();
            Rgb([r, g, b])
        }))
    }

    #[test]
    fn makes_as_many_superpixels_as_asked_for_on_an_even_image() {
        for (width, height) in [(200, 200), (240, 100), (1_000, 50)] {
            let image = LabImage::of(&RgbImage::from_pixel(width, height, Rgb([90, 120, 40])));
            let count = superpixels(&image).colours.len();
            assert!((550..=750).contains(&count), "{count} for {width} x {height}");
        }
    }

    #[test]
    fn noise_makes_no_crumbs() {
        let count = superpixels(&noise(256, 256)).colours.len();
        assert!((400..=1_000).contains(&count), "{count}");
    }

    #[test]
    fn every_superpixel_is_connected_and_has_its_mean_colour() {
        for image in [noise(90, 70), noise(7, 5), noise(1, 2_000), noise(1, 1)] {
            let Superpixels { labels, colours } = superpixels(&image);
            let (parts, means) = connected_parts(&image, &labels);
            assert_eq!(means.len(), colours.len(), "one part a superpixel");
            for (part, label) in parts.iter().zip(&labels) {
                let (found, expected) = (colours[*label as usize], means[*part as usize].colour());
                assert!(squared_distance(&found, &expected) < 1e-6);
            }
        }
    }

    #[test]
    fn a_speck_joins_the_neighbour_of_its_colour() {
        // Two halves, and a dark speck just across the border.
        let dark = |x: u32, y: u32| x < 60 || (x == 60 && y == 40);
        let picture = RgbImage::from_fn(120, 80, |x, y| if dark(x, y) { Rgb([20; 3]) } else { Rgb([220; 3]) });
        let image = LabImage::of(&picture);
        let Superpixels { labels, colours } = superpixels(&image);
        assert!(colours[labels[40 * 120 + 60] as usize][0] < 30.0);
        assert!(colours[labels[40 * 120 + 61] as usize][0] > 80.0);
    }
}
