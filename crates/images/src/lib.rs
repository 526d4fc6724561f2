//! Bytes of an image file to an 8-bit RGB picture, or to labels.
//!
//! PNG, JPEG, TIFF, BMP, NIfTI-1 and DICOM are known by their beginnings, not by names. Whatever the bytes are, the answer is a picture
//! or an [`ImageError`]: sizes are checked in the header, before pixels are decoded. Of what a DICOM or NIfTI file says beside its pixels
//! nothing is kept, logged or put into an error.

mod dicom;
mod errors;
mod flat;
mod frame;
mod labels;
mod limits;
mod nifti;
mod shades;
mod tiffs;

use std::panic::{self, UnwindSafe};

use image::{ImageFormat, RgbImage};
use request::View;
use sha2::{Digest, Sha256};

pub use errors::ImageError;
pub use labels::{LabelMap, decode_labels, label_slices};
pub use limits::{ImageLimits, RATIO_FLOOR};

/// An image as the segmenter takes it.
#[derive(Debug, Clone)]
pub struct DecodedImage {
    /// The pixels, as they are stored: points refer to these.
    pub rgb: RgbImage,
    /// SHA-256 of the file's bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// `png`, `jpeg`, `tiff`, `bmp`, `nifti` or `dicom`.
    pub format: &'static str,
}

/// Decodes an image to 8-bit RGB.
///
/// - PNG, JPEG, TIFF (its first page) and BMP: grey is repeated on three channels; alpha is dropped, without blending. An EXIF orientation
///   is not applied, for points are in pixels of the image as it is stored.
/// - NIfTI: one axial slice, turned by the file's affine so that anterior is up and the patient's right is on the left.
/// - DICOM: one frame, in the units of its modality (for CT, Hounsfield units); MONOCHROME1 is inverted.
/// - [`View::window`] says which values become black and white. Without it 8-bit images stay as they are; 16-bit images use the range
///   from the 0.1 % to the 99.9 % percentile of all channels alike, for such files seldom use their range and a hot pixel must not
///   darken them; DICOM uses the file's first window; all else uses its least and greatest value.
pub fn decode(bytes: &[u8], view: &View, limits: &ImageLimits) -> Result<DecodedImage, ImageError> {
    let format = Format::of(bytes, limits)?;
    if format != Format::Nifti {
        format.without_slices(view.slice)?;
    }
    let rgb = caught(format, || match format {
        Format::Nifti => Ok(nifti::Volume::open(bytes, limits)?.slice(view.slice)?.into_rgb(view.window)),
        Format::Dicom => dicom::decode(bytes, view.window, limits),
        Format::Tiff => tiffs::decode(bytes, view.window, limits),
        Format::Png | Format::Jpeg | Format::Bmp => flat::decode(bytes, format, view.window, limits),
    })?;
    Ok(DecodedImage { rgb, sha256: sha256(bytes), format: format.name() })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Png,
    Jpeg,
    Tiff,
    Bmp,
    Nifti,
    Dicom,
}

impl Format {
    /// By the file's beginning, after a look at its size.
    fn of(bytes: &[u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        limits.check_bytes(bytes)?;
        // These two first: what lies before a DICOM's magic is anything, also the beginning of a TIFF.
        if bytes.get(128..132) == Some(b"DICM") {
            return Ok(Self::Dicom);
        }
        if nifti::is_nifti(bytes) {
            return Ok(Self::Nifti);
        }
        match image::guess_format(bytes) {
            Ok(ImageFormat::Png) => Ok(Self::Png),
            Ok(ImageFormat::Jpeg) => Ok(Self::Jpeg),
            Ok(ImageFormat::Tiff) => Ok(Self::Tiff),
            Ok(ImageFormat::Bmp) => Ok(Self::Bmp),
            Ok(other) => Err(ImageError::UnknownFormat { what: format!("they begin like {}", other.to_mime_type()) }),
            Err(_) => Err(ImageError::UnknownFormat { what: "their beginning is of no known format".into() }),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Tiff => "tiff",
            Self::Bmp => "bmp",
            Self::Nifti => "nifti",
            Self::Dicom => "dicom",
        }
    }

    /// Refuses a slice of a format that has none.
    fn without_slices(self, slice: Option<u32>) -> Result<(), ImageError> {
        slice.map_or(Ok(()), |slice| Err(ImageError::NotAVolume { slice, format: self.name() }))
    }

    fn damaged(self, reason: impl Into<String>) -> ImageError {
        ImageError::Damaged { format: self.name(), reason: reason.into() }
    }

    fn unsupported(self, reason: impl Into<String>) -> ImageError {
        ImageError::Unsupported { format: self.name(), reason: reason.into() }
    }
}

/// The decoders are meant not to panic whatever the bytes, and have done so before.
fn caught<T>(format: Format, decode: impl FnOnce() -> Result<T, ImageError> + UnwindSafe) -> Result<T, ImageError> {
    panic::catch_unwind(decode).unwrap_or_else(|_| Err(format.damaged("its decoder gave up")))
}

/// SHA-256 in lower-case hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
