//! Functions of elements on a CUDA device: a kernel each, on contiguous arrays of one shape; what is broadcast or strided is
//! copied first.

use super::{Binary, Unary};
use crate::cuda::Context;
use crate::{Result, Tensor};
use std::sync::Arc;

/// `y = f(x)`.
pub(in crate::ops) fn unary(
    context: &Arc<Context>,
    op: &'static str,
    x: &Tensor,
    f: impl Unary,
) -> Result<Tensor> {
    context.computes(op, x)?;
    let x = x.contiguous()?;
    let mut y = Tensor::empty(x.dims(), x.dtype(), x.device())?;
    f.launch(context, &x, &mut y)?;
    Ok(y)
}

/// `y = f(a, b)`, both broadcast to `dims`.
pub(super) fn binary(
    context: &Arc<Context>,
    op: &'static str,
    a: &Tensor,
    b: &Tensor,
    dims: &[usize],
    f: impl Binary,
) -> Result<Tensor> {
    context.computes(op, a)?;
    let (a, b) = (a.broadcast_to(dims)?.contiguous()?, b.broadcast_to(dims)?.contiguous()?);
    let mut y = Tensor::empty(dims, a.dtype(), a.device())?;
    f.launch(context, &a, &b, &mut y)?;
    Ok(y)
}
