//! What bytes become an image, and what is said about those that do not.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, Rgba};
use images::{DecodedImage, ImageError, ImageLimits};
use proptest::prelude::*;
use request::{View, Window};
use tiff::{
    encoder::{
        TiffEncoder, TiffValue,
        colortype::{ColorType, Gray8, Gray32, Gray32Float, Gray64Float, GrayI8, GrayI16, GrayI32},
    },
    tags::Tag,
};

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn decode(bytes: &[u8]) -> Result<DecodedImage, ImageError> {
    images::decode(bytes, &View::default(), &ImageLimits::default())
}

fn refusal(bytes: &[u8]) -> String {
    decode(bytes).unwrap_err().to_string()
}

fn colours() -> RgbImage {
    RgbImage::from_fn(16, 8, |x, y| Rgb([(x * 16) as u8, (y * 30) as u8, 77]))
}

/// A PNG whose header says these sizes, without any pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let ihdr = [&b"IHDR"[..], &width.to_be_bytes(), &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for chunk in [ihdr, b"IDAT".to_vec()] {
        bytes.extend((chunk.len() as u32 - 4).to_be_bytes());
        bytes.extend(&chunk);
        bytes.extend(crc32(&chunk).to_be_bytes());
    }
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

/// A little-endian TIFF whose only page says these sizes and has its pixels beyond the file.
fn tiff_header(width: u32, height: u32) -> Vec<u8> {
    // Tag, type (3 short, 4 long), value: width, height, bits, compression, photometric, offset, rows in a strip, bytes of a strip.
    let tags: [(u16, u16, u32); 8] = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 1 << 20),
        (278, 4, height),
        (279, 4, u32::MAX),
    ];
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((tags.len() as u16).to_le_bytes());
    for (tag, kind, value) in tags {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes
}

#[test]
fn reads_colour_and_knows_the_file_by_its_sha256() {
    for (format, name) in [(ImageFormat::Png, "png"), (ImageFormat::Tiff, "tiff")] {
        let bytes = encode(colours(), format);
        let decoded = decode(&bytes).unwrap();
        assert_eq!(decoded.rgb, colours());
        assert_eq!(decoded.format, name);
        assert_eq!(decoded.sha256.len(), 64);
    }
    let jpeg = decode(&encode(colours(), ImageFormat::Jpeg)).unwrap();
    assert_eq!((jpeg.format, jpeg.rgb.dimensions()), ("jpeg", (16, 8)));
}

#[test]
fn repeats_grey_on_three_channels_and_drops_alpha() {
    let grey = GrayImage::from_fn(4, 4, |x, y| Luma([(x * 60 + y) as u8]));
    let expected = DynamicImage::from(grey.clone()).into_rgb8();
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        assert_eq!(decode(&encode(grey.clone(), format)).unwrap().rgb, expected);
    }
    let transparent = ImageBuffer::from_fn(4, 4, |x, _| Rgba([10, 20, 30, (x * 80) as u8]));
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let decoded = decode(&encode(transparent.clone(), format)).unwrap().rgb;
        assert!(decoded.pixels().all(|pixel| *pixel == Rgb([10, 20, 30])));
    }
}

#[test]
fn shows_the_range_a_16_bit_image_uses() {
    // A 12-bit slice with one hot pixel, which must not darken the rest.
    let mut slice = ImageBuffer::from_fn(64, 64, |x, y| Luma([1_000_u16 + (x + 64 * y) as u16 / 4]));
    slice.put_pixel(5, 0, Luma([60_000]));
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let decoded = decode(&encode(slice.clone(), format)).unwrap().rgb;
        assert_eq!(decoded.get_pixel(0, 0), &Rgb([0, 0, 0]));
        assert_eq!(decoded.get_pixel(63, 63), &Rgb([255, 255, 255]));
        assert_eq!(decoded.get_pixel(5, 0), &Rgb([255, 255, 255]));
        let middle = decoded.get_pixel(0, 32).0[0];
        assert!((126..=129).contains(&middle), "{middle}");
    }
}

#[test]
fn a_constant_16_bit_image_becomes_black() {
    let constant = ImageBuffer::from_pixel(9, 9, Luma([700_u16]));
    let decoded = decode(&encode(constant, ImageFormat::Png)).unwrap().rgb;
    assert!(decoded.pixels().all(|pixel| *pixel == Rgb([0, 0, 0])));
}

#[test]
fn one_window_serves_all_channels_of_16_bit_colour() {
    let colour = ImageBuffer::from_fn(40, 40, |x, y| Rgb([(40 * y + x) as u16, 800, 400]));
    let pixel = *decode(&encode(DynamicImage::from(colour), ImageFormat::Png)).unwrap().rgb.get_pixel(39, 39);
    assert_eq!(pixel.0[0], 255);
    assert!(pixel.0[1].abs_diff(127) <= 2 && pixel.0[2].abs_diff(64) <= 2, "{pixel:?}");
}

#[test]
fn refuses_a_header_that_promises_too_many_pixels() {
    for (bytes, format) in [(png_header(100_000, 100_000), "png"), (tiff_header(100_000, 100_000), "tiff")] {
        let error = refusal(&bytes);
        assert_eq!(
            error, "the image is 100000 x 100000 pixels, expected at most 100000000 in all; crop it or scale it down",
            "{format}"
        );
    }
    let limits = ImageLimits { pixels: 127, ..ImageLimits::default() };
    let error = images::decode(&encode(colours(), ImageFormat::Jpeg), &View::default(), &limits).unwrap_err();
    assert_eq!(error, ImageError::TooManyPixels { width: 16, height: 8, limit: 127 });
}

#[test]
fn refuses_too_many_bytes_without_looking_at_them() {
    let limits = ImageLimits { bytes: 10, ..ImageLimits::default() };
    let error = images::decode(&[0; 11], &View::default(), &limits).unwrap_err().to_string();
    assert_eq!(error, "the image has 11 bytes, expected at most 10; crop it or compress it");
}

#[test]
fn says_what_bytes_are_not_an_image() {
    assert_eq!(refusal(b""), "the image is empty (0 bytes); upload it again");
    assert!(
        refusal(b"<Error><Code>NoSuchKey</Code></Error>")
            .contains("no known format; expected PNG, JPEG, TIFF, BMP, NIfTI or DICOM")
    );
    assert!(refusal(b"GIF89a\x01\0\x01\0").contains("image/gif"));
}

#[test]
fn shows_floating_point_colour_between_its_least_and_greatest_value() {
    let floats = ImageBuffer::from_fn(3, 3, |x, _| Rgb([0.25_f32 * x as f32, 0.5, 0.0]));
    let decoded = decode(&encode(DynamicImage::from(floats), ImageFormat::Tiff)).unwrap().rgb;
    assert_eq!(decoded.get_pixel(2, 0), &Rgb([255, 255, 0]));
    assert_eq!(decoded.get_pixel(1, 0), &Rgb([128, 255, 0]));
}

/// A grey TIFF of these samples.
fn tiff_of<C: ColorType<Inner: Clone>>(width: u32, values: &[C::Inner]) -> Vec<u8>
where
    [C::Inner]: TiffValue,
{
    let mut bytes = Cursor::new(Vec::new());
    TiffEncoder::new(&mut bytes).unwrap().write_image::<C>(width, values.len() as u32 / width, values).unwrap();
    bytes.into_inner()
}

#[test]
fn reads_grey_tiffs_of_any_numbers() {
    for bytes in [
        tiff_of::<GrayI8>(3, &[-100, 0, 100]),
        tiff_of::<GrayI16>(3, &[-1_000, 0, 1_000]),
        tiff_of::<GrayI32>(3, &[-100_000, 0, 100_000]),
        tiff_of::<Gray32>(3, &[100_000, 200_000, 300_000]),
        tiff_of::<Gray32Float>(3, &[-0.5, 0.0, 0.5]),
        tiff_of::<Gray64Float>(3, &[-0.5, 0.0, 0.5]),
    ] {
        let decoded = decode(&bytes).unwrap().rgb;
        assert_eq!(decoded.as_raw()[..], [0, 0, 0, 128, 128, 128, 255, 255, 255]);
    }
}

#[test]
fn refuses_pixels_it_would_misread() {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
    let mut image = encoder.new_image::<Gray8>(2, 1).unwrap();
    image.encoder().write_tag(Tag::PhotometricInterpretation, 3_u16).unwrap();
    image.encoder().write_tag(Tag::ColorMap, &[0_u16; 768][..]).unwrap();
    image.write_data(&[7, 0]).unwrap();
    let error = refusal(&bytes.into_inner());
    assert!(error.contains("this tiff cannot be read") && error.contains("Palette") && error.contains("convert it"), "{error}");
}

#[test]
fn reads_a_bmp() {
    let decoded = decode(&encode(colours(), ImageFormat::Bmp)).unwrap();
    assert_eq!((decoded.rgb, decoded.format), (colours(), "bmp"));
    let grey = GrayImage::from_fn(5, 3, |x, y| Luma([(x * 50 + y) as u8]));
    assert_eq!(decode(&encode(grey.clone(), ImageFormat::Bmp)).unwrap().rgb, DynamicImage::from(grey).into_rgb8());
}

#[test]
fn a_window_decides_what_is_black_and_white_in_any_depth() {
    let view = View { window: Some(Window::new(100.0, 100.0).unwrap()), slice: None };
    let shallow = GrayImage::from_raw(3, 1, vec![50, 100, 150]).unwrap();
    let deep = ImageBuffer::<Luma<u16>, _>::from_raw(3, 1, vec![50, 100, 150]).unwrap();
    for bytes in [encode(shallow, ImageFormat::Png), encode(deep, ImageFormat::Png), tiff_of::<GrayI16>(3, &[50, 100, 150])] {
        let decoded = images::decode(&bytes, &view, &ImageLimits::default()).unwrap().rgb;
        assert_eq!(decoded.as_raw()[..], [0, 0, 0, 128, 128, 128, 255, 255, 255]);
    }
}

#[test]
fn refuses_a_slice_of_a_flat_image() {
    let view = View { slice: Some(0), window: None };
    let error = images::decode(&encode(colours(), ImageFormat::Png), &view, &ImageLimits::default()).unwrap_err().to_string();
    assert_eq!(error, "slice 0 is asked of a png, which has no slices; leave slice out");
}

#[test]
fn says_of_a_truncated_image_that_it_is_cut_short() {
    for format in [ImageFormat::Png, ImageFormat::Tiff, ImageFormat::Bmp] {
        let whole = encode(colours(), format);
        for length in [12, 40, whole.len() / 2, whole.len() - 20] {
            let error = refusal(&whole[..length]);
            assert!(
                error.contains("is damaged or cut short") && error.contains("upload it again"),
                "{format:?} at {length}: {error}"
            );
        }
    }
    let error = refusal(&encode(colours(), ImageFormat::Jpeg)[..100]);
    assert!(error.contains("the jpeg is damaged or cut short"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn survives_any_damage_to_an_image(
        format in prop::sample::select(vec![ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Tiff, ImageFormat::Bmp]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(colours(), format);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let limits = ImageLimits { pixels: 1_000_000, ..ImageLimits::default() };
        if let Ok(decoded) = images::decode(&bytes, &View::default(), &limits) {
            prop_assert!(decoded.rgb.width() > 0 && decoded.rgb.height() > 0);
        }
    }
}
