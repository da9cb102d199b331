//! Layer normalisation: `y = (x - mean) * rstd * weight + bias` over the last dimension.
//!
//! `mean = sum(x) / C`, `rstd = 1 / sqrt(sum((x - mean)^2) / C + eps)`: the variance in a second pass over the row, which
//! is in cache, because `E[x^2] - E[x]^2` cancels catastrophically (with BERT's eps of 1e-12, to NaN).
//! Backward, with `x_hat = (x - mean) * rstd` and `g = dy * weight`:
//! `dx = rstd * (g - mean(g) - x_hat * mean(g * x_hat))`, `dweight = sum_rows(dy * x_hat)`, `dbias = sum_rows(dy)`.
//! Source: Ba, Kiros and Hinton, arXiv 1607.06450; `torch.nn.functional.layer_norm`.

pub(super) mod cpu;
pub(super) mod cuda;

use super::check;
use crate::cuda::Context;
use crate::{Device, Result, Tensor};

/// What [`layer_norm`] returns; backward needs the statistics.
#[derive(Debug)]
pub struct LayerNorm {
    /// `[T, C]`, dtype of x.
    pub y: Tensor,
    /// `[T]`, accumulator dtype.
    pub mean: Tensor,
    /// `[T]`: one over the standard deviation, accumulator dtype.
    pub rstd: Tensor,
}

/// What [`layer_norm_backward`] returns.
#[derive(Debug)]
pub struct LayerNormGradients {
    /// `[T, C]`, dtype of dy.
    pub dx: Tensor,
    /// `[C]`, accumulator dtype.
    pub dweight: Tensor,
    /// `[C]`, accumulator dtype.
    pub dbias: Tensor,
}

/// Normalises the rows of `x: [T, C]` (rows may be strided); `weight` and `bias: [C]` in the accumulator's dtype.
///
/// # Errors
/// `ShapeMismatch`, `DTypeMismatch`, `NotContiguous`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<LayerNorm> {
    const OP: &str = "layer_norm";
    let (_, width) = check::rows(OP, "x [T, C]", x)?;
    check::vectors(OP, x, width, [("weight", weight), ("bias", bias)])?;
    match x.device() {
        Device::Cpu => cpu::forward(OP, x, weight, bias, eps),
        Device::Cuda(ordinal) => cuda::forward(&Context::get(ordinal)?, OP, x, weight, bias, eps),
    }
}

/// Gradients of [`layer_norm`]. `dy` and `x: [T, C]` (rows of x may be strided).
///
/// # Errors
/// `ShapeMismatch`, `DTypeMismatch`, `NotContiguous`.
pub fn layer_norm_backward(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
) -> Result<LayerNormGradients> {
    const OP: &str = "layer_norm_backward";
    let (rows, width) = check::rows(OP, "x [T, C]", x)?;
    check::shape(OP, "dy", dy, &[rows, width])?;
    check::same_type(OP, x, dy)?;
    check::vectors(OP, x, width, [("weight", weight)])?;
    check::vectors(OP, x, rows, [("mean", mean), ("rstd", rstd)])?;
    match x.device() {
        Device::Cpu => cpu::backward(OP, dy, x, weight, mean, rstd),
        Device::Cuda(ordinal) => cuda::backward(&Context::get(ordinal)?, OP, dy, x, weight, mean, rstd),
    }
}
