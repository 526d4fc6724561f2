//! The decoder's grid over the padded square: four cells a token's side.

use image::GrayImage;
use request::Padding;
use tch::{Device, TchError, Tensor};

use crate::sam::Extent;

/// A min-max normalised map, and a mask that was resized, is foreground above this.
pub const HALF: f64 = 0.5;

/// A mask before its threshold, over the padded square.
#[derive(Debug)]
pub struct SoftMask {
    /// One number a cell. [1, 1, 4T, 4T]
    pub values: Tensor,
    /// Foreground is what is above it.
    pub threshold: f64,
}

impl SoftMask {
    /// A mask of the image's size on the grid: a cell is what the pixel under its centre is, and the padding is background.
    pub fn of_image(mask: &GrayImage, extent: &Extent, side: i64, device: Device) -> Result<Self, TchError> {
        let pixel = |cell: i64| ((cell as f64 + 0.5) * extent.image_size as f64 / side as f64 / extent.scale()) as u32;
        let value = |row, column| mask.get_pixel_checked(pixel(column), pixel(row)).is_some_and(|pixel| pixel.0[0] > 0);
        let values: Vec<f32> =
            (0..side).flat_map(|row| (0..side).map(move |column| f32::from(u8::from(value(row, column))))).collect();
        Ok(Self { values: Tensor::f_from_slice(&values)?.f_view([1, 1, side, side])?.f_to_device(device)?, threshold: HALF })
    }
}

/// The upper left part of a square map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Cells.
    pub height: i64,
    /// Cells.
    pub width: i64,
}

impl Part {
    /// Every cell of a map of `side` x `side` that has something of the image.
    pub fn of_image(extent: &Extent, side: i64) -> Self {
        let cells = |pixels: i64| (pixels * side + extent.image_size - 1) / extent.image_size;
        Self { height: cells(extent.height), width: cells(extent.width) }
    }

    /// What has a say in the initial mask, the min-max and the loss.
    pub fn that_counts(extent: &Extent, side: i64, padding: Padding) -> Self {
        match padding {
            Padding::Included => Self { height: side, width: side },
            Padding::Excluded => Self::of_image(extent, side),
        }
    }

    /// This part of a map. [.., side, side] -> [.., height, width]
    pub fn of(self, map: &Tensor) -> Result<Tensor, TchError> {
        let whole = map.size().ends_with(&[self.height, self.width]);
        if whole { Ok(map.shallow_clone()) } else { map.f_narrow(-2, 0, self.height)?.f_narrow(-1, 0, self.width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_part_has_every_cell_that_the_image_touches() {
        // 200 x 90 pixels become 64 x 29; a cell of 16 x 16 has 4.
        let extent = Extent::new(200, 90, 64);
        assert_eq!(Part::that_counts(&extent, 16, Padding::Excluded), Part { height: 8, width: 16 });
        assert_eq!(Part::that_counts(&extent, 16, Padding::Included), Part { height: 16, width: 16 });
        let map = Tensor::arange(16 * 16, (tch::Kind::Int64, Device::Cpu)).view([1, 1, 16, 16]);
        let part = Part { height: 8, width: 16 }.of(&map).unwrap();
        assert_eq!((part.size(), part.max().int64_value(&[])), (vec![1, 1, 8, 16], 8 * 16 - 1));
    }

    #[test]
    fn a_mask_of_the_images_size_is_found_again_on_the_grid() {
        let mask = GrayImage::from_fn(100, 50, |x, _| image::Luma([if x < 50 { 255 } else { 0 }]));
        let found = SoftMask::of_image(&mask, &Extent::new(100, 50, 64), 8, Device::Cpu).unwrap();
        let values = Vec::<f32>::try_from(found.values.view([-1])).unwrap();
        let row = |index: usize| values[8 * index..8 * (index + 1)].iter().map(|&value| value as u8).collect::<Vec<_>>();
        assert_eq!([row(0), row(3)], [[1, 1, 1, 1, 0, 0, 0, 0]; 2]);
        assert_eq!(row(4), [0; 8], "the padding");
    }
}
