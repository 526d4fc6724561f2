//! DICOM files to pictures, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test")]

use images::{DecodedImage, ImageError, ImageLimits, decode};
use proptest::prelude::*;
use request::{View, Window};

const UNCOMPRESSED: &str = "1.2.840.10008.1.2.1";

/// The elements of a data set, each with its group, number, type and value; written in ascending order.
type Elements = Vec<(u16, u16, &'static str, Vec<u8>)>;

fn element(group: u16, number: u16, kind: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = [group.to_le_bytes(), number.to_le_bytes()].concat();
    let mut value = value.to_vec();
    if !value.len().is_multiple_of(2) {
        value.push(if kind == "UI" { 0 } else { b' ' });
    }
    bytes.extend(kind.as_bytes());
    if matches!(kind, "OB" | "OW") {
        bytes.extend([0, 0]);
        bytes.extend((value.len() as u32).to_le_bytes());
    } else {
        bytes.extend((value.len() as u16).to_le_bytes());
    }
    bytes.extend(value);
    bytes
}

fn file(transfer_syntax: &str, mut elements: Elements) -> Vec<u8> {
    elements.push((0x0010, 0x0010, "PN", b"Doe^Jane".to_vec()));
    elements.sort_by_key(|&(group, number, ..)| (group, number));
    let meta = [
        element(2, 1, "OB", &[0, 1]),
        element(2, 2, "UI", b"1.2.840.10008.5.1.4.1.1.7"),
        element(2, 3, "UI", b"1.2.3"),
        element(2, 0x10, "UI", transfer_syntax.as_bytes()),
        element(2, 0x12, "UI", b"1.2.3.4"),
    ]
    .concat();
    let mut bytes = [&[0; 128][..], b"DICM"].concat();
    bytes.extend(element(2, 0, "UL", &(meta.len() as u32).to_le_bytes()));
    bytes.extend(meta);
    for (group, number, kind, value) in elements {
        bytes.extend(element(group, number, kind, &value));
    }
    bytes
}

fn number(value: u16) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

/// Signed 16-bit grey, three pixels wide.
fn grey(photometric: &str, values: &[i16]) -> Elements {
    vec![
        (0x28, 0x02, "US", number(1)),
        (0x28, 0x04, "CS", photometric.into()),
        (0x28, 0x10, "US", number(values.len() as u16 / 3)),
        (0x28, 0x11, "US", number(3)),
        (0x28, 0x100, "US", number(16)),
        (0x28, 0x101, "US", number(16)),
        (0x28, 0x102, "US", number(15)),
        (0x28, 0x103, "US", number(1)),
        (0x7fe0, 0x10, "OW", values.iter().flat_map(|value| value.to_le_bytes()).collect()),
    ]
}

fn colour(planar: u16, values: &[u8]) -> Elements {
    vec![
        (0x28, 0x02, "US", number(3)),
        (0x28, 0x04, "CS", b"RGB".to_vec()),
        (0x28, 0x06, "US", number(planar)),
        (0x28, 0x10, "US", number(1)),
        (0x28, 0x11, "US", number(values.len() as u16 / 3)),
        (0x28, 0x100, "US", number(8)),
        (0x28, 0x101, "US", number(8)),
        (0x28, 0x102, "US", number(7)),
        (0x28, 0x103, "US", number(0)),
        (0x7fe0, 0x10, "OW", values.to_vec()),
    ]
}

fn show(elements: Elements, window: Option<Window>) -> Result<DecodedImage, ImageError> {
    decode(&file(UNCOMPRESSED, elements), &View { slice: None, window }, &ImageLimits::default())
}

fn reds(elements: Elements, window: Option<Window>) -> Vec<u8> {
    show(elements, window).unwrap().rgb.pixels().map(|pixel| pixel.0[0]).collect()
}

fn refusal(elements: Elements) -> String {
    show(elements, None).unwrap_err().to_string()
}

#[test]
fn shows_signed_values_between_the_least_and_the_greatest() {
    let image = show(grey("MONOCHROME2", &[-1_000, 0, 1_000, -1_000, -1_000, 1_000]), None).unwrap();
    assert_eq!((image.format, image.rgb.dimensions()), ("dicom", (3, 2)));
    assert_eq!(image.rgb.pixels().map(|pixel| pixel.0[2]).collect::<Vec<_>>(), [0, 128, 255, 0, 0, 255]);
}

#[test]
fn inverts_monochrome1() {
    assert_eq!(reds(grey("MONOCHROME1", &[-1_000, 0, 1_000]), None), [255, 127, 0]);
}

#[test]
fn windows_are_in_the_units_of_the_modality_and_the_asked_for_one_comes_first() {
    // Hounsfield units are twice these numbers less 1024: -160, 40 and 240.
    let mut elements = grey("MONOCHROME2", &[432, 532, 632]);
    elements.push((0x28, 0x1053, "DS", b"2".to_vec()));
    elements.push((0x28, 0x1052, "DS", b"-1024".to_vec()));
    assert_eq!(reds(elements.clone(), Window::new(40.0, 400.0).ok()), [0, 128, 255]);
    assert_eq!(reds(elements.clone(), Window::new(40.0, 800.0).ok()), [64, 128, 191]);
    // The first of the file's own two windows.
    elements.push((0x28, 0x1050, "DS", b"40\\700".to_vec()));
    elements.push((0x28, 0x1051, "DS", b"800\\10".to_vec()));
    assert_eq!(reds(elements.clone(), None), [64, 128, 191]);
    assert_eq!(reds(elements, Window::new(40.0, 400.0).ok()), [0, 128, 255]);
}

#[test]
fn passes_colour_on_however_it_lies() {
    let expected = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    assert_eq!(show(colour(0, &[1, 2, 3, 4, 5, 6, 7, 8, 9]), None).unwrap().rgb.as_raw()[..], expected);
    assert_eq!(show(colour(1, &[1, 4, 7, 2, 5, 8, 3, 6, 9]), None).unwrap().rgb.as_raw()[..], expected);
}

#[test]
fn refuses_what_it_would_misread() {
    let mut frames = grey("MONOCHROME2", &[1, 2, 3, 4, 5, 6]);
    frames.push((0x28, 0x08, "IS", b"2".to_vec()));
    assert!(refusal(frames).contains("it has 2 frames, expected one"));
    assert!(refusal(grey("PALETTE COLOR", &[1, 2, 3])).contains("its pixels are neither grey nor 8-bit RGB"));
    assert!(refusal(grey("MONOCHROME2", &[1, 2, 3])[..8].to_vec()).contains("damaged or cut short"));
    let mut tall = grey("MONOCHROME2", &[1, 2, 3]);
    tall[2].3 = number(2);
    assert!(refusal(tall).contains("damaged or cut short"));
    let unknown =
        decode(&file("1.2.840.10008.1.2.4.80", grey("MONOCHROME2", &[1, 2, 3])), &View::default(), &ImageLimits::default());
    assert!(unknown.unwrap_err().to_string().contains("a way other than RLE, JPEG or JPEG 2000"));
    let deflated = decode(&file("1.2.840.10008.1.2.1.99", vec![]), &View::default(), &ImageLimits::default());
    assert!(deflated.unwrap_err().to_string().contains("a way other than RLE, JPEG or JPEG 2000"));
    let sliced = decode(
        &file(UNCOMPRESSED, grey("MONOCHROME2", &[1, 2, 3])),
        &View { slice: Some(0), window: None },
        &ImageLimits::default(),
    );
    assert!(sliced.unwrap_err().to_string().contains("which has no slices"));
}

#[test]
fn refuses_too_many_pixels_by_the_header() {
    let mut elements = grey("MONOCHROME2", &[1, 2, 3]);
    elements[2].3 = number(60_000);
    elements[3].3 = number(60_000);
    assert!(refusal(elements).contains("the image is 60000 x 60000 pixels, expected at most 100000000"));
}

#[test]
fn refuses_what_would_be_too_large_or_come_of_too_little_by_the_header() {
    let bytes = file(UNCOMPRESSED, grey("MONOCHROME2", &[1, 2, 3]));
    let shown = |decoded_bytes: u64| {
        let limits = ImageLimits { decoded_bytes, ..ImageLimits::default() };
        decode(&bytes, &View::default(), &limits)
    };
    assert!(shown(6).is_ok());
    assert_eq!(shown(5).unwrap_err(), ImageError::TooManyDecodedBytes { decoded: 6, limit: 5 });
    // RLE and JPEG 2000 can say a great deal in a few bytes.
    for transfer_syntax in ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"] {
        let mut elements = grey("MONOCHROME2", &[1, 2, 3]);
        elements[2].3 = number(9_000);
        elements[3].3 = number(9_000);
        let bytes = file(transfer_syntax, elements);
        let error = decode(&bytes, &View::default(), &ImageLimits::default()).unwrap_err();
        assert_eq!(error, ImageError::TooCompressed { bytes: bytes.len() as u64, decoded: 162_000_000, limit: 1_000 });
    }
}

#[test]
fn errors_do_not_repeat_what_stands_in_the_file() {
    let whole = file(UNCOMPRESSED, grey("Doe^Jane", &[1, 2, 3]));
    for length in 132..=whole.len() {
        if let Err(error) = decode(&whole[..length], &View::default(), &ImageLimits::default()) {
            assert!(!format!("{error} {error:?}").contains("Doe"), "{error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn survives_any_damage_to_a_file(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = file(UNCOMPRESSED, grey("MONOCHROME2", &[1, 2, 3]));
        for (place, byte) in damage {
            let place = 132 + place.index(bytes.len() - 132);
            bytes[place] = byte;
        }
        let limits = ImageLimits { pixels: 1_000_000, ..ImageLimits::default() };
        if let Ok(decoded) = decode(&bytes, &View::default(), &limits) {
            prop_assert!(decoded.rgb.width() > 0 && decoded.rgb.height() > 0);
        }
    }
}
