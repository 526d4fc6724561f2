//! The few layers SAM is made of, and where their tensors come from.

use std::collections::BTreeMap;

use tch::{Kind, TchError, Tensor};

use super::{KIND, Result};
use crate::native::{self, Prologue};

/// Tensors by their name in the checkpoint.
pub type Tensors = BTreeMap<String, Tensor>;

/// A part of the checkpoint: the tensors whose names begin with a prefix.
pub struct Weights<'a> {
    tensors: &'a Tensors,
    prefix: String,
}

impl<'a> Weights<'a> {
    pub fn new(tensors: &'a Tensors) -> Self {
        Self { tensors, prefix: String::new() }
    }

    /// The part below `name`.
    pub fn child(&self, name: &str) -> Self {
        Self { tensors: self.tensors, prefix: format!("{}{name}.", self.prefix) }
    }

    pub fn get(&self, name: &str) -> Result<Tensor> {
        let name = format!("{}{name}", self.prefix);
        match self.tensors.get(&name) {
            Some(tensor) => Ok(tensor.shallow_clone()),
            None => Err(TchError::TensorNameNotFound(name, "the checkpoint".into())),
        }
    }
}

/// x W^T + b over the last dimension.
pub struct Linear {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Linear {
    pub fn new(weights: &Weights) -> Result<Self> {
        Ok(Self { weight: weights.get("weight")?, bias: weights.get("bias")? })
    }

    /// [..., in] -> [..., out]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_after(Prologue::None, x, KIND)
    }

    /// The same after something cheap, in a precision of one's own. [..., in] -> [..., out]
    pub fn forward_after(&self, prologue: Prologue, x: &Tensor, precision: Kind) -> Result<Tensor> {
        native::linear(x, &self.weight, Some(&self.bias), prologue, precision)
    }

    /// The same without b.
    pub fn product_after(&self, prologue: Prologue, x: &Tensor, precision: Kind) -> Result<Tensor> {
        native::linear(x, &self.weight, None, prologue, precision)
    }
}

/// Normalises the last dimension.
pub struct LayerNorm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub epsilon: f64,
}

impl LayerNorm {
    pub fn new(weights: &Weights, epsilon: f64) -> Result<Self> {
        Ok(Self { weight: weights.get("weight")?, bias: weights.get("bias")?, epsilon })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.epsilon, true)
    }
}

/// Normalises the channels of each pixel: upstream's `LayerNorm2d`, whose formula is a layer norm over the second dimension.
pub struct LayerNorm2d(LayerNorm);

impl LayerNorm2d {
    const EPSILON: f64 = 1e-6;

    pub fn new(weights: &Weights) -> Result<Self> {
        Ok(Self(LayerNorm::new(weights, Self::EPSILON)?))
    }

    /// [B, C, H, W] -> [B, C, H, W]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let channels_last = x.f_permute([0, 2, 3, 1])?; // [B, H, W, C]
        self.0.forward(&channels_last)?.f_permute([0, 3, 1, 2])
    }
}

/// A convolution, with or without bias as the checkpoint has it.
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    pub fn new(weights: &Weights, stride: i64, padding: i64) -> Result<Self> {
        Ok(Self { weight: weights.get("weight")?, bias: weights.get("bias").ok(), stride, padding })
    }

    /// [B, in, H, W] -> [B, out, H', W']
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.f_conv2d(&self.weight, self.bias.as_ref(), [self.stride; 2], [self.padding; 2], [1, 1], 1)
    }
}

/// A transposed convolution of kernel 2 and stride 2, which doubles height and width.
pub struct Doubling {
    weight: Tensor,
    bias: Tensor,
}

impl Doubling {
    pub fn new(weights: &Weights) -> Result<Self> {
        Ok(Self { weight: weights.get("weight")?, bias: weights.get("bias")? })
    }

    /// [B, in, H, W] -> [B, out, 2H, 2W]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.f_conv_transpose2d(&self.weight, Some(&self.bias), [2, 2], [0, 0], [0, 0], 1, [1, 1])
    }
}

/// The exact GELU, as `torch.nn.GELU()`.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    x.f_gelu("none")
}
