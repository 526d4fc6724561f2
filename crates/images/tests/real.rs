//! On real scans, if `DOTMASK_DEV_DATA` says where they are: pictures others made of them must come out.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{env, fs, path::PathBuf};

use images::{ImageLimits, decode, decode_labels, label_slices};
use request::{View, Window};

fn folder(name: &str) -> Option<PathBuf> {
    let folder = env::var_os("DOTMASK_DEV_DATA").map(|data| PathBuf::from(data).join(name));
    if folder.is_none() {
        eprintln!("skipped: DOTMASK_DEV_DATA is not set");
    }
    folder
}

fn soft_tissue(slice: Option<u32>) -> View {
    View { slice, window: Some(Window::new(40.0, 400.0).unwrap()) }
}

/// Others may round down where we round to the nearest.
fn assert_same_picture(ours: &image::RgbImage, theirs: &[u8]) {
    let theirs = image::load_from_memory(theirs).unwrap().into_rgb8();
    assert_eq!(ours.dimensions(), theirs.dimensions());
    let furthest = ours.as_raw().iter().zip(theirs.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(furthest <= Some(1), "{furthest:?}");
}

#[test]
fn a_slice_of_a_nifti_volume_is_the_picture_others_made_of_it() {
    let Some(folder) = folder("totalsegmentator_nifti") else { return };
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let (scan, truth, limits) = (read("example_ct.nii.gz"), read("example_ct_seg.nii.gz"), ImageLimits::default());
    let counts = label_slices(&truth, &limits).unwrap();
    assert_eq!(counts.len(), 112);
    for slice in [70, 88, 100, 108] {
        let name = format!("slice_z{slice:03}");
        let picture = decode(&scan, &soft_tissue(Some(slice)), &limits).unwrap().rgb;
        assert_same_picture(&picture, &read(&format!("{name}.png")));
        let labels = decode_labels(&truth, Some(slice), &limits).unwrap();
        assert_eq!(labels, decode_labels(&read(&format!("{name}_labels.png")), None, &limits).unwrap());
        assert_eq!(labels.counts(), counts[slice as usize]);
    }
}

#[test]
fn a_dicom_slice_is_the_picture_others_made_of_it() {
    let Some(folder) = folder("totalsegmentator_dicom") else { return };
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    for slice in ["01", "07", "13", "18"] {
        let picture = decode(&read(&format!("dicom/CT_{slice}.dcm")), &soft_tissue(None), &ImageLimits::default()).unwrap();
        assert_eq!(picture.format, "dicom");
        assert_same_picture(&picture.rgb, &read(&format!("slice_{slice}.png")));
    }
}

#[test]
fn labels_of_a_dicom_series_lie_on_its_slices() {
    let Some(folder) = folder("totalsegmentator_dicom") else { return };
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let limits = ImageLimits::default();
    for slice in ["01", "07", "13", "18"] {
        let ours = decode_labels(&read("seg.nii.gz"), slice.parse().ok(), &limits).unwrap();
        assert_eq!(ours, decode_labels(&read(&format!("slice_{slice}_labels.png")), None, &limits).unwrap());
    }
}

#[test]
fn survives_damage_to_compressed_frames() {
    let Some(folder) = folder("totalsegmentator_dicom") else { return };
    let whole = fs::read(folder.join("dicom/CT_07.dcm")).unwrap();
    for seed in 0..64_usize {
        let mut bytes = whole.clone();
        for step in 1..20 {
            let place = 4_000 + (seed * 7_919 + step * step * 104_729) % (bytes.len() - 4_000);
            bytes[place] = (seed * 31 + step * 17) as u8;
        }
        if let Ok(picture) = decode(&bytes, &soft_tissue(None), &ImageLimits::default()) {
            assert_eq!(picture.rgb.dimensions(), (512, 512));
        }
    }
}
