//! A DICOM file of one frame: uncompressed, RLE, JPEG, JPEG lossless or JPEG 2000.
//!
//! Of the data set, only the elements that describe pixels are looked at. What the libraries say of a file may repeat what stands in it, a
//! patient's name included: their messages are not passed on, and they run without a log.

mod lengths;

use dicom_object::{DefaultDicomObject, FileMetaTable, OpenFileOptions, Tag};
use dicom_pixeldata::{ConvertOptions, DecodedPixelData, PixelDecoder, VoiLutOption};
use image::{RgbImage, imageops::invert};
use lengths::Encoding;
use request::Window;
use tracing::subscriber::{NoSubscriber, with_default};

use crate::{
    Format, ImageError, ImageLimits,
    frame::{self, Header},
    shades::Plane,
};

const SAMPLES_PER_PIXEL: Tag = Tag(0x0028, 0x0002);
const PHOTOMETRIC_INTERPRETATION: Tag = Tag(0x0028, 0x0004);
const NUMBER_OF_FRAMES: Tag = Tag(0x0028, 0x0008);
const ROWS: Tag = Tag(0x0028, 0x0010);
const COLUMNS: Tag = Tag(0x0028, 0x0011);
const BITS_ALLOCATED: Tag = Tag(0x0028, 0x0100);
const WINDOW_CENTER: Tag = Tag(0x0028, 0x1050);
const WINDOW_WIDTH: Tag = Tag(0x0028, 0x1051);

const PLANAR_CONFIGURATION: Tag = Tag(0x0028, 0x0006);
const PIXEL_DATA: Tag = Tag(0x7fe0, 0x0010);

/// Uncompressed in three ways, RLE, JPEG, JPEG lossless, JPEG 2000.
const TRANSFER_SYNTAXES: [&str; 10] = [
    IMPLICIT,
    "1.2.840.10008.1.2.1",
    BIG_ENDIAN,
    RLE,
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
];
const IMPLICIT: &str = "1.2.840.10008.1.2";
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
const RLE: &str = "1.2.840.10008.1.2.5";
/// The transfer syntaxes of JPEG and JPEG 2000, whose decoders make RGB of other colours.
const JPEG_FAMILY: &str = "1.2.840.10008.1.2.4.";

/// To 8-bit RGB.
pub fn decode(bytes: &[u8], window: Option<Window>, limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    with_default(NoSubscriber::default(), || {
        let untrue = || Format::Dicom.damaged("an element is longer than the file");
        let (beginning, elements) = lengths::split(&bytes[132..]).ok_or_else(untrue)?;
        if !lengths::are_true_at_the_beginning(beginning) {
            return Err(untrue());
        }
        let meta =
            FileMetaTable::from_reader(&bytes[128..]).map_err(|_| Format::Dicom.damaged("its beginning cannot be read"))?;
        if !TRANSFER_SYNTAXES.contains(&meta.transfer_syntax()) {
            return Err(Format::Dicom.unsupported("it is compressed in a way other than RLE, JPEG or JPEG 2000"));
        }
        let encoding = match meta.transfer_syntax() {
            IMPLICIT => Encoding::Implicit,
            BIG_ENDIAN => Encoding::ExplicitBig,
            _ => Encoding::Explicit,
        };
        if !lengths::are_true(elements, encoding) {
            return Err(untrue());
        }
        let file = OpenFileOptions::new().from_reader(bytes).map_err(|_| Format::Dicom.damaged("its data set cannot be read"))?;
        let facts = Facts::of(&file, bytes, limits)?;
        let pixels = file.decode_pixel_data().map_err(|_| Format::Dicom.damaged("its pixels cannot be decoded"))?;
        match facts.colours {
            Colours::Rgb { is_planar } => rgb(&facts, pixels.data(), is_planar),
            Colours::Grey { is_inverted } => {
                let mut picture = greys(&facts, &pixels)?.into_rgb(window.or_else(|| own_window(&file)));
                if is_inverted {
                    invert(&mut picture);
                }
                Ok(picture)
            }
        }
    })
}

/// In the units of the modality.
fn greys(facts: &Facts, pixels: &DecodedPixelData) -> Result<Plane, ImageError> {
    let options = ConvertOptions::new().with_voi_lut(VoiLutOption::Identity);
    let values = pixels
        .to_vec_frame_with_options(0, &options)
        .map_err(|_| Format::Dicom.damaged("it has not as many values as pixels"))?;
    if values.len() as u64 != facts.pixels() {
        return Err(Format::Dicom.damaged("it has not as many values as pixels"));
    }
    Ok(Plane { width: facts.width, height: facts.height, values })
}

fn rgb(facts: &Facts, data: &[u8], is_planar: bool) -> Result<RgbImage, ImageError> {
    let channel = facts.pixels() as usize;
    // A frame of an odd number of bytes is followed by one that fills it up.
    let data = data.get(..3 * channel).ok_or_else(|| Format::Dicom.damaged("it has not as many values as pixels"))?;
    let interleaved = if is_planar {
        (0..channel).flat_map(|pixel| [0, 1, 2].map(|c| data[c * channel + pixel])).collect()
    } else {
        data.to_vec()
    };
    Ok(RgbImage::from_raw(facts.width, facts.height, interleaved).expect("three values a pixel"))
}

/// The first window the file has; one that is unusable is as good as none.
fn own_window(file: &DefaultDicomObject) -> Option<Window> {
    let first = |tag: Tag| file.get(tag)?.to_multi_float64().ok()?.first().copied();
    Window::new(first(WINDOW_CENTER)?, first(WINDOW_WIDTH)?).ok()
}

/// What describes the pixels.
struct Facts {
    width: u32,
    height: u32,
    colours: Colours,
}

enum Colours {
    Grey { is_inverted: bool },
    Rgb { is_planar: bool },
}

impl Facts {
    /// Checks all there is to check before pixels are decoded.
    fn of(file: &DefaultDicomObject, bytes: &[u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let number = |tag: Tag| file.get(tag).and_then(|element| element.to_int::<u32>().ok());
        let needed = |tag: Tag, name: &str| number(tag).ok_or_else(|| Format::Dicom.damaged(format!("{name} is missing")));
        let transfer_syntax = file.meta().transfer_syntax();
        let (width, height) = (needed(COLUMNS, "Columns")?, needed(ROWS, "Rows")?);
        limits.check_size(Format::Dicom, width, height)?;
        let frames = number(NUMBER_OF_FRAMES).unwrap_or(1);
        if frames != 1 {
            return Err(Format::Dicom.unsupported(format!("it has {frames} frames, expected one")));
        }
        let bits = needed(BITS_ALLOCATED, "BitsAllocated")?;
        if !matches!(bits, 8 | 16) {
            return Err(Format::Dicom.unsupported(format!("its values have {bits} bits, expected 8 or 16")));
        }
        let is_jpeg = transfer_syntax.starts_with(JPEG_FAMILY);
        let samples = needed(SAMPLES_PER_PIXEL, "SamplesPerPixel")?;
        let photometric = file.get(PHOTOMETRIC_INTERPRETATION).and_then(|element| element.to_str().ok()).unwrap_or_default();
        let colours = match (photometric.trim(), samples) {
            ("MONOCHROME1", 1) => Colours::Grey { is_inverted: true },
            ("MONOCHROME2", 1) => Colours::Grey { is_inverted: false },
            ("RGB", 3) if bits == 8 => {
                let is_planar = !is_jpeg && transfer_syntax != RLE && number(PLANAR_CONFIGURATION) == Some(1);
                Colours::Rgb { is_planar }
            }
            ("YBR_FULL" | "YBR_FULL_422" | "YBR_RCT" | "YBR_ICT", 3) if bits == 8 && is_jpeg => Colours::Rgb { is_planar: false },
            _ => return Err(Format::Dicom.unsupported("its pixels are neither grey nor 8-bit RGB")),
        };
        limits.check_decoded(u64::from(width) * u64::from(height) * u64::from(samples * bits / 8), bytes)?;
        let frame: Vec<u8> = file.get(PIXEL_DATA).and_then(|element| element.fragments()).unwrap_or_default().concat();
        // Its decoders believe the frame's own header.
        if is_jpeg && frame::header(&frame) != Some(Header { width, height, samples }) {
            return Err(Format::Dicom.damaged("its compressed frame is of another size than it says"));
        }
        // RLE's begins with the number of its segments, one for each byte of a pixel: room is made for them.
        if transfer_syntax == RLE && frame.first_chunk().map(|&count| u32::from_le_bytes(count)) != Some(samples * bits / 8) {
            return Err(Format::Dicom.damaged("its compressed frame has another number of segments than a pixel has bytes"));
        }
        Ok(Self { width, height, colours })
    }

    fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}
