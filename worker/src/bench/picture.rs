//! The picture that is measured with: bright discs on a dark, uneven, noisy ground, the same every time.

use image::{Rgb, RgbImage};
use request::{Label, Point, Points, PointsError, Setting};

use crate::cli::PictureSize;

/// Discs across and down.
const COLUMNS: u32 = 4;
const ROWS: u32 = 3;

/// A grid of cells with a disc in the middle of each.
pub struct Picture {
    size: PictureSize,
    cell_width: f64,
    cell_height: f64,
    radius: f64,
}

impl Picture {
    /// One of that size.
    pub fn new(size: PictureSize) -> Self {
        let (cell_width, cell_height) = (f64::from(size.width) / f64::from(COLUMNS), f64::from(size.height) / f64::from(ROWS));
        Self { size, cell_width, cell_height, radius: 0.3 * cell_width.min(cell_height) }
    }

    /// The pixels.
    pub fn draw(&self) -> RgbImage {
        let PictureSize { width, height } = self.size;
        RgbImage::from_fn(width, height, |x, y| {
            let (fx, fy) = (f64::from(x), f64::from(y));
            let (dx, dy) = ((fx / self.cell_width).fract() * self.cell_width, (fy / self.cell_height).fract() * self.cell_height);
            let is_disc = (dx - self.cell_width / 2.0).hypot(dy - self.cell_height / 2.0) < self.radius;
            let colour = if is_disc {
                [200.0, 120.0, 170.0]
            } else {
                [40.0 + 30.0 * fx / f64::from(width), 50.0 + 20.0 * fy / f64::from(height), 60.0]
            };
            let mut channel = 0;
            Rgb(colour.map(|value| {
                channel += 1;
                (value + noise(x, y, channel)) as u8
            }))
        })
    }

    /// The dots of an object, counted from 0: positive ones on its disc, negative ones between discs. Past the last disc they begin at
    /// the first again, elsewhere on it.
    pub fn points(&self, object: u32, setting: Setting) -> Result<Points, PointsError> {
        let disc = object % (COLUMNS * ROWS);
        let (column, row) = (f64::from(disc % COLUMNS), f64::from(disc / COLUMNS));
        let turn = object / (COLUMNS * ROWS);
        let centre = (self.cell_width * (column + 0.5), self.cell_height * (row + 0.5));
        let positive =
            (0..setting.positive()).map(|i| self.point(centre, 0.8 * self.radius, i, setting.positive(), turn, Label::Positive));
        // About a cell's corner there is ground: its distance from every disc's middle is more than twice the radius.
        let corner = (
            self.cell_width * (column.min(f64::from(COLUMNS) - 2.0) + 1.0),
            self.cell_height * (row.min(f64::from(ROWS) - 2.0) + 1.0),
        );
        let negative =
            (0..setting.negative()).map(|i| self.point(corner, 0.5 * self.radius, i, setting.negative(), turn, Label::Negative));
        Points::new(positive.chain(negative).collect())
    }

    /// The `index`-th of `count` points spread evenly over a circle, as a sunflower's seeds are.
    fn point(&self, (x, y): (f64, f64), radius: f64, index: u32, count: u32, turn: u32, label: Label) -> Point {
        let golden_angle = std::f64::consts::PI * (3.0 - 5.0_f64.sqrt());
        let (distance, angle) =
            (radius * ((f64::from(index) + 0.5) / f64::from(count)).sqrt(), golden_angle * f64::from(index + turn));
        let within = |value: f64, side: u32| value.clamp(0.0, f64::from(side) - 1.0);
        Point {
            x: within(x + distance * angle.cos(), self.size.width),
            y: within(y + distance * angle.sin(), self.size.height),
            label,
        }
    }
}

/// From -6 to 6, by a hash of the place (Jenkins's one at a time).
fn noise(x: u32, y: u32, channel: u32) -> f64 {
    let mut hash = [x, y, channel].into_iter().flat_map(u32::to_le_bytes).fold(0_u32, |hash, byte| {
        let hash = hash.wrapping_add(u32::from(byte));
        let hash = hash.wrapping_add(hash << 10);
        hash ^ (hash >> 6)
    });
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash = hash.wrapping_add(hash << 15);
    12.0 * f64::from(hash) / f64::from(u32::MAX) - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positive_dots_are_on_discs_and_negative_ones_between_them() {
        for (width, height) in [(900, 700), (32, 32), (64, 2_000), (1_500, 40)] {
            let picture = Picture::new(PictureSize { width, height });
            let image = picture.draw();
            assert_eq!(image.dimensions(), (width, height));
            for object in [0, 5, 11, 12, 40] {
                let points = picture.points(object, Setting::new(5, 4).unwrap()).unwrap();
                points.check_inside(width, height).unwrap();
                for point in points.as_slice() {
                    let is_disc = image.get_pixel(point.x as u32, point.y as u32)[0] > 150;
                    assert_eq!(is_disc, point.label == Label::Positive, "{width} x {height}, object {object}: {point:?}");
                }
            }
            assert_ne!(picture.points(0, Setting::new(1, 1).unwrap()), picture.points(1, Setting::new(1, 1).unwrap()));
        }
    }
}
