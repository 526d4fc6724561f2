//! What an image and a truth may cost, for all commands that read them.

use clap::{Args, value_parser};
use images::ImageLimits;

/// Checked before the cost is paid: all but the first by the file's header.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits on an image and on a truth")]
pub struct LimitArgs {
    /// The file's size, in bytes.
    #[arg(long = "max-image-bytes", env = "DOTMASK_MAX_IMAGE_BYTES", default_value_t = ImageLimits::default().bytes, value_name = "BYTES", value_parser = value_parser!(u64).range(1..))]
    image_bytes: u64,
    /// Width times height, of a volume of one slice, in pixels.
    #[arg(long = "max-image-pixels", env = "DOTMASK_MAX_IMAGE_PIXELS", default_value_t = ImageLimits::default().pixels, value_name = "PIXELS", value_parser = value_parser!(u64).range(1..))]
    image_pixels: u64,
    /// All pixels in the file's own depth, of a volume of all slices, in bytes.
    #[arg(long = "max-decoded-bytes", env = "DOTMASK_MAX_DECODED_BYTES", default_value_t = ImageLimits::default().decoded_bytes, value_name = "BYTES", value_parser = value_parser!(u64).range(1..))]
    decoded_bytes: u64,
    /// Decoded bytes a byte of the file, of what is larger than 64 MiB decoded.
    #[arg(long = "max-decompression-ratio", env = "DOTMASK_MAX_DECOMPRESSION_RATIO", default_value_t = ImageLimits::default().decompression_ratio, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    decompression_ratio: u64,
}

impl LimitArgs {
    /// As they are checked.
    pub fn limits(&self) -> ImageLimits {
        ImageLimits {
            bytes: self.image_bytes,
            pixels: self.image_pixels,
            decoded_bytes: self.decoded_bytes,
            decompression_ratio: self.decompression_ratio,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        limits: LimitArgs,
    }

    #[test]
    fn each_flag_is_its_own_limit() {
        let flags = ["bytes=1", "pixels=2"].map(|flag| format!("--max-image-{flag}"));
        let flags = [&flags[0], &flags[1], "--max-decoded-bytes=3", "--max-decompression-ratio=4"];
        let limits =
            |flags: &[&str]| Command::try_parse_from([&["worker"], flags].concat()).map(|command| command.limits.limits());
        let expected = ImageLimits { bytes: 1, pixels: 2, decoded_bytes: 3, decompression_ratio: 4 };
        assert_eq!(limits(&flags).expect("valid"), expected);
        assert!(limits(&["--max-decompression-ratio=0"]).is_err(), "no limit is 0");
    }
}
