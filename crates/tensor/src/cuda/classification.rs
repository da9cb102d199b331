//! Softmax, its logarithm, and the cross entropy.

use super::launch::context_for;
use super::memory::Buffer;
use crate::ops::cross_entropy::CrossEntropy;
use crate::{DType, Result, Tensor};
use vitrine_kernels::Launcher as _;
use vitrine_kernels::cross_entropy::{CrossEntropyBackward, CrossEntropyForward, MeanLoss};
use vitrine_kernels::softmax::{SoftmaxBackward, SoftmaxForward};

pub(crate) fn softmax(op: &'static str, x: &Tensor, logarithm: bool) -> Result<Tensor> {
    let context = context_for(op, x)?;
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

pub(crate) fn softmax_backward(op: &'static str, dy: &Tensor, y: &Tensor, logarithm: bool) -> Result<Tensor> {
    let context = context_for(op, y)?;
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

pub(crate) fn cross_entropy(logits: &Tensor, labels: &[u32]) -> Result<CrossEntropy> {
    const OP: &str = "cross_entropy";
    let context = context_for(OP, logits)?;
    let (rows, classes) = (logits.dims()[0], logits.dims()[1]);
    let mut probabilities = Tensor::empty(logits.dims(), logits.dtype(), logits.device())?;
    let mut losses = Tensor::empty(&[rows], DType::F32, logits.device())?;
    context.launch(CrossEntropyForward {
        rows,
        logits,
        stride: logits.row_stride(OP)? as u64,
        labels: &Buffer::upload(&context, labels)?,
        probabilities: &mut probabilities,
        losses: &mut losses,
        classes: classes as u32,
    })?;
    let mut loss = Tensor::empty(&[], DType::F32, logits.device())?;
    context.launch(MeanLoss { losses: &losses, loss: &mut loss, rows: rows as u32 })?;
    Ok(CrossEntropy { loss, probabilities })
}

pub(crate) fn cross_entropy_backward(
    dloss: &Tensor,
    probabilities: &Tensor,
    labels: &[u32],
) -> Result<Tensor> {
    let context = context_for("cross_entropy_backward", probabilities)?;
    let (rows, classes) = (probabilities.dims()[0], probabilities.dims()[1]);
    let mut dlogits = Tensor::empty(probabilities.dims(), probabilities.dtype(), probabilities.device())?;
    context.launch(CrossEntropyBackward {
        rows,
        dloss: &dloss.to_device(probabilities.device())?.to_dtype(DType::F32)?.contiguous()?,
        probabilities: &probabilities.contiguous()?,
        labels: &Buffer::upload(&context, labels)?,
        dlogits: &mut dlogits,
        classes: classes as u32,
    })?;
    Ok(dlogits)
}
