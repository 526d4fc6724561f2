//! NIfTI-1 in one file, compressed or not: one slice of a volume, read without keeping the volume.
//!
//! The format is Cox et al., "A (sort of) new image data format standard: NIfTI-1" (2004), and its nifti1.h.

mod header;
mod orientation;

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use header::{HEADER_BYTES, Header, is_header};
use orientation::Layout;

use crate::{ImageError, ImageLimits, shades::Plane};

/// As in [`DecodedImage::format`](crate::DecodedImage::format).
pub const FORMAT: &str = "nifti";

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Whether the bytes are a NIfTI file, compressed or not. Of a gzip, the header alone is decompressed.
pub fn is_nifti(bytes: &[u8]) -> bool {
    let mut start = Vec::new();
    // What is no gzip after all leaves too few bytes.
    let _ = decompressed(bytes).take(HEADER_BYTES as u64).read_to_end(&mut start);
    is_header(&start)
}

/// A volume whose header was read and checked, before its voxels.
pub struct Volume<'a> {
    header: Header,
    layout: Layout,
    voxels: Box<dyn Read + 'a>,
}

impl<'a> Volume<'a> {
    /// Reads the header, and checks it against the limits before any voxel is decompressed.
    pub fn open(bytes: &'a [u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let mut source = decompressed(bytes);
        let mut start = [0; HEADER_BYTES];
        source.read_exact(&mut start).map_err(|error| cut_short(&error))?;
        let header = Header::parse(&start)?;
        let layout = Layout::of(header.sizes, &header.axes)?;
        let [columns, rows, _] = header.sizes;
        // A slice across the file's planes is gathered from whole ones.
        for [width, height] in [layout.picture, [columns, rows]] {
            if u64::from(width) * u64::from(height) > limits.pixels {
                return Err(ImageError::TooManyPixels { width, height, limit: limits.pixels });
            }
        }
        limits.check_decoded(header.data_offset + header.bytes(), bytes)?;
        skip(&mut source, header.data_offset - HEADER_BYTES as u64)?;
        Ok(Self { header, layout, voxels: source })
    }

    /// How many axial slices there are.
    pub fn slice_count(&self) -> u32 {
        self.header.sizes[self.layout.slice_axis]
    }

    /// One axial slice as it is shown, with the file's scaling applied; the only one, if none is named.
    pub fn slice(mut self, slice: Option<u32>) -> Result<Plane, ImageError> {
        let count = self.slice_count();
        let slice = match slice {
            None if count > 1 => return Err(ImageError::SliceNeeded { count }),
            None => 0,
            Some(slice) if slice >= count => return Err(ImageError::NoSuchSlice { slice, count }),
            Some(slice) => slice,
        };
        let [columns, rows, planes] = self.header.sizes.map(|size| size as usize);
        let wanted = slice as usize;
        // In the file's order: the first of the two axes that are left runs fastest.
        let mut values = Vec::new();
        if self.layout.slice_axis == 2 {
            skip(&mut self.voxels, u64::from(slice) * self.header.plane_bytes())?;
            values = self.plane()?;
        } else {
            for _ in 0..planes {
                let plane = self.plane()?;
                match self.layout.slice_axis {
                    0 => values.extend((0..rows).map(|row| plane[row * columns + wanted])),
                    _ => values.extend_from_slice(&plane[wanted * columns..][..columns]),
                }
            }
        }
        let [width, height] = self.layout.picture;
        Ok(Plane { width, height, values: self.layout.turn(&values) })
    }

    /// Calls `visit` with every run of voxels along the first axis that lie in one slice, and with that slice's number.
    pub fn visit(mut self, mut visit: impl FnMut(usize, &[f64]) -> Result<(), ImageError>) -> Result<(), ImageError> {
        let [columns, rows, planes] = self.header.sizes.map(|size| size as usize);
        for z in 0..planes {
            let plane = self.plane()?;
            for y in 0..rows {
                let run = &plane[y * columns..][..columns];
                match self.layout.slice_axis {
                    0 => run.iter().enumerate().try_for_each(|(x, value)| visit(x, std::slice::from_ref(value)))?,
                    1 => visit(y, run)?,
                    _ => visit(z, run)?,
                }
            }
        }
        Ok(())
    }

    /// The next plane of the file's first two axes.
    fn plane(&mut self) -> Result<Vec<f64>, ImageError> {
        let mut bytes = vec![0; self.header.plane_bytes() as usize];
        self.voxels.read_exact(&mut bytes).map_err(|error| cut_short(&error))?;
        Ok(self.header.values(&bytes))
    }
}

fn decompressed<'a>(bytes: &'a [u8]) -> Box<dyn Read + 'a> {
    if bytes.starts_with(&GZIP_MAGIC) { Box::new(MultiGzDecoder::new(bytes)) } else { Box::new(bytes) }
}

fn skip(source: &mut impl Read, bytes: u64) -> Result<(), ImageError> {
    let skipped = io::copy(&mut source.take(bytes), &mut io::sink()).map_err(|error| cut_short(&error))?;
    if skipped < bytes {
        return Err(ImageError::Damaged { format: FORMAT, reason: format!("it ends {} bytes too early", bytes - skipped) });
    }
    Ok(())
}

fn cut_short(error: &io::Error) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason: error.to_string() }
}
