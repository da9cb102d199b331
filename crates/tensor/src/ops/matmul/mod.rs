//! The matrix product of general tensors, `[.., M, K]` times `[.., K, N]`, over broadcast batches.
//!
//! F32 runs on [`gemm`](fn@crate::cpu::gemm::gemm), F64 on the three loops of [`naive`](crate::cpu::gemm::naive); bfloat16 and binary16 operands are converted to F32 and
//! the result is rounded once.

pub(super) mod cpu;
mod cuda;

use super::check;
use super::elementwise::broadcast_shape;
use crate::cuda::Context;
use crate::{DType, Device, Error, Result, Tensor};

/// `a b`: `[.., M, K]` times `[.., K, N]`, any strides; the batch dimensions broadcast. `da = dy b^T`, `db = a^T dy`, each summed
/// to its operand's shape by [`reduce_to_shape`](super::reduce::reduce_to_shape).
///
/// # Errors
/// `ShapeMismatch` unless both have at least two dimensions that fit; `DTypeMismatch` unless both have one float dtype;
/// `DeviceMismatch`.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check::same_type("matmul", a, b)?;
    let ([a_batch @ .., m, k], [b_batch @ .., b_rows, n]) = (a.dims(), b.dims()) else {
        let (expected, got) = if a.rank() < 2 { (b, a) } else { (a, b) };
        let expected = format!("a matrix, or a batch of them, beside {:?}", expected.dims());
        return Err(Error::ShapeMismatch { op: "matmul", expected, got: got.dims().to_vec() });
    };
    if k != b_rows {
        let expected = format!("[.., {k}, N] for a left operand {:?}", a.dims());
        return Err(Error::ShapeMismatch { op: "matmul", expected, got: b.dims().to_vec() });
    }
    let (m, k, n) = (*m, *k, *n);
    if b_batch.is_empty() && !a_batch.is_empty() && a.is_contiguous() {
        // One product with more rows.
        let y = matmul(&a.reshape(&[a_batch.iter().product::<usize>() * m, k])?, b)?;
        return y.reshape(&[a_batch, &[m, n]].concat());
    }
    let batch = broadcast_shape("matmul", a_batch, b_batch)?;
    let dims = [&batch[..], &[m, n]].concat();
    match a.dtype() {
        DType::BF16 | DType::F16 => {
            let y = matmul(&a.to_dtype(DType::F32)?, &b.to_dtype(DType::F32)?)?;
            return y.to_dtype(a.dtype());
        }
        DType::F32 | DType::F64 => {}
        got => return Err(Error::DTypeMismatch { op: "matmul", expected: "a float type".into(), got }),
    }
    let a = a.broadcast_to(&[&batch[..], &[m, k]].concat())?;
    let b = b.broadcast_to(&[&batch[..], &[k, n]].concat())?;
    match a.device() {
        Device::Cpu => cpu::matmul(&a, &b, &dims),
        Device::Cuda(ordinal) => cuda::matmul(&Context::get(ordinal)?, &a, &b, &dims),
    }
}
