//! Matrix products: cuBLASLt where it is installed, else our own kernels: tensor cores for bfloat16 whose rows are aligned,
//! plain FMAs for everything else.

use super::context::Context;
use super::cublaslt::Beside;
use crate::{DType, Error, Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::Launcher as _;
use vitrine_kernels::gemm_simt::{Gemm, GemmSimt};

/// How a matrix lies in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Rows of neighbours, this many elements apart.
    Rows(usize),
    /// Columns of neighbours.
    Columns(usize),
    Neither,
}

/// The order of a matrix, if the tensor-core kernels can read it: starts and rows at multiples of 16 bytes.
pub(crate) fn order(x: &Tensor) -> Order {
    let aligned = |stride: usize| stride.is_multiple_of(8) && x.device_address().is_multiple_of(16);
    match *x.strides() {
        [row, 1] if aligned(row) => Order::Rows(row),
        [1, column] if aligned(column) => Order::Columns(column),
        _ => Order::Neither,
    }
}

/// `c = a b (+ bias) (+ so_far)` for matrices of any strides, or batches of them; c is contiguous, and so_far like it.
pub(crate) fn simt(
    context: &Arc<Context>,
    op: &'static str,
    a: &Tensor,
    b: &Tensor,
    bias: Option<&Tensor>,
    so_far: Option<&Tensor>,
    c: &mut Tensor,
) -> Result<()> {
    context.computes(op, a)?;
    if !matches!((a.dtype(), c.dtype()), (DType::F32 | DType::BF16, DType::F32) | (DType::BF16, DType::BF16))
    {
        return Err(Error::NotSupported { op, device: a.device(), dtype: a.dtype() });
    }
    let strides = |x: &Tensor| {
        let strides = x.strides();
        let batch = if x.rank() == 3 { strides[0] as u64 } else { 0 };
        (strides[x.rank() - 2] as u64, strides[x.rank() - 1] as u64, batch)
    };
    let ((a_row, a_column, a_batch), (b_row, b_column, b_batch)) = (strides(a), strides(b));
    let (m, k, n) = (a.dims()[a.rank() - 2], a.dims()[a.rank() - 1], b.dims()[b.rank() - 1]);
    let gemm = Gemm {
        a_row,
        a_column,
        a_batch,
        b_row,
        b_column,
        b_batch,
        m: m as u32,
        n: n as u32,
        k: k as u32,
        reserved: 0,
    };
    let batch = if a.rank() == 3 { a.dims()[0] } else { 1 };
    context.launch(GemmSimt { batch, a, b, bias, so_far, c, gemm })
}

/// `a b` of two matrices of one dtype, with sums in F32, as a tensor of dtype `out`.
pub(crate) fn product(
    context: &Arc<Context>,
    op: &'static str,
    a: &Tensor,
    b: &Tensor,
    out: DType,
) -> Result<Tensor> {
    let mut c = Tensor::empty(&[a.dims()[0], b.dims()[1]], out, a.device())?;
    if let Some(library) = &context.cublaslt
        && library.product(context, a, b, Beside::Nothing, &mut c).is_some()
    {
        return Ok(c);
    }
    simt(context, op, a, b, None, None, &mut c)?;
    Ok(c)
}
