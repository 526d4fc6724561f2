use image::GrayImage;
use request::Upsampling;
use tch::{Kind, TchError, Tensor, no_grad};

use crate::{
    grid::{HALF, SoftMask},
    sam::Extent,
};

/// How far from 0 and 1 rounding alone brings an interpolated 0 or 1.
const ROUNDING: f64 = 1e-5;

/// A mask at the image's own size.
pub struct Upsampled {
    /// 0 or 255. W x H
    pub mask: GrayImage,
    /// With [`Upsampling::Binary`], 255 where the resized binary map is neither 0 nor 1. W x H
    pub undecided: Option<GrayImage>,
}

/// From the padded square [1, 1, 4T, 4T] to the image's own size W x H. Either way the steps are upstream's `Sam.postprocess_masks`: to
/// the square's pixels, without the padding, to the original size, and only then above the threshold.
pub fn to_original_size(mask: &SoftMask, extent: &Extent, upsampling: Upsampling) -> Result<Upsampled, TchError> {
    no_grad(|| match upsampling {
        Upsampling::Soft => {
            let soft = resize(&mask.values, extent, false)?;
            Ok(Upsampled { mask: to_image(&soft.f_gt(mask.threshold)?)?, undecided: None })
        }
        Upsampling::Binary => {
            let binary = mask.values.f_gt(mask.threshold)?.f_to_kind(Kind::Float)?;
            let resized = resize(&binary, extent, true)?;
            let undecided = resized.f_gt(ROUNDING)?.f_logical_and(&resized.f_lt(1.0 - ROUNDING)?)?;
            Ok(Upsampled { mask: to_image(&resized.f_gt(HALF)?)?, undecided: Some(to_image(&undecided)?) })
        }
    })
}

/// [1, 1, 4T, 4T] -> [1, 1, H, W]
fn resize(map: &Tensor, extent: &Extent, align_corners: bool) -> Result<Tensor, TchError> {
    let &Extent { width, height, original_width, original_height, image_size } = extent;
    let square = map.f_upsample_bilinear2d([image_size, image_size], align_corners, None, None)?; // [1, 1, S, S]
    let resized = square.f_narrow(2, 0, height)?.f_narrow(3, 0, width)?; // [1, 1, h, w]
    resized.f_upsample_bilinear2d([original_height, original_width], align_corners, None, None) // [1, 1, H, W]
}

/// A map of what is foreground to a mask, 0 or 255. [1, 1, H, W] -> W x H
pub fn to_image(foreground: &Tensor) -> Result<GrayImage, TchError> {
    let (_, _, height, width) = foreground.size4()?;
    let pixels = foreground.f_to_kind(Kind::Uint8)?.f_mul_scalar(255)?.f_contiguous()?;
    let mut bytes = vec![0; pixels.numel()];
    pixels.f_copy_data_u8(&mut bytes, pixels.numel())?;
    Ok(GrayImage::from_raw(width as u32, height as u32, bytes).expect("one byte a pixel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The left half of a square, softly: 1, 0.7, 0.4, 0 from left to right in each row.
    fn upsampled(upsampling: Upsampling) -> Upsampled {
        let values = Tensor::from_slice(&[1.0_f32, 0.7, 0.4, 0.0].repeat(4)).view([1, 1, 4, 4]);
        to_original_size(&SoftMask { values, threshold: HALF }, &Extent::new(16, 16, 16), upsampling).unwrap()
    }

    fn row(image: &GrayImage) -> String {
        image.rows().nth(7).unwrap().map(|pixel| if pixel.0[0] > 0 { '#' } else { '.' }).collect()
    }

    #[test]
    fn a_soft_map_keeps_where_between_two_cells_the_border_lies() {
        let found = upsampled(Upsampling::Soft);
        assert_eq!(row(&found.mask), "#########.......", "0.5 is two thirds of the way from 0.7 to 0.4");
        assert!(found.undecided.is_none());
    }

    #[test]
    fn a_binary_map_is_undecided_between_its_sides() {
        let found = upsampled(Upsampling::Binary);
        assert_eq!(row(&found.mask), "########........");
        // With corners aligned, cells 1 and 2 lie at pixels 5 and 10.
        assert_eq!(row(&found.undecided.unwrap()), "......####......");
    }
}
