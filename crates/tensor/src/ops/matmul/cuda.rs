//! Matrix products on a CUDA device.

use crate::cuda::Context;
use crate::cuda::gemm::{product, simt};
use crate::{DType, Result, Tensor};
use std::sync::Arc;

/// The product of two batches of matrices, `[.., M, K]` and `[.., K, N]`, as `dims`: F32.
pub(super) fn matmul(context: &Arc<Context>, a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor> {
    const OP: &str = "matmul";
    let batch = &dims[..dims.len() - 2];
    if batch.is_empty() {
        return product(context, OP, a, b, DType::F32);
    }
    let count = batch.iter().product();
    let (m, k, n) = (a.dims()[a.rank() - 2], a.dims()[a.rank() - 1], b.dims()[b.rank() - 1]);
    let mut c = Tensor::empty(&[count, m, n], a.dtype(), a.device())?;
    simt(context, OP, &a.reshape(&[count, m, k])?, &b.reshape(&[count, k, n])?, None, None, &mut c)?;
    c.reshape(dims)
}
