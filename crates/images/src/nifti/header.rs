//! The 348 bytes before the voxels.

use super::FORMAT;
use crate::ImageError;

/// How long a header is; the file says it in its first four bytes.
pub const HEADER_BYTES: usize = 348;

/// Extensions lie between the header and the voxels and are skipped; more of them is no image.
const MOST_BYTES_BEFORE_VOXELS: f32 = (64 << 20) as f32;

/// A vector for each voxel axis: how far one step along it goes to the patient's right, anterior and superior.
pub type Axes = [[f64; 3]; 3];

/// What of the header is needed to read and turn the voxels.
#[derive(Debug)]
pub struct Header {
    /// Voxels along each axis; the first runs fastest.
    pub sizes: [u32; 3],
    /// Where the axes point.
    pub axes: Axes,
    /// Where the voxels begin, in bytes.
    pub data_offset: u64,
    kind: Kind,
    big_endian: bool,
    slope: f64,
    intercept: f64,
}

/// A voxel's type, named after the header's codes.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Uint8,
    Int8,
    Uint16,
    Int16,
    Uint32,
    Int32,
    Uint64,
    Int64,
    Float32,
    Float64,
}

/// Whether the bytes begin with a header of NIfTI-1 or NIfTI-2, of which the latter is refused by name.
pub fn is_header(bytes: &[u8]) -> bool {
    let Some(size) = bytes.first_chunk().copied() else { return false };
    match (u32::from_le_bytes(size), u32::from_be_bytes(size)) {
        (348, _) | (_, 348) => bytes.get(344..347).is_some_and(|magic| magic == b"n+1" || magic == b"ni1"),
        (540, _) | (_, 540) => bytes.get(4..7).is_some_and(|magic| magic == b"n+2" || magic == b"ni2"),
        _ => false,
    }
}

impl Header {
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, ImageError> {
        let fields = Fields { bytes, big_endian: bytes[0] == 0 };
        if !bytes[344..].starts_with(b"n+1") {
            let reason = match &bytes[344..347] {
                b"ni1" => "its voxels are in another file",
                _ => "it is NIfTI-2",
            };
            return Err(unsupported(format!("{reason}, expected NIfTI-1 in one file")));
        }
        let data_offset = fields.f32(108);
        if !(HEADER_BYTES as f32..=MOST_BYTES_BEFORE_VOXELS).contains(&data_offset) {
            return Err(damaged(format!("its voxels begin at byte {data_offset}")));
        }
        let (slope, intercept) = (f64::from(fields.f32(112)), f64::from(fields.f32(116)));
        // A slope of 0 says that there is no scaling.
        let is_scaled = slope != 0.0 && slope.is_finite() && intercept.is_finite();
        let (slope, intercept) = if is_scaled { (slope, intercept) } else { (1.0, 0.0) };
        Ok(Self {
            sizes: fields.sizes()?,
            axes: fields.axes(),
            data_offset: data_offset as u64,
            kind: Kind::of(fields.i16(70))?,
            big_endian: fields.big_endian,
            slope,
            intercept,
        })
    }

    /// How long a plane of the first two axes is.
    pub fn plane_bytes(&self) -> u64 {
        u64::from(self.sizes[0]) * u64::from(self.sizes[1]) * self.kind.bytes() as u64
    }

    /// How long all planes are.
    pub fn bytes(&self) -> u64 {
        u64::from(self.sizes[2]) * self.plane_bytes()
    }

    /// Voxels as numbers, scaled.
    pub fn values(&self, bytes: &[u8]) -> Vec<f64> {
        let size = self.kind.bytes();
        let value = |voxel: &[u8]| {
            let mut little = [0; 8];
            little[..size].copy_from_slice(voxel);
            if self.big_endian {
                little[..size].reverse();
            }
            self.kind.value(little) * self.slope + self.intercept
        };
        bytes.chunks_exact(size).map(value).collect()
    }
}

impl Kind {
    fn of(code: i16) -> Result<Self, ImageError> {
        match code {
            2 => Ok(Self::Uint8),
            4 => Ok(Self::Int16),
            8 => Ok(Self::Int32),
            16 => Ok(Self::Float32),
            64 => Ok(Self::Float64),
            256 => Ok(Self::Int8),
            512 => Ok(Self::Uint16),
            768 => Ok(Self::Uint32),
            1_024 => Ok(Self::Int64),
            1_280 => Ok(Self::Uint64),
            128 | 2_304 => Err(unsupported("its voxels are colours".into())),
            32 | 1_792 | 2_048 => Err(unsupported("its voxels are complex numbers".into())),
            code => Err(unsupported(format!("its voxels are of type {code}, expected whole or floating-point numbers"))),
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Uint8 | Self::Int8 => 1,
            Self::Uint16 | Self::Int16 => 2,
            Self::Uint32 | Self::Int32 | Self::Float32 => 4,
            Self::Uint64 | Self::Int64 | Self::Float64 => 8,
        }
    }

    /// Of a voxel with its least byte first, filled up with zeros.
    fn value(self, little: [u8; 8]) -> f64 {
        let bits = u64::from_le_bytes(little);
        match self {
            Self::Uint8 | Self::Uint16 | Self::Uint32 | Self::Uint64 => bits as f64,
            Self::Int8 => f64::from(bits as i8),
            Self::Int16 => f64::from(bits as i16),
            Self::Int32 => f64::from(bits as i32),
            Self::Int64 => bits as i64 as f64,
            Self::Float32 => f64::from(f32::from_bits(bits as u32)),
            Self::Float64 => f64::from_bits(bits),
        }
    }
}

/// The header's numbers by their offsets in bytes.
struct Fields<'a> {
    bytes: &'a [u8; HEADER_BYTES],
    big_endian: bool,
}

impl Fields<'_> {
    fn i16(&self, offset: usize) -> i16 {
        let bytes = [self.bytes[offset], self.bytes[offset + 1]];
        if self.big_endian { i16::from_be_bytes(bytes) } else { i16::from_le_bytes(bytes) }
    }

    fn f32(&self, offset: usize) -> f32 {
        let bytes = [0, 1, 2, 3].map(|byte| self.bytes[offset + byte]);
        if self.big_endian { f32::from_be_bytes(bytes) } else { f32::from_le_bytes(bytes) }
    }

    fn f64s<const COUNT: usize>(&self, offset: usize) -> [f64; COUNT] {
        std::array::from_fn(|index| f64::from(self.f32(offset + 4 * index)))
    }

    /// Of two or three dimensions, or of more whose further ones are 1.
    fn sizes(&self) -> Result<[u32; 3], ImageError> {
        let dimensions = self.i16(40);
        if !(1..=7).contains(&dimensions) {
            return Err(damaged(format!("it has {dimensions} dimensions, expected 2 to 4")));
        }
        let all: [i16; 7] = std::array::from_fn(|axis| if axis < dimensions as usize { self.i16(42 + 2 * axis) } else { 1 });
        if let Some(size) = all.iter().find(|&&size| size < 1) {
            return Err(damaged(format!("a dimension has {size} voxels")));
        }
        let volumes: u64 = all[3..].iter().map(|&size| size as u64).product();
        if volumes > 1 {
            return Err(unsupported(format!("it holds {volumes} volumes, expected one")));
        }
        Ok([0, 1, 2].map(|axis| all[axis] as u32))
    }

    /// By the sform, else by the qform, else the axes are the patient's.
    fn axes(&self) -> Axes {
        let [qform_code, sform_code] = [self.i16(252), self.i16(254)];
        let [flip, lengths @ ..]: [f64; 4] = self.f64s(76);
        if sform_code > 0 {
            let rows: [[f64; 4]; 3] = [280, 296, 312].map(|offset| self.f64s(offset));
            return [0, 1, 2].map(|axis| rows.map(|row| row[axis]));
        }
        if qform_code > 0 {
            let mut axes = rotation(self.f64s(256));
            for (axis, length) in axes.iter_mut().zip(lengths) {
                *axis = axis.map(|part| part * length.abs());
            }
            if flip < 0.0 {
                axes[2] = axes[2].map(|part| -part);
            }
            return axes;
        }
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    }
}

/// The columns of the rotation that a unit quaternion's last three parts stand for.
fn rotation([b, c, d]: [f64; 3]) -> Axes {
    let a = (1.0 - (b * b + c * c + d * d)).max(0.0).sqrt();
    [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c + a * d), 2.0 * (b * d - a * c)],
        [2.0 * (b * c - a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d + a * b)],
        [2.0 * (b * d + a * c), 2.0 * (c * d - a * b), a * a + d * d - c * c - b * b],
    ]
}

fn damaged(reason: String) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason }
}

fn unsupported(reason: String) -> ImageError {
    ImageError::Unsupported { format: FORMAT, reason }
}
