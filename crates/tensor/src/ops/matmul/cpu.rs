//! Matrix products on the CPU.

use crate::cpu::gemm::{self, MatrixMut, MatrixRef, gemm, naive};
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::{DType, Element, Result, Tensor};

/// Products of fewer multiply-adds are handed out whole, one per thread; larger ones are shared by the threads.
const SHARED_WORK: usize = 1 << 22;

/// The product of two batches of matrices, `[.., M, K]` and `[.., K, N]`, as `dims`: F32 or F64.
pub(super) fn matmul(a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let (m, k, n) = (a.dims()[a.rank() - 2], a.dims()[a.rank() - 1], b.dims()[b.rank() - 1]);
    let mut y = Tensor::empty(dims, a.dtype(), a.device())?;
    if m * n == 0 {
        return Ok(y);
    }
    if a.dtype() == DType::F64 {
        for (index, y) in y.as_mut_slice::<f64>()?.chunks_mut(m * n).enumerate() {
            naive(matrix(a, index), matrix(b, index), MatrixMut::new(y, m, n), false);
        }
    } else if m * k * n < SHARED_WORK {
        let isa = Isa::current();
        parallel::for_each_chunk_mut(y.as_mut_slice::<f32>()?, m * n, |index, y| {
            gemm::gemm_sequential(isa, matrix(a, index), matrix(b, index), MatrixMut::new(y, m, n), false);
        });
    } else {
        for (index, y) in y.as_mut_slice::<f32>()?.chunks_mut(m * n).enumerate() {
            gemm(matrix(a, index), matrix(b, index), MatrixMut::new(y, m, n), false, None);
        }
    }
    Ok(y)
}

/// The `index`-th matrix of a batch, in row-major order of the batch.
pub(in crate::ops) fn matrix<E: Element>(x: &Tensor, index: usize) -> MatrixRef<'_, E> {
    let rank = x.rank();
    let (rows, columns) = (x.dims()[rank - 2], x.dims()[rank - 1]);
    if rows * columns == 0 {
        return MatrixRef::new(&[], rows, columns);
    }
    let start = x.layout().position(index * rows * columns);
    let strides = &x.strides()[rank - 2..];
    MatrixRef::with_strides(&x.storage().elements()[start..], rows, columns, strides[0], strides[1])
}
