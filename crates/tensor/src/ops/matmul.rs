//! The matrix product of general tensors, `[.., M, K]` times `[.., K, N]`, over broadcast batches.
//!
//! F32 runs on [`gemm`](fn@crate::cpu::gemm::gemm), F64 on the three loops of [`naive`]; bfloat16 and binary16 operands are converted to F32 and
//! the result is rounded once.

use super::check;
use super::elementwise::broadcast_shape;
use crate::cpu::gemm::{self, MatrixMut, MatrixRef, gemm, naive};
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::{DType, Device, Element, Error, Result, Tensor, cuda};

/// Products of fewer multiply-adds are handed out whole, one per thread; larger ones are shared by the threads.
const SHARED_WORK: usize = 1 << 22;

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
    if a.device() != Device::Cpu {
        if batch.is_empty() {
            return cuda::product("matmul", &a, &b, DType::F32);
        }
        let count = batch.iter().product();
        return cuda::matmul(&a.reshape(&[count, m, k])?, &b.reshape(&[count, k, n])?)?.reshape(&dims);
    }
    let mut y = Tensor::empty(&dims, a.dtype(), a.device())?;
    if m * n == 0 {
        return Ok(y);
    }
    if a.dtype() == DType::F64 {
        for (index, y) in y.as_mut_slice::<f64>()?.chunks_mut(m * n).enumerate() {
            naive(matrix(&a, index), matrix(&b, index), MatrixMut::new(y, m, n), false);
        }
    } else if m * k * n < SHARED_WORK {
        let isa = Isa::current();
        parallel::for_each_chunk_mut(y.as_mut_slice::<f32>()?, m * n, |index, y| {
            gemm::gemm_sequential(isa, matrix(&a, index), matrix(&b, index), MatrixMut::new(y, m, n), false);
        });
    } else {
        for (index, y) in y.as_mut_slice::<f32>()?.chunks_mut(m * n).enumerate() {
            gemm(matrix(&a, index), matrix(&b, index), MatrixMut::new(y, m, n), false, None);
        }
    }
    Ok(y)
}

/// The `index`-th matrix of a batch, in row-major order of the batch.
pub(super) fn matrix<E: Element>(x: &Tensor, index: usize) -> MatrixRef<'_, E> {
    let rank = x.rank();
    let (rows, columns) = (x.dims()[rank - 2], x.dims()[rank - 1]);
    if rows * columns == 0 {
        return MatrixRef::new(&[], rows, columns);
    }
    let start = x.layout().position(index * rows * columns);
    let strides = &x.strides()[rank - 2..];
    MatrixRef::with_strides(&x.storage().elements()[start..], rows, columns, strides[0], strides[1])
}
