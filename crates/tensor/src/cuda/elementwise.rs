//! Element by element: functions, conversions, copies of views; and sums over a dimension.
//!
//! Kernels work on contiguous arrays of one shape; what is broadcast or strided is copied first.

use super::launch::{context_for, context_of};
use super::memory::Buffer;
use crate::ops::elementwise::{Binary, Unary};
use crate::{DType, Error, Result, Tensor};
use vitrine_kernels::Launcher as _;
use vitrine_kernels::cast::Cast;
use vitrine_kernels::elementwise::{Fill, StridedCopy, View};
use vitrine_kernels::reduce::{ColumnSums, MaxBackward, MaxForward, ROWS, RowSums};

/// `y = f(x)`.
pub(crate) fn unary(op: &'static str, x: &Tensor, f: impl Unary) -> Result<Tensor> {
    let context = context_for(op, x)?;
    let x = x.contiguous()?;
    let mut y = Tensor::empty(x.dims(), x.dtype(), x.device())?;
    f.launch(&context, &x, &mut y)?;
    Ok(y)
}

/// `y = f(a, b)`, both broadcast to `dims`.
pub(crate) fn binary(
    op: &'static str,
    a: &Tensor,
    b: &Tensor,
    dims: &[usize],
    f: impl Binary,
) -> Result<Tensor> {
    let context = context_for(op, a)?;
    let (a, b) = (a.broadcast_to(dims)?.contiguous()?, b.broadcast_to(dims)?.contiguous()?);
    let mut y = Tensor::empty(dims, a.dtype(), a.device())?;
    f.launch(&context, &a, &b, &mut y)?;
    Ok(y)
}

/// Sets every element to `value`.
pub(crate) fn fill(y: &mut Tensor, value: f64) -> Result<()> {
    let n = y.numel() as u64;
    context_for("full", y)?.launch(Fill { y, n, value: value as f32 })
}

/// A contiguous tensor in the other of F32 and BF16.
pub(crate) fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let context = context_of(x)?;
    if !matches!((x.dtype(), dtype), (DType::F32, DType::BF16) | (DType::BF16, DType::F32)) {
        return Err(Error::NotSupported { op: "to_dtype", device: x.device(), dtype });
    }
    let mut y = Tensor::empty(x.dims(), dtype, x.device())?;
    context.launch(Cast { x, y: &mut y, n: x.numel() as u64 })?;
    Ok(y)
}

/// A contiguous copy in storage of its own.
pub(crate) fn copy(x: &Tensor) -> Result<Tensor> {
    let context = context_of(x)?;
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

/// y becomes the sums of the columns of a matrix (rows may be strided), in F32: pieces of rows, and the pieces in order.
pub(super) fn column_sums(op: &'static str, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let context = context_for(op, x)?;
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    let mut partials = Tensor::empty(&[rows.div_ceil(ROWS as usize), width], DType::F32, x.device())?;
    context.launch(RowSums {
        x,
        x_stride: x.row_stride(op)? as u64,
        partials: &mut partials,
        rows: rows as u32,
        width: width as u32,
    })?;
    add_partials(&partials, y, None)
}

/// The rows of partials added up: their first numbers to y, the others to z.
pub(super) fn add_partials(partials: &Tensor, y: &mut Tensor, z: Option<&mut Tensor>) -> Result<()> {
    let (rows, width, split) = (partials.dims()[0] as u32, partials.dims()[1] as u64, y.numel() as u64);
    context_of(y)?.launch(ColumnSums { partials, y, z, rows, width, split })
}

/// The sum over the middle of `[outer, length, inner]`, as `dims`.
pub(crate) fn sum(x: &Tensor, [outer, len, inner]: [usize; 3], dims: &[usize]) -> Result<Tensor> {
    let x = x.contiguous()?.reshape(&[outer, len, inner])?;
    let mut y = Tensor::empty(dims, x.dtype(), x.device())?;
    for o in 0..outer {
        let mut sums = Tensor::empty(&[inner], DType::F32, x.device())?;
        column_sums("sum", &x.select(0, o)?, &mut sums)?;
        y.device_copy_from(o * inner, &sums.to_dtype(x.dtype())?)?;
    }
    Ok(y)
}

/// The largest elements along the middle of `[outer, length, inner]` and their first positions, as `dims`.
pub(crate) fn max(x: &Tensor, [_, len, inner]: [usize; 3], dims: &[usize]) -> Result<[Tensor; 2]> {
    let context = context_for("max", x)?;
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
    Ok([values, indices])
}

/// dx, zeros of `[outer, length, inner]`, becomes dy where the maximum was found. An index beyond the length is passed over.
pub(crate) fn max_backward(
    dy: &Tensor,
    indices: &Tensor,
    dx: &mut Tensor,
    len: usize,
    inner: usize,
) -> Result<()> {
    const OP: &str = "max_backward";
    context_for(OP, dy)?.launch(MaxBackward {
        dy,
        indices: &Buffer::of(OP, indices)?,
        dx,
        results: dy.numel() as u64,
        length: len as u32,
        inner: inner as u64,
    })
}
