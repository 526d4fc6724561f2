use image::RgbImage;
use tch::{Device, Kind, Tensor};

use super::{KIND, Result};

/// Per channel, of pixels from 0 to 255.
const PIXEL_MEAN: [f32; 3] = [123.675, 116.28, 103.53];
const PIXEL_STD: [f32; 3] = [58.395, 57.12, 57.375];

/// An image's size within the square the encoder sees, and the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Of the image as given, in pixels.
    pub original_width: i64,
    /// Of the image as given, in pixels.
    pub original_height: i64,
    /// Of the image resized, in pixels of the square; what is right of it is padding.
    pub width: i64,
    /// Of the image resized, in pixels of the square; what is below it is padding.
    pub height: i64,
    /// Pixels a side of the square.
    pub image_size: i64,
}

impl Extent {
    /// The longest side becomes `image_size`; upstream's `ResizeLongestSide.get_preprocess_shape`.
    pub fn new(width: u32, height: u32, image_size: i64) -> Self {
        let scale = image_size as f64 / f64::from(width.max(height));
        // A side never vanishes, however narrow the image.
        let resized = |side: u32| ((f64::from(side) * scale + 0.5) as i64).max(1);
        Self {
            original_width: i64::from(width),
            original_height: i64::from(height),
            width: resized(width),
            height: resized(height),
            image_size,
        }
    }

    /// Pixels of the square per pixel of the original.
    pub fn scale(&self) -> f64 {
        self.image_size as f64 / self.original_width.max(self.original_height) as f64
    }
}

/// Resizes, normalises and pads. Upstream's `ResizeLongestSide.apply_image_torch` and `Sam.preprocess`. -> [1, 3, S, S]
pub fn preprocess(image: &RgbImage, extent: &Extent, device: Device) -> Result<Tensor> {
    let pixels = Tensor::f_from_slice(image.as_raw())?
        .f_view([1, extent.original_height, extent.original_width, 3])? // [1, H, W, 3]
        .f_to_device(device)?
        .f_permute([0, 3, 1, 2])?
        .f_to_kind(Kind::Float)?
        .f_contiguous()?; // [1, 3, H, W]
    let resized = pixels.f_internal_upsample_bilinear2d_aa([extent.height, extent.width], false, None, None)?; // [1, 3, h, w]
    normalise(&resized)?
        .f_constant_pad_nd([0, extent.image_size - extent.width, 0, extent.image_size - extent.height])? // [1, 3, S, S]
        .f_to_kind(KIND)
}

/// To mean 0 and standard deviation 1 over SAM's training images; of what [`preprocess`] gives, the published code's second time, which
/// takes the padding along. [1, 3, H, W] -> [1, 3, H, W]
pub fn normalise(pixels: &Tensor) -> Result<Tensor> {
    let channels = |values: [f32; 3]| Tensor::f_from_slice(&values)?.f_view([1, 3, 1, 1])?.f_to_device(pixels.device());
    pixels.f_sub(&channels(PIXEL_MEAN)?)?.f_div(&channels(PIXEL_STD)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_twice_the_padding_is_no_longer_zero() {
        let image = RgbImage::from_pixel(4, 2, image::Rgb([200, 100, 50]));
        let twice = normalise(&preprocess(&image, &Extent::new(4, 2, 8), Device::Cpu).unwrap()).unwrap();
        let at = |channel, row| twice.double_value(&[0, channel, row, 3]);
        assert!((at(0, 0) - ((200.0 - 123.675) / 58.395 - 123.675) / 58.395).abs() < 1e-5);
        assert!((at(2, 3) - ((50.0 - 103.53) / 57.375 - 103.53) / 57.375).abs() < 1e-5);
        assert!((at(1, 4) - (0.0 - 116.28) / 57.12).abs() < 1e-5, "the padding");
    }
}
