use crate::{Format, ImageError};

/// Below this no ratio is asked for, in bytes: an empty truth of a few megapixels compresses to next to nothing, and costs next to nothing.
pub const RATIO_FLOOR: u64 = 64 << 20;

/// What an image may cost; all are checked before it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// The file's size, in bytes.
    pub bytes: u64,
    /// Width times height, in pixels, read from the header; of a volume, of one slice.
    pub pixels: u64,
    /// The pixels in the depth in which the file has them, in bytes; of a volume all of them, which are decompressed up to the slice that is
    /// wanted and never kept.
    pub decoded_bytes: u64,
    /// Decoded bytes for each byte of the file, where there are more than [`RATIO_FLOOR`] of them.
    pub decompression_ratio: u64,
}

impl Default for ImageLimits {
    /// 256 MiB, 100 megapixels (a 10,000 x 10,000 image takes 300 MB decoded), 4 GiB (as much as 8,000 slices of CT) and 1,000, which is just
    /// below what deflate can do at all: a volume of labels that is all but empty comes to 800.
    fn default() -> Self {
        Self { bytes: 256 << 20, pixels: 100_000_000, decoded_bytes: 4 << 30, decompression_ratio: 1_000 }
    }
}

impl ImageLimits {
    /// Refuses a file that is too long.
    pub(crate) fn check_bytes(&self, bytes: &[u8]) -> Result<(), ImageError> {
        let (bytes, limit) = (bytes.len() as u64, self.bytes);
        if bytes > limit { Err(ImageError::TooManyBytes { bytes, limit }) } else { Ok(()) }
    }

    /// Refuses a picture of no pixels, or of too many.
    pub(crate) fn check_size(&self, format: Format, width: u32, height: u32) -> Result<(), ImageError> {
        if u64::from(width) * u64::from(height) > self.pixels {
            return Err(ImageError::TooManyPixels { width, height, limit: self.pixels });
        }
        if width == 0 || height == 0 {
            return Err(format.damaged(format!("its header says {width} x {height} pixels")));
        }
        Ok(())
    }

    /// Refuses what `file` would become, if that is too much, or too much for a file of its length.
    pub(crate) fn check_decoded(&self, decoded: u64, file: &[u8]) -> Result<(), ImageError> {
        if decoded > self.decoded_bytes {
            return Err(ImageError::TooManyDecodedBytes { decoded, limit: self.decoded_bytes });
        }
        let (bytes, limit) = (file.len() as u64, self.decompression_ratio);
        if decoded > RATIO_FLOOR && decoded > bytes.saturating_mul(limit) {
            return Err(ImageError::TooCompressed { bytes, decoded, limit });
        }
        Ok(())
    }
}
