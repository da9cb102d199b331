//! Softmax over the last dimension, and its logarithm.
//!
//! `y_i = exp(x_i - max) / sum_j exp(x_j - max)`, backward `dx = y * (dy - sum_j dy_j y_j)`; the logarithm is
//! `y_i = x_i - max - ln sum_j exp(x_j - max)`, backward `dx = dy - exp(y) * sum_j dy_j`. Subtracting the maximum keeps
//! every exponential at most 1. A row of -inf alone gives NaN. `torch.nn.functional.softmax` and `log_softmax`.

pub(super) mod cpu;
mod cuda;

use super::check;
use crate::cuda::Context;
use crate::{Device, Result, Tensor};

/// Softmax of `x: [.., C]` over C (rows may be strided); the result has the shape and dtype of x.
///
/// # Errors
/// `DTypeMismatch` for integers, `NotContiguous`, `NotSupported` on CUDA but for F32 and BF16.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    forward("softmax", x, false)
}

/// Logarithm of the softmax of `x: [.., C]` over C, without the underflow of `ln(softmax(x))`.
///
/// # Errors
/// As [`softmax`].
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    forward("log_softmax", x, true)
}

/// Gradient of [`softmax`] from its output: `dy` and `y: [.., C]` (rows may be strided), one dtype.
///
/// # Errors
/// As [`softmax`]; `ShapeMismatch`.
pub fn softmax_backward(dy: &Tensor, y: &Tensor) -> Result<Tensor> {
    backward("softmax_backward", dy, y, false)
}

/// Gradient of [`log_softmax`] from its output: `dy` and `y: [.., C]` (rows may be strided), one dtype.
///
/// # Errors
/// As [`softmax_backward`].
pub fn log_softmax_backward(dy: &Tensor, y: &Tensor) -> Result<Tensor> {
    backward("log_softmax_backward", dy, y, true)
}

fn forward(op: &'static str, x: &Tensor, logarithm: bool) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => cpu::forward(op, x, logarithm),
        Device::Cuda(ordinal) => cuda::forward(&Context::get(ordinal)?, op, x, logarithm),
    }
}

fn backward(op: &'static str, dy: &Tensor, y: &Tensor, logarithm: bool) -> Result<Tensor> {
    check::shape(op, "dy like y", dy, y.dims())?;
    check::same_type(op, y, dy)?;
    match y.device() {
        Device::Cpu => cpu::backward(op, dy, y, logarithm),
        Device::Cuda(ordinal) => cuda::backward(&Context::get(ordinal)?, op, dy, y, logarithm),
    }
}
