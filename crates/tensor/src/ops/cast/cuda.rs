//! Conversions, copies and constants on a CUDA device: `kernels/cast.cu`, and of `kernels/elementwise.cu` what moves elements.

use crate::cuda::Context;
use crate::{DType, Error, Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::Launcher as _;
use vitrine_kernels::cast::Cast;
use vitrine_kernels::elementwise::{Fill, StridedCopy, View};

/// A contiguous tensor in the other of F32 and BF16.
pub(super) fn cast(context: &Arc<Context>, x: &Tensor, dtype: DType) -> Result<Tensor> {
    if !matches!((x.dtype(), dtype), (DType::F32, DType::BF16) | (DType::BF16, DType::F32)) {
        return Err(Error::NotSupported { op: "to_dtype", device: x.device(), dtype });
    }
    let mut y = Tensor::empty(x.dims(), dtype, x.device())?;
    context.launch(Cast { x, y: &mut y, n: x.numel() as u64 })?;
    Ok(y)
}

/// A contiguous copy in storage of its own.
pub(super) fn copy(context: &Arc<Context>, x: &Tensor) -> Result<Tensor> {
    if x.is_contiguous() {
        let mut y = Tensor::empty(x.dims(), x.dtype(), x.device())?;
        y.device_copy_from(0, x)?;
        return Ok(y);
    }
    // Elements are moved, not computed with: those of four bytes can go as F32, those of two as BF16.
    let moved = match x.dtype().size() {
        4 => DType::F32,
        2 => DType::BF16,
        _ => return Err(Error::NotSupported { op: "contiguous", device: x.device(), dtype: x.dtype() }),
    };
    let mut view = View { dims: [1; 6], strides: [0; 6] };
    let lead = 6 - x.rank();
    for (d, (&len, &stride)) in x.dims().iter().zip(x.strides()).enumerate() {
        (view.dims[lead + d], view.strides[lead + d]) = (len as u64, stride as u64);
    }
    let mut y = Tensor::empty(x.dims(), moved, x.device())?;
    context.launch(StridedCopy { x: &x.seen_as(moved), y: &mut y, n: x.numel() as u64, view })?;
    Ok(y.seen_as(x.dtype()))
}

/// Sets every element to `value`.
pub(super) fn fill(context: &Arc<Context>, y: &mut Tensor, value: f64) -> Result<()> {
    let n = y.numel() as u64;
    context.computes("full", y)?;
    context.launch(Fill { y, n, value: value as f32 })
}
