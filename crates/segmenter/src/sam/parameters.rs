use tch::{Device, Tensor, no_grad};

use super::{
    KIND, Result,
    layers::{Tensors, Weights},
};

/// The image encoder's parameters in one buffer, of which each named parameter is a view.
///
/// One buffer makes the optimiser a handful of operations, and the return to the pre-trained weights a single copy.
pub struct EncoderParameters {
    /// As the checkpoint has them; on the CPU, for a GPU's memory is dearer than one copy per image. [P]
    pretrained: Tensor,
    /// What the encoder reads. [P]
    values: Tensor,
    /// Grows whenever `values` may have changed.
    version: u64,
    /// Views into `values` by the checkpoint's names, each a leaf that gradients are taken for.
    views: Tensors,
}

impl EncoderParameters {
    pub(super) fn new(tensors: &Tensors, device: Device) -> Result<Self> {
        let named: Vec<(&String, &Tensor)> = tensors.iter().filter(|(name, _)| name.starts_with("image_encoder.")).collect();
        let flat: Vec<Tensor> = named.iter().map(|(_, tensor)| tensor.f_flatten(0, -1)).collect::<Result<_>>()?;
        let pretrained = Tensor::f_cat(&flat, 0)?;
        let mut values = Tensor::f_empty(pretrained.size(), (KIND, device))?;
        values.f_copy_(&pretrained)?;
        let mut views = Tensors::new();
        let mut start = 0;
        for (name, tensor) in named {
            let length = tensor.numel() as i64;
            let view = values.f_narrow(0, start, length)?.f_view(tensor.size().as_slice())?.f_detach()?;
            views.insert(name.clone(), view.f_set_requires_grad(true)?);
            start += length;
        }
        Ok(Self { pretrained, values, version: 0, views })
    }

    pub(super) fn weights(&self) -> Weights<'_> {
        Weights::new(&self.views)
    }

    /// Puts the checkpoint's weights back, bit for bit.
    pub fn restore(&mut self) -> Result<()> {
        self.version += 1;
        no_grad(|| self.values.f_copy_(&self.pretrained))
    }

    /// All parameters as one vector, which the optimiser changes in place. `[P]`
    pub fn values_mut(&mut self) -> &mut Tensor {
        self.version += 1;
        &mut self.values
    }

    /// The same number as before means the same values: a forward pass's graph is of use only as long.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The gradient of a scalar with respect to all parameters, in the order of the values. `[P]`
    pub fn gradient(&self, loss: &Tensor) -> Result<Tensor> {
        let views: Vec<&Tensor> = self.views.values().collect();
        let gradients = Tensor::f_run_backward(&[loss], &views, false, false)?;
        let flat: Vec<Tensor> = gradients.iter().map(|gradient| gradient.f_flatten(0, -1)).collect::<Result<_>>()?;
        Tensor::f_cat(&flat, 0)
    }

    pub(super) fn device(&self) -> Device {
        self.values.device()
    }
}
