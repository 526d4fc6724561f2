use images::ImageError;

use super::FilesError;

/// Why a data set, or one truth of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file or a listing that could not be had.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Nothing there is laid out as the data set's kind has it.
    #[error("no case of kind {kind} found: expected {expected}; found {found}")]
    Layout {
        /// The data set's kind.
        kind: &'static str,
        /// What the layout should be.
        expected: &'static str,
        /// What is there instead.
        found: String,
    },
    /// A truth whose image is missing.
    #[error("{truth} has no image beside it, expected {image}; is the download complete?")]
    NoImage {
        /// The truth's name.
        truth: String,
        /// The image's name.
        image: String,
    },
    /// Two files that would be the same image or the same truth.
    #[error("{first} and {second} would both be the {role} of one case; take one of them away")]
    Ambiguous {
        /// `image` or `truth`.
        role: &'static str,
        /// A file's name.
        first: String,
        /// Another's.
        second: String,
    },
    /// A truth that cannot be decoded.
    #[error("the truth {file} cannot be read: {reason}")]
    Truth {
        /// Its name.
        file: String,
        /// What is wrong with it. The message has it, so it is no further cause.
        reason: ImageError,
    },
    /// A text file (names of labels, outlines) that does not hold together.
    #[error("{file} cannot be read: {reason}")]
    Text {
        /// Its name.
        file: String,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// A truth of another size than its image.
    #[error("the truth {file} is {width} x {height} pixels, but its image is {image_width} x {image_height}")]
    Size {
        /// The truth's name.
        file: String,
        /// The truth's, in pixels.
        width: u32,
        /// The truth's, in pixels.
        height: u32,
        /// The image's, in pixels.
        image_width: u32,
        /// The image's, in pixels.
        image_height: u32,
    },
    /// Nothing to find on the image.
    #[error("the truth {file} has no foreground: {what}")]
    Empty {
        /// Its name.
        file: String,
        /// What was looked for, and what is there.
        what: String,
    },
}
