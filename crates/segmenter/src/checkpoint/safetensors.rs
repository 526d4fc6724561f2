use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use super::{Refusal, to_fp32};
use crate::sam::Tensors;

/// Tensors of a .safetensors file. The crate checks every offset against the file before any of it is used.
pub fn read(bytes: &[u8]) -> Result<Tensors, Refusal> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| Refusal::Damaged(error.to_string()))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            other => return Err(Refusal::Unsupported(format!("{name} in {other:?}"))),
        };
        let size: Option<Vec<i64>> = view.shape().iter().map(|&size| i64::try_from(size).ok().filter(|&size| size > 0)).collect();
        let size = size.ok_or_else(|| Refusal::Damaged(format!("{name} has the shape {:?}", view.shape())))?;
        let tensor =
            Tensor::f_from_data_size(view.data(), &size, kind).map_err(|error| Refusal::Damaged(format!("{name}: {error}")))?;
        tensors.insert(name.into(), to_fp32(&tensor)?);
    }
    Ok(tensors)
}
