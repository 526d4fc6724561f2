use image::RgbImage;

/// A colour's lightness, and its place between green and red and between blue and yellow.
pub type Lab = [f32; 3];

/// White of the illuminant D65, for which sRGB is defined.
const WHITE: [f32; 3] = [0.950_47, 1.0, 1.088_83];

/// An image in CIELAB, where equal distances look about equally far apart.
pub struct LabImage {
    pub width: usize,
    pub height: usize,
    /// Row by row.
    pub pixels: Vec<Lab>,
}

impl LabImage {
    pub fn of(image: &RgbImage) -> Self {
        let linear: Vec<f32> = (0..=255_u8).map(linear).collect();
        let pixels = image.pixels().map(|pixel| lab(pixel.0.map(|value| linear[usize::from(value)]))).collect();
        Self { width: image.width() as usize, height: image.height() as usize, pixels }
    }
}

/// A byte of sRGB (IEC 61966-2-1) to intensity in [0, 1].
fn linear(byte: u8) -> f32 {
    let value = f32::from(byte) / 255.0;
    if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

/// Intensities of sRGB's primaries to CIELAB.
fn lab([red, green, blue]: [f32; 3]) -> Lab {
    let x = 0.412_456_4 * red + 0.357_576_1 * green + 0.180_437_5 * blue;
    let y = 0.212_672_9 * red + 0.715_152_2 * green + 0.072_175 * blue;
    let z = 0.019_333_9 * red + 0.119_192 * green + 0.950_304_1 * blue;
    let root = |t: f32| if t > 216.0 / 24389.0 { t.cbrt() } else { (24389.0 / 27.0 * t + 16.0) / 116.0 };
    let [x, y, z] = [root(x / WHITE[0]), root(y / WHITE[1]), root(z / WHITE[2])];
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// The square of the distance of two colours.
pub fn squared_distance(a: &Lab, b: &Lab) -> f32 {
    let [l, a, b] = [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
    l * l + a * a + b * b
}

/// The mean of some colours, which must be at least one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mean {
    sum: [f64; 3],
    pub count: u32,
}

impl Mean {
    pub fn add(&mut self, colour: &Lab) {
        self.add_all(&Self { sum: colour.map(f64::from), count: 1 });
    }

    pub fn add_all(&mut self, other: &Self) {
        for (sum, value) in self.sum.iter_mut().zip(other.sum) {
            *sum += value;
        }
        self.count += other.count;
    }

    pub fn colour(&self) -> Lab {
        self.sum.map(|sum| (sum / f64::from(self.count)) as f32)
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn known_colours_have_their_published_values() {
        for (rgb, expected) in [
            ([0, 0, 0], [0.0, 0.0, 0.0]),
            ([255, 255, 255], [100.0, 0.0, 0.0]),
            ([255, 0, 0], [53.24, 80.09, 67.20]),
            ([0, 255, 0], [87.73, -86.18, 83.18]),
            ([0, 0, 255], [32.30, 79.19, -107.86]),
            ([119, 119, 119], [50.03, 0.0, 0.0]),
        ] {
            let found = LabImage::of(&RgbImage::from_pixel(1, 1, Rgb(rgb))).pixels[0];
            assert!(squared_distance(&found, &expected).sqrt() < 0.05, "{rgb:?} is {found:?}");
        }
    }
}
