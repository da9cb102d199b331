//! Checks of operands that the operations share.

use crate::{DType, Error, Result, Tensor};

/// `DeviceMismatch` or `DTypeMismatch` unless two operands agree.
pub(super) fn same_type(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    device(op, a, b)?;
    dtype(op, b, a.dtype())
}

/// `DeviceMismatch` unless two operands are on one device.
pub(super) fn device(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.device() == b.device() {
        return Ok(());
    }
    Err(Error::DeviceMismatch { op, left: a.device(), right: b.device() })
}

/// `ShapeMismatch` unless the operand has exactly this shape.
pub(super) fn shape(op: &'static str, what: &str, tensor: &Tensor, dims: &[usize]) -> Result<()> {
    if tensor.dims() == dims {
        return Ok(());
    }
    Err(Error::ShapeMismatch { op, expected: format!("{what} {dims:?}"), got: tensor.dims().to_vec() })
}

/// `DTypeMismatch` unless the operand has this dtype.
pub(super) fn dtype(op: &'static str, tensor: &Tensor, dtype: DType) -> Result<()> {
    if tensor.dtype() == dtype {
        return Ok(());
    }
    Err(Error::DTypeMismatch { op, expected: dtype.to_string(), got: tensor.dtype() })
}

/// The two lengths of a matrix; `ShapeMismatch` for another rank.
pub(super) fn matrix(op: &'static str, what: &str, tensor: &Tensor) -> Result<(usize, usize)> {
    match *tensor.dims() {
        [rows, columns] => Ok((rows, columns)),
        ref got => {
            Err(Error::ShapeMismatch { op, expected: format!("{what}, two dimensions"), got: got.to_vec() })
        }
    }
}

/// The same of rows that are normalised; `ShapeMismatch` without a channel.
pub(super) fn rows(op: &'static str, what: &str, tensor: &Tensor) -> Result<(usize, usize)> {
    match matrix(op, what, tensor)? {
        (_, 0) => {
            let got = tensor.dims().to_vec();
            Err(Error::ShapeMismatch { op, expected: "at least one channel".into(), got })
        }
        lengths => Ok(lengths),
    }
}

/// `ShapeMismatch`, `DTypeMismatch` or `DeviceMismatch` unless these are `[len]`, in the accumulator's dtype of x, beside x:
/// statistics of its rows, or parameters of its channels.
pub(super) fn vectors<const N: usize>(
    op: &'static str,
    x: &Tensor,
    len: usize,
    vectors: [(&str, &Tensor); N],
) -> Result<()> {
    for (what, vector) in vectors {
        shape(op, what, vector, &[len])?;
        dtype(op, vector, x.dtype().accumulator())?;
        device(op, x, vector)?;
    }
    Ok(())
}

/// `IndexOutOfRange` unless every id is below `len`.
pub(super) fn ids(op: &'static str, ids: &[u32], len: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= len) {
        Some(&id) => Err(Error::IndexOutOfRange { op, index: id as usize, len }),
        None => Ok(()),
    }
}
