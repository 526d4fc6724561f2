//! Truth files to labels.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeMap, io::Cursor};

use image::{DynamicImage, ExtendedColorType, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, codecs::bmp::BmpEncoder};
use images::{ImageLimits, LabelMap, decode_labels, label_slices};
use tiff::encoder::{TiffEncoder, colortype::Gray32};

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn read(bytes: &[u8]) -> LabelMap {
    decode_labels(bytes, None, &ImageLimits::default()).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    decode_labels(bytes, None, &ImageLimits::default()).unwrap_err().to_string()
}

#[test]
fn reads_labels_of_grey_files_as_they_are_stored() {
    let shallow = GrayImage::from_raw(3, 1, vec![0, 1, 255]).unwrap();
    for format in [ImageFormat::Png, ImageFormat::Tiff, ImageFormat::Bmp] {
        assert_eq!(read(&encode(shallow.clone(), format)).values, [0, 1, 255], "{format:?}");
        let grey_in_colour = DynamicImage::from(shallow.clone()).into_rgb8();
        assert_eq!(read(&encode(grey_in_colour, format)).values, [0, 1, 255], "{format:?}");
    }
    let deep = ImageBuffer::<Luma<u16>, _>::from_raw(3, 1, vec![0, 300, 65_535]).unwrap();
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        assert_eq!(read(&encode(deep.clone(), format)).values, [0, 300, 65_535], "{format:?}");
    }
    let mut deepest = Cursor::new(Vec::new());
    TiffEncoder::new(&mut deepest).unwrap().write_image::<Gray32>(2, 1, &[7, u32::MAX]).unwrap();
    assert_eq!(read(&deepest.into_inner()).values, [7, u32::MAX]);
}

#[test]
fn a_label_in_a_bmp_is_a_place_in_its_palette() {
    let mut bytes = Vec::new();
    let palette = [[0, 0, 0], [200, 0, 0], [0, 200, 0]];
    BmpEncoder::new(&mut bytes).encode_with_palette(&[0, 2, 1, 2], 2, 2, ExtendedColorType::L8, Some(&palette)).unwrap();
    assert_eq!(read(&bytes), LabelMap { width: 2, height: 2, values: vec![0, 2, 1, 2] });
}

#[test]
fn a_mask_is_one_label_or_all_but_the_background() {
    let map = LabelMap { width: 3, height: 2, values: vec![0, 1, 1, 2, 0, 1] };
    assert_eq!(map.mask(Some(1)).as_raw()[..], [0, 255, 255, 0, 0, 255]);
    assert_eq!(map.mask(Some(0)).as_raw()[..], [255, 0, 0, 0, 255, 0]);
    assert_eq!(map.mask(None).as_raw()[..], [0, 255, 255, 255, 0, 255]);
    assert_eq!(map.mask(Some(9)).as_raw()[..], [0; 6]);
    assert_eq!(map.counts(), BTreeMap::from([(0, 2), (1, 3), (2, 1)]));
}

#[test]
fn refuses_files_whose_values_are_no_labels() {
    let colours = RgbImage::from_pixel(2, 2, Rgb([1, 2, 3]));
    assert!(refusal(&encode(colours.clone(), ImageFormat::Png)).contains("this png holds no labels: its pixels are colours"));
    assert!(refusal(&encode(colours, ImageFormat::Jpeg)).contains("its compression changes values"));
    let png = encode(GrayImage::new(2, 2), ImageFormat::Png);
    assert!(decode_labels(&png, Some(0), &ImageLimits::default()).is_err());
    assert!(label_slices(&png, &ImageLimits::default()).unwrap_err().to_string().contains("it is no volume, expected NIfTI"));
    let small = ImageLimits { pixels: 3, ..ImageLimits::default() };
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff] {
        let error = decode_labels(&encode(GrayImage::new(2, 2), format), None, &small).unwrap_err().to_string();
        assert!(error.contains("2 x 2 pixels, expected at most 3"), "{error}");
    }
}
