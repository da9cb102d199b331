//! Sums and maxima on a CUDA device: `kernels/reduce.cu`.

use super::Max;
use crate::cuda::{Buffer, Context};
use crate::{DType, Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::Launcher as _;
use vitrine_kernels::reduce::{ColumnSums, MaxBackward, MaxForward, ROWS, RowSums};

/// The sum over the middle of `[outer, length, inner]`, as `dims`.
pub(super) fn sum(
    context: &Arc<Context>,
    x: &Tensor,
    [outer, len, inner]: [usize; 3],
    dims: &[usize],
) -> Result<Tensor> {
    let x = x.contiguous()?.reshape(&[outer, len, inner])?;
    let mut y = Tensor::empty(dims, x.dtype(), x.device())?;
    for o in 0..outer {
        let mut sums = Tensor::empty(&[inner], DType::F32, x.device())?;
        column_sums(context, "sum", &x.select(0, o)?, &mut sums)?;
        y.device_copy_from(o * inner, &sums.to_dtype(x.dtype())?)?;
    }
    Ok(y)
}

/// The largest elements along the middle of `[outer, length, inner]` and their first positions, as `dims`.
pub(super) fn max(
    context: &Arc<Context>,
    x: &Tensor,
    [_, len, inner]: [usize; 3],
    dims: &[usize],
) -> Result<Max> {
    context.computes("max", x)?;
    let mut values = Tensor::empty(dims, x.dtype(), x.device())?;
    let indices = Tensor::empty(dims, DType::U32, x.device())?;
    let results = values.numel() as u64;
    context.launch(MaxForward {
        x: &x.contiguous()?,
        y: &mut values,
        indices: &mut Buffer::of("max", &indices)?,
        results,
        length: len as u32,
        inner: inner as u64,
    })?;
    Ok(Max { values, indices })
}

/// dx, zeros of `[outer, length, inner]`, becomes dy where the maximum was found. An index beyond the length is passed over.
pub(super) fn max_backward(
    context: &Arc<Context>,
    dy: &Tensor,
    indices: &Tensor,
    dx: &mut Tensor,
    len: usize,
    inner: usize,
) -> Result<()> {
    const OP: &str = "max_backward";
    context.computes(OP, dy)?;
    context.launch(MaxBackward {
        dy,
        indices: &Buffer::of(OP, indices)?,
        dx,
        results: dy.numel() as u64,
        length: len as u32,
        inner: inner as u64,
    })
}

/// y becomes the sums of the columns of a matrix (rows may be strided), in F32: pieces of rows, and the pieces in order.
pub(in crate::ops) fn column_sums(
    context: &Arc<Context>,
    op: &'static str,
    x: &Tensor,
    y: &mut Tensor,
) -> Result<()> {
    context.computes(op, x)?;
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    let mut partials = Tensor::empty(&[rows.div_ceil(ROWS as usize), width], DType::F32, x.device())?;
    context.launch(RowSums {
        x,
        x_stride: x.row_stride(op)? as u64,
        partials: &mut partials,
        rows: rows as u32,
        width: width as u32,
    })?;
    add_partials(context, &partials, y, None)
}

/// The rows of partials added up: their first numbers to y, the others to z.
pub(in crate::ops) fn add_partials(
    context: &Arc<Context>,
    partials: &Tensor,
    y: &mut Tensor,
    z: Option<&mut Tensor>,
) -> Result<()> {
    let (rows, width, split) = (partials.dims()[0] as u32, partials.dims()[1] as u64, y.numel() as u64);
    context.launch(ColumnSums { partials, y, z, rows, width, split })
}
