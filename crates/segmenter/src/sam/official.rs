//! The sizes SAM was published in.

use std::{fmt, str::FromStr};

use super::Architecture;

/// A published size, by the name of its image encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfficialSize {
    /// 94 M parameters in all.
    VitB,
    /// 312 M.
    VitL,
    /// 641 M.
    VitH,
}

impl FromStr for OfficialSize {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "vit_b" => Ok(Self::VitB),
            "vit_l" => Ok(Self::VitL),
            "vit_h" => Ok(Self::VitH),
            other => Err(format!("{other:?} is no size of SAM, expected vit_b, vit_l or vit_h")),
        }
    }
}

impl fmt::Display for OfficialSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::VitB => "vit_b",
            Self::VitL => "vit_l",
            Self::VitH => "vit_h",
        })
    }
}

impl From<OfficialSize> for Architecture {
    /// As in upstream's `build_sam.py`.
    fn from(size: OfficialSize) -> Self {
        let (dim, depth, heads, global): (i64, usize, i64, [usize; 4]) = match size {
            OfficialSize::VitB => (768, 12, 12, [2, 5, 8, 11]),
            OfficialSize::VitL => (1024, 24, 16, [5, 11, 17, 23]),
            OfficialSize::VitH => (1280, 32, 16, [7, 15, 23, 31]),
        };
        Self {
            image_size: 1024,
            patch: 16,
            grid: 64,
            dim,
            heads,
            mlp: 4 * dim,
            windows: (0..depth).map(|block| if global.contains(&block) { None } else { Some(14) }).collect(),
            embedding: 256,
            mask_in_chans: 16,
            decoder_depth: 2,
            decoder_mlp: 2048,
            decoder_inner: 128,
            mask_tokens: 4,
            iou_head_depth: 3,
            iou_head_hidden: 256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_published_numbers_of_parameters() {
        for (name, millions) in [("vit_b", "89.7"), ("vit_l", "308.3"), ("vit_h", "637.0")] {
            let size: OfficialSize = name.parse().unwrap();
            assert_eq!(size.to_string(), name);
            let shapes = Architecture::from(size).expected();
            let encoder = shapes.iter().filter(|(name, _)| name.starts_with("image_encoder."));
            let parameters: i64 = encoder.map(|(_, shape)| shape.iter().product::<i64>()).sum();
            assert_eq!(format!("{:.1}", parameters as f64 / 1e6), millions, "{name}");
        }
        assert!("vit_x".parse::<OfficialSize>().unwrap_err().contains("expected vit_b, vit_l or vit_h"));
    }
}
