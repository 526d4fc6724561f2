use tch::{Device, Tensor, no_grad};

use super::{
    KIND, Result,
    layers::{Tensors, Weights},
};

/// The image encoder's parameters, each a leaf that gradients are taken for, beside what the checkpoint has for them.
pub struct EncoderParameters {
    /// By the checkpoint's names.
    named: Tensors,
    names: Vec<String>,
    /// What the encoder reads and the optimiser moves, in the names' order.
    tensors: Vec<Tensor>,
    /// As the checkpoint has them, on the encoder's device: the way back is then a copy within its memory. On the CPU these are the
    /// checkpoint's own tensors.
    pretrained: Vec<Tensor>,
    /// Grows whenever the parameters may have changed.
    version: u64,
}

impl EncoderParameters {
    pub(super) fn new(checkpoint: &Tensors, device: Device) -> Result<Self> {
        let mut found =
            Self { named: Tensors::new(), names: Vec::new(), tensors: Vec::new(), pretrained: Vec::new(), version: 0 };
        for (name, tensor) in checkpoint.iter().filter(|(name, _)| name.starts_with("image_encoder.")) {
            let pretrained = tensor.f_to_device(device)?.f_to_kind(KIND)?.f_contiguous()?;
            let mut leaf = pretrained.f_zeros_like()?;
            leaf.f_copy_(&pretrained)?;
            let leaf = leaf.f_set_requires_grad(true)?;
            found.named.insert(name.clone(), leaf.shallow_clone());
            found.names.push(name.clone());
            found.tensors.push(leaf);
            found.pretrained.push(pretrained);
        }
        Ok(found)
    }

    pub(super) fn weights(&self) -> Weights<'_> {
        Weights::new(&self.named)
    }

    /// Puts the checkpoint's weights back, bit for bit.
    pub fn restore(&mut self) -> Result<()> {
        self.version += 1;
        no_grad(|| self.tensors.iter_mut().zip(&self.pretrained).try_for_each(|(tensor, pretrained)| tensor.f_copy_(pretrained)))
    }

    /// Every parameter, each of the checkpoint's shape.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The same, for the optimiser, which changes them in place.
    pub fn tensors_mut(&mut self) -> &mut [Tensor] {
        self.version += 1;
        &mut self.tensors
    }

    /// How many numbers they are.
    pub fn count(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.numel() as u64).sum()
    }

    /// The name of the parameter at this place.
    pub(super) fn name(&self, place: usize) -> &str {
        &self.names[place]
    }

    /// The same number as before means the same values: a forward pass's graph is of use only as long.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn device(&self) -> Device {
        self.tensors[0].device()
    }
}
