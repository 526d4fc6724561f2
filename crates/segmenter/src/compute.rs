//! Where and how the model computes.

use std::str::FromStr;

use tch::Kind;

use crate::SegmenterError;

/// Where the model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The first CUDA device.
    Cuda,
}

/// What the products of the encoder's blocks, which are nearly all of the work, are rounded to. Parameters, moments, gradients, layer norms and the
/// sums between blocks are kept in fp32 whatever this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Not at all: 24 bits.
    #[default]
    Fp32,
    /// The factors to 11 bits, on a GPU's tensor cores; of every product there is, the decoder's and the convolutions' too.
    Tf32,
    /// Factors and results to 8 bits.
    Bf16,
}

/// What of a forward pass is kept for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// All of it where the memory that is free when the model is built holds it; else each block's input.
    #[default]
    Auto,
    /// All of it: the fastest.
    Keep,
    /// Each block's input, from which the block is computed once more: about a third more work, with the same masks, on the CPU bit for bit.
    Recompute,
}

/// All of it together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compute {
    /// Where.
    pub device: Device,
    /// How exactly.
    pub precision: Precision,
    /// With how much memory.
    pub activations: Activations,
}

impl From<Device> for Compute {
    fn from(device: Device) -> Self {
        Self { device, ..Self::default() }
    }
}

impl std::fmt::Display for Compute {
    /// What decides the numbers: the device, and the precision where it is another than fp32.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.precision {
            Precision::Fp32 => self.device.fmt(formatter),
            precision => write!(formatter, "{} {precision}", self.device),
        }
    }
}

impl Precision {
    /// What the blocks' products are computed in.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Fp32 | Self::Tf32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

/// The names of an enum's values, both ways.
macro_rules! named {
    ($type:ident, $what:literal, $($value:ident = $name:literal),+) => {
        impl $type {
            /// Its name.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$value => $name),+
                }
            }
        }

        impl FromStr for $type {
            type Err = SegmenterError;

            fn from_str(name: &str) -> Result<Self, SegmenterError> {
                match name {
                    $($name => Ok(Self::$value),)+
                    other => Err(SegmenterError::UnknownName { what: $what, name: other.into(), expected: [$($name),+].join(" or ") }),
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.label())
            }
        }
    };
}

named!(Device, "device", Cpu = "cpu", Cuda = "cuda");
named!(Precision, "precision", Fp32 = "fp32", Tf32 = "tf32", Bf16 = "bf16");
named!(Activations, "activations", Auto = "auto", Keep = "keep", Recompute = "recompute");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_values_by_name() {
        assert_eq!("cpu".parse::<Device>().unwrap(), Device::Cpu);
        assert_eq!("cuda".parse::<Device>().unwrap().to_string(), "cuda");
        assert_eq!("bf16".parse::<Precision>().unwrap().to_string(), "bf16");
        assert_eq!("recompute".parse::<Activations>().unwrap(), Activations::Recompute);
        assert_eq!(Compute::from(Device::Cuda).to_string(), "cuda");
        assert_eq!(Compute { precision: Precision::Tf32, ..Device::Cuda.into() }.to_string(), "cuda tf32");
        assert!("gpu".parse::<Device>().unwrap_err().to_string().contains("expected cpu or cuda"));
        assert!("fp16".parse::<Precision>().unwrap_err().to_string().contains("expected fp32 or tf32 or bf16"));
    }
}
