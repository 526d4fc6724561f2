use std::io::Write as _;

use evaluation::datasets::{Case, truth};
use flate2::{Compression, write::GzEncoder};
use images::{ImageLimits, decode, decode_labels, label_slices};
use request::{View, Window};

/// Small, so that small inputs reach beyond them.
const LIMITS: ImageLimits = ImageLimits { bytes: 64 << 10, pixels: 4_096, decoded_bytes: 64 << 10, decompression_ratio: 1_000 };

/// An image of any format, in all the ways in which it is read.
pub fn picture(bytes: &[u8]) {
    read(bytes);
    // Without their sums of bytes, damaged files are refused before they are read.
    if let Some(mended) = with_true_sums(bytes) {
        read(&mended);
    }
    if matches!(bytes, [0x5c, 1, 0, 0, ..] | [0, 0, 1, 0x5c, ..]) {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
        read(&encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes all"));
    }
}

fn read(bytes: &[u8]) {
    let windowed = View { slice: Some(0), window: Window::new(40.0, 400.0).ok() };
    for view in [View::default(), View { slice: None, ..windowed }, windowed] {
        match decode(bytes, &view, &LIMITS) {
            Ok(image) => {
                let (width, height) = image.rgb.dimensions();
                assert!(width > 0 && height > 0 && u64::from(width) * u64::from(height) <= LIMITS.pixels);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    for slice in [None, Some(1)] {
        if let Ok(map) = decode_labels(bytes, slice, &LIMITS) {
            assert_eq!(map.values.len() as u64, u64::from(map.width) * u64::from(map.height));
            assert!(map.values.len() as u64 <= LIMITS.pixels);
            let _ = (map.mask(Some(1)), map.counts());
        }
    }
    if let Ok(slices) = label_slices(bytes, &LIMITS) {
        let voxels: u64 = slices.iter().flat_map(|counts| counts.values()).sum();
        assert!(voxels <= LIMITS.decoded_bytes);
    }
}

/// A PNG with its chunks' CRCs put right.
fn with_true_sums(bytes: &[u8]) -> Option<Vec<u8>> {
    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
    let mut rest = bytes.strip_prefix(SIGNATURE)?;
    let mut mended = SIGNATURE.to_vec();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        let (Some(named), Some(next)) = (after.get(..length.checked_add(4)?), after.get(length.checked_add(8)?..)) else { break };
        let mut sum = flate2::Crc::new();
        sum.update(named);
        mended.extend([&(length as u32).to_be_bytes(), named, &sum.sum().to_be_bytes()].concat());
        rest = next;
    }
    mended.extend(rest);
    Some(mended)
}

/// What the decoders may keep beside their input: [`ImageLimits`] has 16 bytes a pixel and 64 MiB. The tags of a TIFF may take 256 MiB,
/// whatever the limits, and are read twice for a moment; what begins like one is one to every target.
pub fn limit(bytes: &[u8]) -> usize {
    let of_tags = if bytes.starts_with(b"II") || bytes.starts_with(b"MM") { 512 << 20 } else { 0 };
    of_tags + (64 << 20) + 64 * LIMITS.pixels as usize + 16 * bytes.len()
}

/// A truth as outlines.
pub fn outlines(bytes: &[u8]) {
    let case = Case {
        id: "a".into(),
        group: "MoNuSeg".into(),
        image: "a.tif".into(),
        truth: "a.xml".into(),
        label: None,
        view: View::default(),
    };
    if let Ok(mask) = truth(bytes, "a.xml", &case, (64, 48), &LIMITS) {
        assert_eq!(mask.dimensions(), (64, 48));
    }
}

/// A node takes some 100 bytes, and four of the text.
pub fn outlines_limit(bytes: &[u8]) -> usize {
    64 * bytes.len() + (64 << 10)
}
