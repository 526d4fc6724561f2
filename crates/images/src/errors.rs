/// Why bytes are not an image this program takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// No bytes at all.
    #[error("the image is empty (0 bytes); upload it again")]
    Empty,
    /// Above [`ImageLimits::bytes`](crate::ImageLimits::bytes).
    #[error("the image has {bytes} bytes, expected at most {limit}; crop it or compress it")]
    TooManyBytes {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Above [`ImageLimits::pixels`](crate::ImageLimits::pixels).
    #[error("the image is {width} x {height} pixels, expected at most {limit} in all; crop it or scale it down")]
    TooManyPixels {
        /// From the header.
        width: u32,
        /// From the header.
        height: u32,
        /// The limit.
        limit: u64,
    },
    /// Above [`ImageLimits::decoded_bytes`](crate::ImageLimits::decoded_bytes).
    #[error("the image takes {decoded} bytes decoded, expected at most {limit}; crop it or scale it down")]
    TooManyDecodedBytes {
        /// From the header.
        decoded: u64,
        /// The limit.
        limit: u64,
    },
    /// Above [`ImageLimits::decompression_ratio`](crate::ImageLimits::decompression_ratio).
    #[error(
        "the image would take {decoded} bytes decoded out of {bytes}, expected at most {limit} for each; if it is one, crop it or store it \
         uncompressed"
    )]
    TooCompressed {
        /// The file's size.
        bytes: u64,
        /// From the header.
        decoded: u64,
        /// The limit.
        limit: u64,
    },
    /// Bytes of another kind.
    #[error("the bytes are no image: {what}; expected PNG, JPEG, TIFF, BMP, NIfTI or DICOM")]
    UnknownFormat {
        /// What they look like.
        what: String,
    },
    /// An image of a kind that is not read.
    #[error("this {format} cannot be read: {reason}; convert it to 8 or 16 bit grey or RGB")]
    Unsupported {
        /// As in [`DecodedImage::format`](crate::DecodedImage::format).
        format: &'static str,
        /// What is special about it.
        reason: String,
    },
    /// Bytes that begin well and do not hold together.
    #[error("the {format} is damaged or cut short: {reason}; upload it again")]
    Damaged {
        /// As in [`DecodedImage::format`](crate::DecodedImage::format).
        format: &'static str,
        /// What does not hold together.
        reason: String,
    },
    /// A volume, and no word on which slice of it is meant.
    #[error("the image is a volume of {count} axial slices; say which one with slice, from 0 to {}", count - 1)]
    SliceNeeded {
        /// How many it has.
        count: u32,
    },
    /// A slice the volume has not.
    #[error("slice {slice} is outside the volume, expected 0 to {}", count - 1)]
    NoSuchSlice {
        /// What was asked for.
        slice: u32,
        /// How many it has.
        count: u32,
    },
    /// A slice of a flat image.
    #[error("slice {slice} is asked of a {format}, which has no slices; leave slice out")]
    NotAVolume {
        /// What was asked for.
        slice: u32,
        /// As in [`DecodedImage::format`](crate::DecodedImage::format).
        format: &'static str,
    },
    /// Pixels that are no labels.
    #[error("this {format} holds no labels: {reason}; store whole numbers from 0 to 4294967295, one a pixel")]
    NotLabels {
        /// As in [`DecodedImage::format`](crate::DecodedImage::format).
        format: &'static str,
        /// What was found.
        reason: String,
    },
}
