//! Cross entropy on a CUDA device: `kernels/cross_entropy.cu`.

use super::CrossEntropy;
use crate::cuda::{Buffer, Context};
use crate::{DType, Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::Launcher as _;
use vitrine_kernels::cross_entropy::{CrossEntropyBackward, CrossEntropyForward, MeanLoss};

pub(super) fn forward(
    context: &Arc<Context>,
    op: &'static str,
    logits: &Tensor,
    labels: &[u32],
) -> Result<CrossEntropy> {
    context.computes(op, logits)?;
    let (rows, classes) = (logits.dims()[0], logits.dims()[1]);
    let mut probabilities = Tensor::empty(logits.dims(), logits.dtype(), logits.device())?;
    let mut losses = Tensor::empty(&[rows], DType::F32, logits.device())?;
    context.launch(CrossEntropyForward {
        rows,
        logits,
        stride: logits.row_stride(op)? as u64,
        labels: &Buffer::upload(context, labels)?,
        probabilities: &mut probabilities,
        losses: &mut losses,
        classes: classes as u32,
    })?;
    let mut loss = Tensor::empty(&[], DType::F32, logits.device())?;
    context.launch(MeanLoss { losses: &losses, loss: &mut loss, rows: rows as u32 })?;
    Ok(CrossEntropy { loss, probabilities })
}

pub(super) fn backward(
    context: &Arc<Context>,
    op: &'static str,
    dloss: &Tensor,
    probabilities: &Tensor,
    labels: &[u32],
) -> Result<Tensor> {
    context.computes(op, probabilities)?;
    let (rows, classes) = (probabilities.dims()[0], probabilities.dims()[1]);
    let mut dlogits = Tensor::empty(probabilities.dims(), probabilities.dtype(), probabilities.device())?;
    context.launch(CrossEntropyBackward {
        rows,
        dloss: &dloss.to_device(probabilities.device())?.to_dtype(DType::F32)?.contiguous()?,
        probabilities: &probabilities.contiguous()?,
        labels: &Buffer::upload(context, labels)?,
        dlogits: &mut dlogits,
        classes: classes as u32,
    })?;
    Ok(dlogits)
}
