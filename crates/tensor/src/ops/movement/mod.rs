//! Moving elements: concatenation, choosing rows, and the gradients of views.

mod cpu;
pub(super) mod cuda;

use super::check;
use crate::cuda::Context;
use crate::{Device, Error, Result, Tensor};

/// The tensors one after the other along dimension `dim`; all other dimensions agree. Its gradient is a `narrow` for
/// each.
///
/// # Errors
/// `InvalidArgument` for no tensors; `IndexOutOfRange` when there is no such dimension; `ShapeMismatch`,
/// `DTypeMismatch` or `DeviceMismatch` when the tensors do not agree.
pub fn cat(tensors: &[&Tensor], dim: usize) -> Result<Tensor> {
    let Some(&first) = tensors.first() else {
        let (expected, got) = ("at least one tensor", "none".into());
        return Err(Error::InvalidArgument { op: "cat", name: "tensors", expected, got });
    };
    if dim >= first.rank() {
        return Err(Error::IndexOutOfRange { op: "cat", index: dim, len: first.rank() });
    }
    let mut dims = first.dims().to_vec();
    dims[dim] = 0;
    for tensor in tensors {
        check::same_type("cat", first, tensor)?;
        let others = |x: &Tensor| [&x.dims()[..dim], &x.dims()[dim + 1..]].concat();
        if tensor.rank() != first.rank() || others(tensor) != others(first) {
            let expected = format!("{:?} but in dimension {dim}", first.dims());
            return Err(Error::ShapeMismatch { op: "cat", expected, got: tensor.dims().to_vec() });
        }
        dims[dim] += tensor.dims()[dim];
    }
    match first.device() {
        Device::Cpu => cpu::cat(tensors, dim, &dims),
        Device::Cuda(_) => cuda::cat(tensors, dim, &dims),
    }
}

/// Row `indices[b]` of `x` `[T, C]` for each `b`: `[B, C]`, any dtype. `x` may have row strides.
///
/// # Errors
/// `ShapeMismatch` unless `x` is a matrix; `IndexOutOfRange`; `NotContiguous`.
pub fn gather_rows(x: &Tensor, indices: &[u32]) -> Result<Tensor> {
    let (rows, _) = check::matrix("gather_rows", "rows", x)?;
    check::ids("gather_rows", indices, rows)?;
    match x.device() {
        Device::Cpu => cpu::gather_rows(x, indices),
        Device::Cuda(ordinal) => cuda::gather_rows(&Context::get(ordinal)?, "gather_rows", x, indices),
    }
}

/// The gradient of [`gather_rows`] for `rows` rows: `dx` `[T, C]` is 0 but for `dx[indices[b]] += dy[b]`, in the order
/// of `b` and in the dtype of `dy` `[B, C]`.
///
/// # Errors
/// `ShapeMismatch` unless `dy` has a row for each index; `IndexOutOfRange`; `DTypeMismatch` for integers;
/// `NotContiguous`.
pub fn gather_rows_backward(dy: &Tensor, indices: &[u32], rows: usize) -> Result<Tensor> {
    let (count, _) = check::matrix("gather_rows_backward", "dy", dy)?;
    if count != indices.len() {
        let expected = format!("[{}, C], a row for each index", indices.len());
        return Err(Error::ShapeMismatch { op: "gather_rows_backward", expected, got: dy.dims().to_vec() });
    }
    check::ids("gather_rows_backward", indices, rows)?;
    match dy.device() {
        Device::Cpu => cpu::gather_rows_backward(dy, indices, rows),
        Device::Cuda(ordinal) => cuda::gather_rows_backward(&Context::get(ordinal)?, dy, indices, rows),
    }
}

/// The gradient of `narrow(dim, start, len)` for a tensor whose dimension `dim` has `length` elements: `dy` with zeros
/// before and after.
///
/// # Errors
/// `IndexOutOfRange` when there is no such dimension or range; `DTypeMismatch` for integers.
pub fn narrow_backward(dy: &Tensor, dim: usize, start: usize, length: usize) -> Result<Tensor> {
    let op = "narrow_backward";
    let &len = dy.dims().get(dim).ok_or(Error::IndexOutOfRange { op, index: dim, len: dy.rank() })?;
    let end = start.saturating_add(len);
    if end > length {
        return Err(Error::IndexOutOfRange { op, index: end, len: length });
    }
    let padding = |count| {
        let mut dims = dy.dims().to_vec();
        dims[dim] = count;
        Tensor::zeros(&dims, dy.dtype(), dy.device())
    };
    cat(&[&padding(start)?, dy, &padding(length - end)?], dim)
}
