//! What tch lacks of libtorch: the functions of `native/*.cpp`.

#![expect(unsafe_code, reason = "C++ behind a C interface")]

use std::{
    ffi::{CStr, c_char},
    ptr,
};

use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

use crate::sam::LayerNorm;

type Handle = *mut C_tensor;

unsafe extern "C" {
    fn native_linear(
        out: *mut Handle,
        x: Handle,
        weight: Handle,
        bias: Handle,
        prologue: i64,
        norm_weight: Handle,
        norm_bias: Handle,
        epsilon: f64,
        in_bfloat16: bool,
    ) -> *mut c_char;
    fn native_attention(out: *mut Handle, qkv: Handle, padding: Handle, tables: Handle, heads: i64, side: i64) -> *mut c_char;
    fn native_adam(
        parameters: *const Handle,
        gradients: *const Handle,
        first_moments: *const Handle,
        second_moments: *const Handle,
        count: usize,
        step: Handle,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
    ) -> *mut c_char;
    fn native_allow_tf32(allow: bool) -> *mut c_char;
    fn native_peak_cuda_memory(allocated: *mut i64, reserved: *mut i64) -> *mut c_char;
    fn native_reset_peak_cuda_memory() -> *mut c_char;
    fn native_cached_cuda_memory(bytes: *mut i64) -> *mut c_char;
}

/// What is done to a linear layer's input first. It is not kept for the backward pass but done again, so it costs no memory.
#[derive(Clone, Copy)]
pub enum Prologue<'a> {
    /// Nothing.
    None,
    /// A layer norm of the last dimension.
    LayerNorm(&'a LayerNorm),
    /// The exact GELU.
    Gelu,
}

/// x W^T + b of a layer's input, in fp32 or bf16; differentiable. [..., in] -> [..., out]
///
/// On the CPU in fp32 the products are oneDNN's. Parameters are fp32 whatever the precision, and so are their gradients.
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    prologue: Prologue,
    precision: Kind,
) -> Result<Tensor, TchError> {
    let (number, norm) = match prologue {
        Prologue::None => (0, None),
        Prologue::LayerNorm(norm) => (1, Some(norm)),
        Prologue::Gelu => (2, None),
    };
    let norm_weight = norm.map_or_else(ptr::null_mut, |norm| handle(&norm.weight));
    let norm_bias = norm.map_or_else(ptr::null_mut, |norm| handle(&norm.bias));
    let epsilon = norm.map_or(0.0, |norm| norm.epsilon);
    let bias = bias.map_or_else(ptr::null_mut, handle);
    made(|out| {
        // SAFETY: the handles are null or of tensors that outlive the call, which changes none of them.
        unsafe {
            native_linear(
                out,
                handle(x),
                handle(weight),
                bias,
                number,
                norm_weight,
                norm_bias,
                epsilon,
                precision == Kind::BFloat16,
            )
        }
    })
}

/// SAM's windowed attention on the CPU in fp32; differentiable. qkv [B, H, W, 3 * dim] -> [B, H, W, dim]
///
/// The grid is cut into windows of `side` x `side` tokens; those that stick out have tokens whose q, k and v are `padding` [3 * dim].
/// `tables` are the relative positions of the height and of the width, one after the other. [2 * (2 * side - 1), dim / heads]
pub fn attention(qkv: &Tensor, padding: &Tensor, tables: &Tensor, heads: i64, side: i64) -> Result<Tensor, TchError> {
    // SAFETY: the handles are of tensors that outlive the call, which changes none of them.
    made(|out| unsafe { native_attention(out, handle(qkv), handle(padding), handle(tables), heads, side) })
}

/// What Adam is told beside tensors.
pub struct AdamConstants {
    /// The step's length.
    pub learning_rate: f64,
    /// Of the first moment.
    pub beta1: f64,
    /// Of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
}

/// One step of Adam in place, in one pass over all tensors; as many gradients and moments as parameters. `step` counts from 1. [1]
pub fn adam(
    parameters: &mut [Tensor],
    gradients: &[Tensor],
    first_moments: &mut [Tensor],
    second_moments: &mut [Tensor],
    step: &Tensor,
    constants: &AdamConstants,
) -> Result<(), TchError> {
    let count = parameters.len();
    assert!(
        [gradients.len(), first_moments.len(), second_moments.len()] == [count; 3],
        "a gradient and two moments for each parameter"
    );
    let handles = |tensors: &[Tensor]| tensors.iter().map(handle).collect::<Vec<_>>();
    let [parameters, first_moments, second_moments] = [&*parameters, &*first_moments, &*second_moments].map(handles);
    let gradients = handles(gradients);
    let &AdamConstants { learning_rate, beta1, beta2, epsilon } = constants;
    // SAFETY: the lists have `count` handles each of tensors that outlive the call; those it changes are borrowed as such.
    checked(unsafe {
        native_adam(
            parameters.as_ptr(),
            gradients.as_ptr(),
            first_moments.as_ptr(),
            second_moments.as_ptr(),
            count,
            handle(step),
            learning_rate,
            beta1,
            beta2,
            epsilon,
        )
    })
}

/// Whether fp32 products on a GPU may round their factors to TF32, for the whole process.
pub fn allow_tf32(allow: bool) -> Result<(), TchError> {
    // SAFETY: sets two flags of libtorch's.
    checked(unsafe { native_allow_tf32(allow) })
}

/// The most bytes of the first CUDA device that tensors took, and that were taken from the driver for them, since the last reset. CUDA's part
/// of libtorch must be loaded.
pub fn peak_cuda_memory() -> Result<(u64, u64), TchError> {
    let (mut allocated, mut reserved) = (0, 0);
    // SAFETY: the numbers outlive the call.
    checked(unsafe { native_peak_cuda_memory(&raw mut allocated, &raw mut reserved) })?;
    Ok((allocated.cast_unsigned(), reserved.cast_unsigned()))
}

/// The bytes of the first CUDA device that were taken from the driver and that no tensor uses.
pub fn cached_cuda_memory() -> Result<u64, TchError> {
    let mut bytes = 0;
    // SAFETY: the number outlives the call.
    checked(unsafe { native_cached_cuda_memory(&raw mut bytes) })?;
    Ok(bytes.cast_unsigned())
}

/// Begins that count anew.
pub fn reset_peak_cuda_memory() -> Result<(), TchError> {
    // SAFETY: resets counters of libtorch's.
    checked(unsafe { native_reset_peak_cuda_memory() })
}

/// The C++ tensor, for a call that does not keep it.
fn handle(tensor: &Tensor) -> Handle {
    tensor.as_ptr().cast_mut()
}

fn made(call: impl FnOnce(*mut Handle) -> *mut c_char) -> Result<Tensor, TchError> {
    let mut out = ptr::null_mut();
    checked(call(&raw mut out))?;
    // SAFETY: without an error `out` is a new tensor, which is ours.
    Ok(unsafe { Tensor::from_ptr(out) })
}

fn checked(error: *mut c_char) -> Result<(), TchError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so it is a C string by `strdup`, which is copied and then freed, once.
    let message = unsafe {
        let message = CStr::from_ptr(error).to_string_lossy().into_owned();
        libc::free(error.cast());
        message
    };
    Err(TchError::Torch(message))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn leaf(sizes: &[i64]) -> Tensor {
        Tensor::randn(sizes, FLOAT).set_requires_grad(true)
    }

    /// The gradients of the output's product with fixed numbers.
    fn gradients(output: &Tensor, leaves: &[&Tensor]) -> Vec<Tensor> {
        tch::manual_seed(99);
        let scalar = (output.to_kind(Kind::Float) * Tensor::randn(output.size(), FLOAT)).sum(Kind::Float);
        Tensor::run_backward(&[&scalar], leaves, false, false)
    }

    fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
        assert_eq!(found.size(), expected.size(), "{what}");
        let scale = expected.abs().max().double_value(&[]).max(1e-3);
        let error = (found - expected).abs().max().double_value(&[]) / scale;
        assert!(error < tolerance, "{what} is off by {error:e} of its largest number");
    }

    #[test]
    fn a_linear_layer_after_each_prologue_is_pytorchs_with_all_its_gradients() {
        tch::manual_seed(1);
        let (x, weight, bias) = (leaf(&[2, 5, 7, 24]), leaf(&[40, 24]), leaf(&[40]));
        let norm = LayerNorm { weight: leaf(&[24]), bias: leaf(&[24]), epsilon: 1e-6 };
        let normed = || x.layer_norm([24], Some(&norm.weight), Some(&norm.bias), norm.epsilon, true);
        for (name, prologue, rows) in [
            ("nothing", Prologue::None, x.shallow_clone()),
            ("layer norm", Prologue::LayerNorm(&norm), normed()),
            ("gelu", Prologue::Gelu, x.gelu("none")),
        ] {
            let mut leaves = vec![&x, &weight, &bias];
            if let Prologue::LayerNorm(_) = prologue {
                leaves.extend([&norm.weight, &norm.bias]);
            }
            let found = linear(&x, &weight, Some(&bias), prologue, Kind::Float).unwrap();
            let expected = rows.linear(&weight, Some(&bias));
            assert_close(&found, &expected, 1e-6, name);
            for (i, (found, expected)) in gradients(&found, &leaves).iter().zip(gradients(&expected, &leaves)).enumerate() {
                assert_close(found, &expected, 2e-6, &format!("{name}: gradient {i}"));
            }
        }
        let without = linear(&x, &weight, None, Prologue::None, Kind::Float).unwrap();
        assert_close(&without, &x.linear(&weight, None::<&Tensor>), 1e-6, "without bias");
    }

    #[test]
    fn in_bf16_the_parameters_and_their_gradients_stay_fp32() {
        tch::manual_seed(2);
        let (x, weight, bias) = (leaf(&[3, 64]), leaf(&[32, 64]), leaf(&[32]));
        let found = linear(&x, &weight, Some(&bias), Prologue::Gelu, Kind::BFloat16).unwrap();
        assert_eq!(found.kind(), Kind::BFloat16);
        let expected = x.gelu("none").linear(&weight, Some(&bias));
        assert_close(&found.to_kind(Kind::Float), &expected, 2e-2, "the answer");
        let leaves = [&x, &weight, &bias];
        for (found, expected) in gradients(&found, &leaves).iter().zip(gradients(&expected, &leaves)) {
            assert_eq!(found.kind(), Kind::Float);
            assert_close(found, &expected, 3e-2, "a gradient");
        }
    }

    /// Upstream's attention within windows, as it is written there: padded, with the N x N bias.
    #[expect(clippy::many_single_char_names, reason = "the names of the papers: q, k, v, b, d")]
    fn plain_attention(qkv: &Tensor, padding: &Tensor, tables: &Tensor, heads: i64, side: i64) -> Tensor {
        let (b, height, width, three_dim) = qkv.size4().unwrap();
        let (d, table) = (three_dim / 3 / heads, 2 * side - 1);
        let (down, across) = ((height + side - 1) / side, (width + side - 1) / side);
        let beside = padding.expand([b, height, across * side - width, three_dim], false);
        let below = padding.expand([b, down * side - height, across * side, three_dim], false);
        let padded = Tensor::cat(&[&Tensor::cat(&[qkv, &beside], 2), &below], 1);
        let windows = padded.reshape([b, down, side, across, side, three_dim]).permute([0, 1, 3, 2, 4, 5]);
        let qkv = windows.reshape([-1, side * side, 3, heads, d]).permute([2, 0, 3, 1, 4]); // [3, B', heads, N, d]
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        let steps = Tensor::arange(side, (Kind::Int64, Device::Cpu));
        let rows = (steps.unsqueeze(1) - steps.unsqueeze(0) + (side - 1)).flatten(0, -1);
        let positions = |start: i64| tables.narrow(0, start, table).index_select(0, &rows).view([side, side, d]);
        let grid = q.reshape([-1, side, side, d]);
        let rel_h = Tensor::einsum("bhwc,hkc->bhwk", &[&grid, &positions(0)], None::<i64>).unsqueeze(-1);
        let rel_w = Tensor::einsum("bhwc,wkc->bhwk", &[&grid, &positions(table)], None::<i64>).unsqueeze(-2);
        let bias = (rel_h + rel_w).reshape([-1, heads, side * side, side * side]);
        let attention = ((q * (d as f64).powf(-0.5)).matmul(&k.transpose(-2, -1)) + bias).softmax(-1, Kind::Float);
        let out = attention.matmul(&v).transpose(1, 2).reshape([b, down, across, side, side, heads * d]);
        let out = out.permute([0, 1, 3, 2, 4, 5]).reshape([b, down * side, across * side, heads * d]);
        out.narrow(1, 0, height).narrow(2, 0, width)
    }

    #[test]
    fn attention_by_tiles_is_the_plain_one_with_all_its_gradients() {
        // Windows that stick out on both sides, more than are taken at once; one window; one too large to be a tile, of no whole number of tiles.
        for (b, height, width, heads, d, side) in [(2, 13, 9, 3, 8, 4), (1, 8, 8, 2, 20, 8), (1, 27, 27, 2, 16, 27)] {
            tch::manual_seed(3);
            let qkv = leaf(&[b, height, width, 3 * heads * d]);
            let (padding, tables) = (leaf(&[3 * heads * d]), leaf(&[2 * (2 * side - 1), d]));
            let leaves = [&qkv, &padding, &tables];
            let found = attention(&qkv, &padding, &tables, heads, side).unwrap();
            let expected = plain_attention(&qkv, &padding, &tables, heads, side);
            let what = format!("{height} x {width} in windows of {side}");
            assert_close(&found, &expected, 2e-6, &what);
            for (i, (found, expected)) in gradients(&found, &leaves).iter().zip(gradients(&expected, &leaves)).enumerate() {
                assert_close(found, &expected, 1e-5, &format!("{what}: gradient {i}"));
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_visible() {
        let qkv = Tensor::full([1, 4, 4, 24], f64::NAN, FLOAT);
        let found = attention(&qkv, &Tensor::zeros([24], FLOAT), &Tensor::zeros([14, 4], FLOAT), 2, 4).unwrap();
        assert!(found.isnan().all().int64_value(&[]) == 1);
    }

    #[test]
    fn an_error_of_libtorch_is_an_error_here() {
        let error = linear(&Tensor::zeros([3, 4], FLOAT), &Tensor::zeros([5, 6], FLOAT), None, Prologue::None, Kind::Float);
        let error = error.unwrap_err().to_string();
        assert!(error.lines().next().is_some_and(|line| line.len() > "Internal torch error: ".len()), "{error}");
        let qkv = Tensor::zeros([1, 4, 4, 24], FLOAT);
        let error = attention(&qkv, &Tensor::zeros([23], FLOAT), &Tensor::zeros([14, 4], FLOAT), 2, 4).unwrap_err().to_string();
        assert!(error.contains("padding"), "{error}");
    }
}
