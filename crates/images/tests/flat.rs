//! What bytes become an image, and what is said about those that do not.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, Rgba};
use images::{DecodedImage, ImageError, ImageLimits, RATIO_FLOOR};
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
    tiff(width, height, 1, &strips((1, 1 << 20), height, (1, u32::MAX)), &[])
}

/// Where [`tiff`] puts what follows its page's four further tags.
const AFTER_TAGS: u32 = 8 + 2 + 9 * 12 + 4;

/// A tag's number, how many 32-bit numbers it has, and its only one or where they are.
type TiffTag = (u16, u32, u32);

/// Offsets, samples a pixel, rows in a strip, bytes of the strips.
fn strips(offsets: (u32, u32), rows: u32, lengths: (u32, u32)) -> [TiffTag; 4] {
    [(273, offsets.0, offsets.1), (277, 1, 1), (278, 1, rows), (279, lengths.0, lengths.1)]
}

/// A little-endian grey TIFF with these further tags, and bytes after them at [`AFTER_TAGS`].
fn tiff(width: u32, height: u32, compression: u32, further: &[TiffTag; 4], after: &[u8]) -> Vec<u8> {
    let [width, height, depth, compression, photometric] =
        [(256, width), (257, height), (258, 8), (259, compression), (262, 1)].map(|(tag, value)| (tag, 1, value));
    let mut bytes = b"II*\0\x08\0\0\0\x09\0".to_vec();
    for (tag, count, value) in [&[width, height, depth, compression, photometric], &further[..]].concat() {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(4_u16.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend(after);
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
fn counts_decoded_bytes_in_the_depth_of_the_file() {
    let deep = ImageBuffer::from_pixel(16, 8, Luma([700_u16]));
    for (bytes, decoded) in [
        (encode(colours(), ImageFormat::Png), 384),
        (encode(colours(), ImageFormat::Jpeg), 384),
        (encode(colours(), ImageFormat::Bmp), 384),
        (encode(colours(), ImageFormat::Tiff), 384),
        (encode(deep.clone(), ImageFormat::Png), 256),
        (encode(deep, ImageFormat::Tiff), 256),
        (tiff_of::<Gray64Float>(16, &[0.5; 128]), 1_024),
    ] {
        let decode = |decoded_bytes: u64| {
            let limits = ImageLimits { decoded_bytes, ..ImageLimits::default() };
            images::decode(&bytes, &View::default(), &limits)
        };
        let name = decode(decoded).unwrap().format;
        let limit = decoded - 1;
        assert_eq!(decode(limit).unwrap_err(), ImageError::TooManyDecodedBytes { decoded, limit }, "{name}");
    }
}

#[test]
fn refuses_much_out_of_little_only_where_it_is_much() {
    // Three bytes a pixel: the most rows up to 64 MiB, and one more.
    let (most, more) = (png_header(4_096, 5_461), png_header(4_096, 5_462));
    const { assert!(4_096 * 5_461 * 3 <= RATIO_FLOOR && 4_096 * 5_462 * 3 > RATIO_FLOOR) };
    assert!(refusal(&most).contains("cut short"));
    let error = decode(&more).unwrap_err();
    assert_eq!(error, ImageError::TooCompressed { bytes: more.len() as u64, decoded: 4_096 * 5_462 * 3, limit: 1_000 });
}

#[test]
fn refuses_formats_that_can_make_anything_of_nothing_by_their_headers() {
    // A BMP that ends its run-length code at once, which makes all pixels the palette's first.
    let mut bmp = b"BM\0\0\0\0\0\0\0\0\x3e\0\0\0\x28\0\0\0".to_vec();
    bmp.extend([9_000_u32, 9_000].iter().flat_map(|size| size.to_le_bytes()));
    bmp.extend([1, 0, 8, 0, 1, 0, 0, 0]);
    bmp.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    bmp.extend([1, 2, 3, 0, 4, 5, 6, 0, 0, 1]);
    let error = refusal(&bmp);
    assert!(error.contains("the image would take 243000000 bytes decoded out of 64, expected at most 1000 for each"), "{error}");
    assert!(error.ends_with("if it is one, crop it or store it uncompressed"), "{error}");

    // A TIFF whose 9,000 strips are the same 9,000 bytes: offsets, then lengths, then the bytes.
    let (rows, pixels) = (9_000_u32, AFTER_TAGS + 8 * 9_000);
    let after = [pixels, rows].iter().flat_map(|value| value.to_le_bytes().repeat(9_000)).chain([7; 9_000]).collect::<Vec<_>>();
    let bytes = tiff(9_000, 9_000, 1, &strips((rows, AFTER_TAGS), 1, (rows, AFTER_TAGS + 4 * rows)), &after);
    let limits = ImageLimits { decompression_ratio: 900, ..ImageLimits::default() };
    let error = images::decode(&bytes, &View::default(), &limits).unwrap_err();
    assert_eq!(error, ImageError::TooCompressed { bytes: bytes.len() as u64, decoded: 81_000_000, limit: 900 });
    assert_eq!(decode(&bytes).unwrap().rgb.get_pixel(8_999, 8_999), &Rgb([7; 3]), "the file is sound");
}

#[test]
fn refuses_tiles_and_jpegs_in_a_tiff_that_are_larger_than_they_have_to_be() {
    // A tile's width and height, its offset and length.
    let tile = tiff(10, 10, 1, &[(322, 1, 200_000), (323, 1, 200_000), (324, 1, AFTER_TAGS), (325, 1, 100)], &[7; 100]);
    let expected = ImageError::TooManyDecodedBytes { decoded: 40_000_000_000, limit: 4 << 30 };
    assert_eq!(decode(&tile).unwrap_err(), expected);
    let jpeg = |width, height| encode(GrayImage::from_pixel(width, height, Luma([9])), ImageFormat::Jpeg);
    let strip = |jpeg: &[u8]| tiff(16, 8, 7, &strips((1, AFTER_TAGS), 8, (1, jpeg.len() as u32)), jpeg);
    assert_eq!(decode(&strip(&jpeg(16, 8))).unwrap().rgb.dimensions(), (16, 8));
    for larger in [jpeg(16, 17), jpeg(17, 8), b"no jpeg".to_vec()] {
        let error = refusal(&strip(&larger));
        assert!(error.contains("a JPEG in it is larger than the strip or tile it should be"), "{error}");
    }
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
