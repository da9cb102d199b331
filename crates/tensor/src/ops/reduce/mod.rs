//! Sums and maxima along one dimension, and the sum that undoes broadcasting.
//!
//! A contiguous tensor is seen as `[outer, length, inner]` around the dimension. Sums are held in f32 (f64 in the
//! reference) over pieces of fixed size, and the pieces' sums are added up in order.

pub(super) mod cpu;
pub(super) mod cuda;

use super::check;
use crate::cuda::Context;
use crate::{DType, Device, Error, Result, Tensor};

/// The sum over dimension `dim`, which is dropped, or kept with length 1 if `keepdim`. `dx` is `dy`, broadcast.
///
/// # Errors
/// `IndexOutOfRange` when there is no such dimension; `DTypeMismatch` for integers; `NotSupported` on CUDA but for F32 and BF16.
pub fn sum(x: &Tensor, dim: usize, keepdim: bool) -> Result<Tensor> {
    let around = around("sum", x, dim)?;
    let dims = reduced(x, dim, keepdim);
    match x.device() {
        Device::Cpu => cpu::sum(x, around, &dims),
        Device::Cuda(ordinal) => cuda::sum(&Context::get(ordinal)?, x, around, &dims),
    }
}

/// The gradient of an operand with shape `dims` that was broadcast: `dy` summed over the dimensions that were repeated.
///
/// # Errors
/// `ShapeMismatch` unless `dims` broadcasts to the shape of `dy`; `DTypeMismatch` for integers.
pub fn reduce_to_shape(dy: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let lead = dy.rank().checked_sub(dims.len());
    let fits = |lead: usize| dy.dims()[lead..].iter().zip(dims).all(|(from, to)| from == to || *to == 1);
    let Some(lead) = lead.filter(|&lead| fits(lead)) else {
        let expected = format!("a shape that {dims:?} broadcasts to");
        return Err(Error::ShapeMismatch { op: "reduce_to_shape", expected, got: dy.dims().to_vec() });
    };
    // The leading dimensions at once: a bias gradient is one sum over all rows.
    let leading: usize = dy.dims()[..lead].iter().product();
    let repeated = dy.dims()[lead..].iter().zip(dims).filter(|(from, to)| from != to).count();
    // Several sums one after the other round once, like one.
    let several = usize::from(lead > 0) + repeated > 1;
    let mut dx = dy.to_dtype(if several { dy.dtype().accumulator() } else { dy.dtype() })?;
    if lead > 0 {
        dx = sum(&dx.reshape(&[&[leading], &dy.dims()[lead..]].concat())?, 0, false)?;
    }
    for (d, &length) in dims.iter().enumerate() {
        if dx.dims()[d] != length {
            dx = sum(&dx, d, true)?;
        }
    }
    dx.to_dtype(dy.dtype())?.contiguous()
}

/// What [`max`] finds.
pub struct Max {
    /// The largest elements.
    pub values: Tensor,
    /// Where along the dimension they were first seen, U32.
    pub indices: Tensor,
}

/// The largest element along dimension `dim` and its first position. NaN counts as the largest.
///
/// # Errors
/// As [`sum`]; `ShapeMismatch` for a dimension of length 0.
pub fn max(x: &Tensor, dim: usize, keepdim: bool) -> Result<Max> {
    let around = around("max", x, dim)?;
    if around[1] == 0 {
        let expected = format!("at least one element in dimension {dim}");
        return Err(Error::ShapeMismatch { op: "max", expected, got: x.dims().to_vec() });
    }
    let dims = reduced(x, dim, keepdim);
    match x.device() {
        Device::Cpu => cpu::max(x, around, &dims),
        Device::Cuda(ordinal) => cuda::max(&Context::get(ordinal)?, x, around, &dims),
    }
}

/// The gradient of [`max`]: `dy` (with or without the dimension) where the maximum was found, 0 elsewhere. `dims` is
/// the shape of `x`.
///
/// # Errors
/// `ShapeMismatch`, on the CPU `IndexOutOfRange`, when the operands do not come from such a maximum; `DTypeMismatch`;
/// `DeviceMismatch`.
pub fn max_backward(dy: &Tensor, indices: &Tensor, dims: &[usize], dim: usize) -> Result<Tensor> {
    let mut dx = Tensor::zeros(dims, dy.dtype(), dy.device())?;
    let [outer, len, inner] = around("max_backward", &dx, dim)?;
    if dy.numel() != outer * inner || indices.numel() != dy.numel() {
        let expected = format!("{} elements, one for each maximum", outer * inner);
        return Err(Error::ShapeMismatch { op: "max_backward", expected, got: dy.dims().to_vec() });
    }
    check::dtype("max_backward", indices, DType::U32)?;
    check::device("max_backward", dy, indices)?;
    let (dy, indices) = (dy.contiguous()?, indices.contiguous()?);
    match dy.device() {
        Device::Cpu => cpu::max_backward(&dy, &indices, &mut dx, len, inner),
        Device::Cuda(ordinal) => {
            cuda::max_backward(&Context::get(ordinal)?, &dy, &indices, &mut dx, len, inner)
        }
    }?;
    Ok(dx)
}

/// `[outer, length, inner]` around a dimension.
fn around(op: &'static str, x: &Tensor, dim: usize) -> Result<[usize; 3]> {
    let dims = x.dims();
    let len = *dims.get(dim).ok_or(Error::IndexOutOfRange { op, index: dim, len: dims.len() })?;
    Ok([dims[..dim].iter().product(), len, dims[dim + 1..].iter().product()])
}

fn reduced(x: &Tensor, dim: usize, keepdim: bool) -> Vec<usize> {
    let mut dims = x.dims().to_vec();
    if keepdim {
        dims[dim] = 1;
    } else {
        dims.remove(dim);
    }
    dims
}
