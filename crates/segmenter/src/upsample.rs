use image::GrayImage;
use tch::{Kind, TchError, Tensor, no_grad};

use crate::sam::Extent;

/// A soft map over the padded square to a mask of the image's own size, 0 or 255; upstream's `Sam.postprocess_masks`: to the square's
/// pixels, without the padding, to the original size, and only then above the threshold. [1, 1, 4T, 4T] -> W x H
pub fn to_original_size(map: &Tensor, extent: &Extent, threshold: f64) -> Result<GrayImage, TchError> {
    no_grad(|| {
        let &Extent { width, height, original_width, original_height, image_size } = extent;
        let square = map.f_upsample_bilinear2d([image_size, image_size], false, None, None)?; // [1, 1, S, S]
        let resized = square.f_narrow(2, 0, height)?.f_narrow(3, 0, width)?; // [1, 1, h, w]
        to_image(&resized.f_upsample_bilinear2d([original_height, original_width], false, None, None)?, threshold) // [1, 1, H, W]
    })
}

/// A map [1, 1, H, W] to a mask, 0 or 255.
pub fn to_image(map: &Tensor, threshold: f64) -> Result<GrayImage, TchError> {
    let (_, _, height, width) = map.size4()?;
    let pixels = map.f_gt(threshold)?.f_to_kind(Kind::Uint8)?.f_mul_scalar(255)?.f_contiguous()?;
    let mut bytes = vec![0; pixels.numel()];
    pixels.f_copy_data_u8(&mut bytes, pixels.numel())?;
    Ok(GrayImage::from_raw(width as u32, height as u32, bytes).expect("one byte a pixel"))
}
