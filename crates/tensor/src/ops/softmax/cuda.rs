//! Softmax on a CUDA device: `kernels/softmax.cu`.

use crate::cuda::Context;
use crate::{Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::Launcher as _;
use vitrine_kernels::softmax::{SoftmaxBackward, SoftmaxForward};

pub(super) fn forward(
    context: &Arc<Context>,
    op: &'static str,
    x: &Tensor,
    logarithm: bool,
) -> Result<Tensor> {
    context.computes(op, x)?;
    let mut y = Tensor::empty(x.dims(), x.dtype(), x.device())?;
    let width = x.shape().last_dim();
    context.launch(SoftmaxForward {
        rows: x.numel().checked_div(width).unwrap_or(0),
        x,
        x_stride: x.row_stride(op)? as u64,
        y: &mut y,
        width: width as u32,
        logarithm: u32::from(logarithm),
    })?;
    Ok(y)
}

pub(super) fn backward(
    context: &Arc<Context>,
    op: &'static str,
    dy: &Tensor,
    y: &Tensor,
    logarithm: bool,
) -> Result<Tensor> {
    context.computes(op, y)?;
    let mut dx = Tensor::empty(y.dims(), y.dtype(), y.device())?;
    let width = y.shape().last_dim();
    context.launch(SoftmaxBackward {
        rows: y.numel().checked_div(width).unwrap_or(0),
        dy: &dy.contiguous()?,
        y: &y.contiguous()?,
        dx: &mut dx,
        width: width as u32,
        logarithm: u32::from(logarithm),
    })?;
    Ok(dx)
}
