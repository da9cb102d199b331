//! The end of each half of a transformer layer, in one pass: `sum = residual + dropout(x)`, `y = LayerNorm(sum)`.
//!
//! Backward in one pass too: with `dsum` the gradient through LayerNorm, `dresidual = dsum` and `dx = dropout(dsum)` with
//! the same mask. Mirrors `BertSelfOutput` and `BertOutput` of transformers' `modeling_bert.py`.

mod cpu;
mod cuda;

use super::check;
use crate::cuda::Context;
use crate::{DType, Device, Dropout, Error, Offsets, Result, Tensor};

/// What [`dropout_add_layer_norm`] returns, in the dtype of the residual; backward needs
/// what follows `rounded`.
#[derive(Debug)]
pub struct DropoutAddLayerNorm {
    /// `[T, C]`.
    pub y: Tensor,
    /// y in the dtype of x where that is another: for a product in half precision beside an F32 residual stream.
    pub rounded: Option<Tensor>,
    /// `residual + dropout(x)`: `[T, C]`.
    pub sum: Tensor,
    /// `[T]`, accumulator dtype.
    pub mean: Tensor,
    /// `[T]`, accumulator dtype.
    pub rstd: Tensor,
}

/// What [`dropout_add_layer_norm_backward`] returns.
#[derive(Debug)]
pub struct DropoutAddLayerNormGradients {
    /// `[T, C]`, dtype of x. Without dropout, and of one dtype, it shares the storage of `dresidual`.
    pub dx: Tensor,
    /// `[T, C]`, dtype of dy.
    pub dresidual: Tensor,
    /// `[C]`, accumulator dtype.
    pub dweight: Tensor,
    /// `[C]`, accumulator dtype.
    pub dbias: Tensor,
}

/// `x` and `residual: [T, C]` (rows may be strided) of one dtype, or a half type beside an F32 residual stream; `weight` and
/// `bias: [C]` in the accumulator's dtype. Rows are the tokens of `offsets`, which matter only under dropout.
///
/// # Errors
/// `ShapeMismatch`, `DTypeMismatch`, `NotContiguous`, `InvalidArgument` for the probability.
pub fn dropout_add_layer_norm(
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    dropout: Option<&Dropout>,
    offsets: &Offsets,
) -> Result<DropoutAddLayerNorm> {
    const OP: &str = "dropout_add_layer_norm";
    let (rows, width) = check::rows(OP, "x [T, C]", x)?;
    check::shape(OP, "residual", residual, &[rows, width])?;
    check::device(OP, x, residual)?;
    check_mixed(OP, x.dtype(), residual.dtype())?;
    check::vectors(OP, x, width, [("weight", weight), ("bias", bias)])?;
    check_dropout(OP, dropout, offsets, rows)?;
    match x.device() {
        Device::Cpu => cpu::run_forward(OP, x, residual, weight, bias, eps, dropout, offsets),
        Device::Cuda(ordinal) => {
            cuda::forward(&Context::get(ordinal)?, OP, x, residual, weight, bias, eps, dropout, offsets)
        }
    }
}

/// Gradients of [`dropout_add_layer_norm`] for an x of `x_dtype`, from `dy: [T, C]` and what forward returned.
///
/// # Errors
/// As forward.
pub fn dropout_add_layer_norm_backward(
    dy: &Tensor,
    sum: &Tensor,
    weight: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
    dropout: Option<&Dropout>,
    offsets: &Offsets,
    x_dtype: DType,
) -> Result<DropoutAddLayerNormGradients> {
    const OP: &str = "dropout_add_layer_norm_backward";
    let (rows, width) = check::rows(OP, "sum [T, C]", sum)?;
    check::shape(OP, "dy", dy, &[rows, width])?;
    check::same_type(OP, sum, dy)?;
    check::vectors(OP, sum, width, [("weight", weight)])?;
    check::vectors(OP, sum, rows, [("mean", mean), ("rstd", rstd)])?;
    check_mixed(OP, x_dtype, sum.dtype())?;
    check_dropout(OP, dropout, offsets, rows)?;
    match sum.device() {
        Device::Cpu => cpu::run_backward(OP, dy, sum, weight, [mean, rstd], dropout, offsets, x_dtype),
        Device::Cuda(ordinal) => {
            let context = Context::get(ordinal)?;
            cuda::backward(&context, OP, dy, sum, weight, [mean, rstd], dropout, offsets, x_dtype)
        }
    }
}

fn check_dropout(op: &'static str, dropout: Option<&Dropout>, offsets: &Offsets, rows: usize) -> Result<()> {
    let Some(dropout) = dropout else { return Ok(()) };
    if offsets.total() != rows {
        let expected = format!("{} rows, one a token of the offsets", offsets.total());
        return Err(Error::ShapeMismatch { op, expected, got: vec![rows] });
    }
    dropout.check(op)
}

/// `DTypeMismatch` unless x is of the residual's dtype, or a half type beside F32.
fn check_mixed(op: &'static str, x: DType, residual: DType) -> Result<()> {
    if x == residual || (matches!(x, DType::BF16 | DType::F16) && residual == DType::F32) {
        return Ok(());
    }
    Err(Error::DTypeMismatch { op, expected: format!("x of the residual's {residual}"), got: x })
}
