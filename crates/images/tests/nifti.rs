//! NIfTI volumes to pictures and labels: numbers of all kinds, orientations, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeMap, io::Write};

use flate2::{Compression, write::GzEncoder};
use images::{DecodedImage, ImageError, ImageLimits, decode, decode_labels, label_slices};
use proptest::prelude::*;
use request::{View, Window};

const IDENTITY: [[f32; 4]; 3] = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];

/// A header whose axes are the patient's, in an order of bytes.
struct Header {
    bytes: Vec<u8>,
    is_big: bool,
}

impl Header {
    fn new(is_big: bool, dimensions: &[i16], code: i16, bits: i16) -> Self {
        let mut header = Self { bytes: vec![0; 352], is_big };
        header.bytes[..4].copy_from_slice(&if is_big { 348_i32.to_be_bytes() } else { 348_i32.to_le_bytes() });
        header.bytes[344..348].copy_from_slice(b"n+1\0");
        header.i16(40, dimensions.len() as i16);
        for (axis, &size) in dimensions.iter().enumerate() {
            header.i16(42 + 2 * axis, size);
        }
        header.i16(70, code).i16(72, bits).f32(108, 352.0);
        header
    }

    fn i16(&mut self, offset: usize, value: i16) -> &mut Self {
        let bytes = if self.is_big { value.to_be_bytes() } else { value.to_le_bytes() };
        self.bytes[offset..offset + 2].copy_from_slice(&bytes);
        self
    }

    fn f32(&mut self, offset: usize, value: f32) -> &mut Self {
        let bytes = if self.is_big { value.to_be_bytes() } else { value.to_le_bytes() };
        self.bytes[offset..offset + 4].copy_from_slice(&bytes);
        self
    }

    fn sform(&mut self, rows: [[f32; 4]; 3]) -> &mut Self {
        self.i16(254, 1);
        for (index, value) in rows.into_iter().flatten().enumerate() {
            self.f32(280 + 4 * index, value);
        }
        self
    }

    fn file(&self, voxels: &[u8]) -> Vec<u8> {
        [&self.bytes, voxels].concat()
    }
}

/// Bytes with these values, whose axes are the patient's.
fn volume(dimensions: &[i16], voxels: &[u8]) -> Vec<u8> {
    Header::new(false, dimensions, 2, 8).file(voxels)
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn show(bytes: &[u8], slice: Option<u32>) -> Result<DecodedImage, ImageError> {
    decode(bytes, &View { slice, window: None }, &ImageLimits::default())
}

fn refusal(bytes: &[u8]) -> String {
    show(bytes, None).unwrap_err().to_string()
}

fn labels(bytes: &[u8], slice: u32) -> Vec<u32> {
    decode_labels(bytes, Some(slice), &ImageLimits::default()).unwrap().values
}

/// The red of every pixel, row by row.
fn reds(image: &DecodedImage) -> Vec<u8> {
    image.rgb.pixels().map(|pixel| pixel.0[0]).collect()
}

#[test]
fn reads_numbers_of_all_kinds_in_both_orders_of_bytes() {
    for is_big in [false, true] {
        macro_rules! check {
            ($code:literal, $kind:ty, [$($value:expr),+]) => {
                let mut voxels = Vec::new();
                for value in [$($value),+] as [$kind; 3] {
                    voxels.extend(if is_big { value.to_be_bytes() } else { value.to_le_bytes() });
                }
                let bits = 8 * size_of::<$kind>() as i16;
                let image = show(&Header::new(is_big, &[3, 1], $code, bits).file(&voxels), None).unwrap();
                assert_eq!((reds(&image), image.format), (vec![255, 128, 0], "nifti"), "{} {is_big}", stringify!($kind));
            };
        }
        check!(2, u8, [0, 100, 200]);
        check!(256, i8, [-100, 0, 100]);
        check!(4, i16, [-1_000, 0, 1_000]);
        check!(512, u16, [0, 30_000, 60_000]);
        check!(8, i32, [-100_000, 0, 100_000]);
        check!(768, u32, [0, 2_000_000_000, 4_000_000_000]);
        check!(1_024, i64, [-1, 0, 1]);
        check!(1_280, u64, [0, 1, 2]);
        check!(16, f32, [-0.5, 0.0, 0.5]);
        check!(64, f64, [-0.5, 0.0, 0.5]);
    }
}

#[test]
fn scales_before_it_windows() {
    let mut header = Header::new(true, &[3, 1, 1], 4, 16);
    header.f32(112, 2.0).f32(116, -1_024.0);
    let voxels: Vec<u8> = [632_i16, 532, 432].iter().flat_map(|value| value.to_be_bytes()).collect();
    let view = View { slice: Some(0), window: Some(Window::new(40.0, 400.0).unwrap()) };
    assert_eq!(reds(&decode(&header.file(&voxels), &view, &ImageLimits::default()).unwrap()), [0, 128, 255]);
    // Without a slope, the intercept means nothing either.
    header.f32(112, 0.0);
    let window = Some(Window::new(532.0, 200.0).unwrap());
    assert_eq!(
        reds(&decode(&header.file(&voxels), &View { slice: None, window }, &ImageLimits::default()).unwrap()),
        [0, 128, 255]
    );
}

#[test]
fn turns_slices_so_that_anterior_is_up_and_the_right_is_on_the_left() {
    // Along x grow 1 2 3 to the right side, along y 0 10 to anterior: the picture begins at the right and anterior end.
    let voxels = [1, 2, 3, 11, 12, 13];
    let flips = |x: f32, y: f32| [[x, 0.0, 0.0, 5.0], [0.0, y, 0.0, -7.0], [0.0, 0.0, 2.0, 9.0]];
    for (x, y, expected) in [
        (0.9, 0.9, [13, 12, 11, 3, 2, 1]),
        (-0.9, 0.9, [11, 12, 13, 1, 2, 3]),
        (0.9, -0.9, [3, 2, 1, 13, 12, 11]),
        (-0.9, -0.9, [1, 2, 3, 11, 12, 13]),
    ] {
        let mut header = Header::new(false, &[3, 2, 1], 2, 8);
        assert_eq!(labels(&header.sform(flips(x, y)).file(&voxels), 0), expected, "{x} {y}");
    }
}

#[test]
fn transposes_where_the_first_axis_runs_front_to_back() {
    // x to posterior, y to the left, a little oblique.
    let affine = [[0.1, -2.0, 0.0, 0.0], [-2.0, 0.1, 0.1, 0.0], [0.0, 0.1, 2.0, 0.0]];
    let mut header = Header::new(false, &[3, 2, 1], 2, 8);
    let map = decode_labels(&header.sform(affine).file(&[1, 2, 3, 11, 12, 13]), None, &ImageLimits::default()).unwrap();
    assert_eq!((map.width, map.height, map.values), (2, 3, vec![1, 11, 2, 12, 3, 13]));
}

#[test]
fn counts_slices_along_the_axis_that_is_the_patients() {
    // As sagittal and coronal scans are stored: the first, then the second axis goes up.
    let voxels: Vec<u8> = (0..24).collect();
    let sagittal = [[0.0, 0.0, -1.0, 0.0], [0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]];
    let mut header = Header::new(false, &[2, 3, 4], 2, 8);
    let file = header.sform(sagittal).file(&voxels);
    assert_eq!(labels(&file, 1), [1, 7, 13, 19, 3, 9, 15, 21, 5, 11, 17, 23]);
    let counts = label_slices(&file, &ImageLimits::default()).unwrap();
    assert_eq!(counts.len(), 2);
    assert_eq!(counts[1], (0..12).map(|value| (2 * value + 1, 1)).collect::<BTreeMap<_, _>>());

    let coronal = [[-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0]];
    let file = header.sform(coronal).file(&voxels);
    assert_eq!(labels(&file, 2), [4, 5, 10, 11, 16, 17, 22, 23]);
    assert_eq!(
        label_slices(&file, &ImageLimits::default()).unwrap()[2].keys().copied().collect::<Vec<_>>(),
        [4, 5, 10, 11, 16, 17, 22, 23]
    );
}

#[test]
fn turns_by_the_qform_where_there_is_no_sform() {
    let mut header = Header::new(true, &[3, 2, 1], 2, 8);
    for offset in [76, 80, 84, 88] {
        header.f32(offset, 1.0);
    }
    // Half a turn about the patient's long axis: the quaternion (0, 0, 0, 1).
    header.i16(252, 1).f32(264, 1.0);
    assert_eq!(labels(&header.file(&[1, 2, 3, 11, 12, 13]), 0), [1, 2, 3, 11, 12, 13]);
    // An sform outranks it.
    assert_eq!(labels(&header.sform(IDENTITY).file(&[1, 2, 3, 11, 12, 13]), 0), [13, 12, 11, 3, 2, 1]);
}

#[test]
fn a_compressed_volume_is_the_volume() {
    let whole = volume(&[2, 2, 3, 1], &(0..12).collect::<Vec<u8>>());
    for slice in 0..3 {
        assert_eq!(labels(&gzipped(&whole), slice), labels(&whole, slice));
    }
    assert_eq!(labels(&whole, 1), [7, 6, 5, 4]);
}

#[test]
fn says_which_slices_there_are() {
    let whole = volume(&[2, 2, 3], &[0; 12]);
    assert_eq!(refusal(&whole), "the image is a volume of 3 axial slices; say which one with slice, from 0 to 2");
    assert_eq!(show(&whole, Some(3)).unwrap_err().to_string(), "slice 3 is outside the volume, expected 0 to 2");
    assert!(show(&whole, Some(2)).is_ok());
}

#[test]
fn refuses_what_is_no_single_volume_of_numbers() {
    let refused = |dimensions: &[i16], code| refusal(&Header::new(false, dimensions, code, 8).file(&[0; 64]));
    assert!(refused(&[2, 2, 2, 5], 2).contains("it holds 5 volumes, expected one"));
    assert!(refused(&[2, 2, 2], 128).contains("its voxels are colours"));
    assert!(refused(&[2, 2, 2], 1).contains("its voxels are of type 1"));
    assert!(refused(&[2, -2, 2], 2).contains("a dimension has -2 voxels"));
    let mut pair = volume(&[2, 2], &[0; 4]);
    pair[345] = b'i';
    assert!(refusal(&pair).contains("its voxels are in another file"));
    let mut second = vec![0; 540];
    second[..8].copy_from_slice(b"\x1c\x02\0\0n+2\0");
    assert!(refusal(&second).contains("it is NIfTI-2"));
    let mut nowhere = Header::new(false, &[2, 2], 2, 8);
    assert!(refusal(&nowhere.sform([[0.0; 4]; 3]).file(&[0; 4])).contains("points nowhere"));
}

#[test]
fn refuses_a_bomb_by_its_header() {
    // A few megabytes that would become gigabytes; the header promises them, so nothing of them is decompressed.
    let bomb = gzipped(&Header::new(false, &[32_767, 32_767, 1], 2, 8).file(&vec![0; 8 << 20]));
    assert!(bomb.len() < 1 << 20);
    assert_eq!(refusal(&bomb), "the image is 32767 x 32767 pixels, expected at most 100000000 in all; crop it or scale it down");
    // Its slices are narrow, the planes they are gathered from are not.
    let sagittal = [[0.0, 0.0, -1.0, 0.0], [0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]];
    let narrow = Header::new(false, &[20_000, 20_000, 2], 64, 64).sform(sagittal).file(&[]);
    assert!(refusal(&narrow).contains("the image is 20000 x 20000 pixels"));
    let long = gzipped(&Header::new(false, &[1_000, 1_000, 30_000], 2, 8).file(&[]));
    assert!(refusal(&long).contains("the image takes 30000000352 bytes decoded, expected at most 4294967296"));
    let short = gzipped(&Header::new(false, &[1_000, 1_000, 100], 2, 8).file(&[]));
    let expected = format!("the image would take 100000352 bytes decoded out of {}, expected at most 1000 for each", short.len());
    assert!(refusal(&short).contains(&expected), "{}", refusal(&short));
    let mut late = Header::new(false, &[2, 2], 2, 8);
    assert!(refusal(&gzipped(&late.f32(108, 1e12).file(&[0; 4]))).contains("its voxels begin at byte 1000000000000"));
}

#[test]
fn counts_all_of_a_volume_against_the_limit_on_decoded_bytes() {
    let file = Header::new(false, &[4, 4, 4], 4, 16).file(&[0; 128]);
    let shown = |decoded_bytes: u64| {
        let limits = ImageLimits { decoded_bytes, ..ImageLimits::default() };
        decode(&gzipped(&file), &View { slice: Some(0), window: None }, &limits)
    };
    assert!(shown(352 + 128).is_ok());
    assert_eq!(shown(352 + 127).unwrap_err(), ImageError::TooManyDecodedBytes { decoded: 480, limit: 479 });
}

#[test]
fn counts_a_volume_of_labels_and_refuses_one_of_numbers_that_are_none() {
    let numbers = |different: u32| -> Vec<u8> {
        let voxels: Vec<u8> = (0..1_100_000_u32).flat_map(|voxel| (voxel % different).to_le_bytes()).collect();
        Header::new(false, &[1_000, 1_100], 768, 32).file(&voxels)
    };
    let limits = ImageLimits::default();
    assert_eq!(label_slices(&numbers(1 << 20), &limits).unwrap()[0].len(), 1 << 20);
    let error = label_slices(&numbers((1 << 20) + 1), &limits).unwrap_err().to_string();
    assert!(error.contains("its slices have more than 1048576 labels together"), "{error}");
}

#[test]
fn says_of_a_truncated_volume_that_it_is_cut_short() {
    let whole = volume(&[20, 20, 3], &(0..=255).cycle().take(1_200).collect::<Vec<u8>>());
    for bytes in [whole.clone(), gzipped(&whole)] {
        for length in [bytes.len() - 20, bytes.len() * 2 / 3] {
            let error = show(&bytes[..length], Some(2)).unwrap_err().to_string();
            assert!(error.contains("the nifti is damaged or cut short"), "{error}");
        }
    }
}

#[test]
fn refuses_labels_that_are_no_whole_numbers() {
    let limits = ImageLimits::default();
    for value in [0.5_f32, -1.0, f32::NAN, 1e10] {
        let file = Header::new(false, &[1, 1], 16, 32).file(&value.to_le_bytes());
        let error = decode_labels(&file, None, &limits).unwrap_err().to_string();
        assert!(error.contains("this nifti holds no labels: one of its values is"), "{error}");
        assert!(label_slices(&file, &limits).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn survives_any_damage_to_a_volume(
        is_compressed: bool,
        damage in prop::collection::vec((0..420_usize, any::<u8>()), 1..8),
    ) {
        let mut header = Header::new(false, &[4, 4, 4], 2, 8);
        let mut bytes = header.sform(IDENTITY).file(&[9; 64]);
        for (place, byte) in damage {
            if let Some(place) = bytes.get_mut(place) {
                *place = byte;
            }
        }
        let bytes = if is_compressed { gzipped(&bytes) } else { bytes };
        let limits = ImageLimits { pixels: 1_000_000, decoded_bytes: 1_000_000, ..ImageLimits::default() };
        if let Ok(decoded) = decode(&bytes, &View { slice: Some(1), window: None }, &limits) {
            prop_assert!(decoded.rgb.width() > 0 && decoded.rgb.height() > 0);
        }
    }
}
