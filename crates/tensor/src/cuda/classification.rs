//! Softmax, its logarithm, and the cross entropy.

use super::launch::{Grid, context_of, kernel, launch, single};
use super::memory::Block;
use crate::ops::cross_entropy::CrossEntropy;
use crate::{DType, Result, Tensor};
use vitrine_kernels::{CROSS_ENTROPY, SOFTMAX};

/// Threads of a block that has one row: a function of the row's length alone, so that sums have one order.
fn threads(width: usize) -> usize {
    width.next_multiple_of(32).clamp(32, 256)
}

pub(crate) fn softmax(op: &'static str, x: &Tensor, logarithm: bool) -> Result<Tensor> {
    let context = context_of(x)?;
    let kernel = kernel(op, &SOFTMAX, "softmax_forward", x)?;
    let mut y = Tensor::empty(x.dims(), x.dtype(), x.device())?;
    let width = x.shape().last_dim();
    let rows = x.numel().checked_div(width).unwrap_or(0);
    let stride = x.row_stride(op)? as u64;
    let grid = Grid::new(rows, 1, threads(width));
    launch!(context, SOFTMAX, kernel, grid, x, stride, &mut y, width as u32, u32::from(logarithm))?;
    Ok(y)
}

pub(crate) fn softmax_backward(op: &'static str, dy: &Tensor, y: &Tensor, logarithm: bool) -> Result<Tensor> {
    let context = context_of(y)?;
    let kernel = kernel(op, &SOFTMAX, "softmax_backward", y)?;
    let (dy, y) = (dy.contiguous()?, y.contiguous()?);
    let mut dx = Tensor::empty(y.dims(), y.dtype(), y.device())?;
    let width = y.shape().last_dim();
    let rows = y.numel().checked_div(width).unwrap_or(0);
    let grid = Grid::new(rows, 1, threads(width));
    launch!(context, SOFTMAX, kernel, grid, &dy, &y, &mut dx, width as u32, u32::from(logarithm))?;
    Ok(dx)
}

pub(crate) fn cross_entropy(logits: &Tensor, labels: &[u32]) -> Result<CrossEntropy> {
    const OP: &str = "cross_entropy";
    let context = context_of(logits)?;
    let kernel = kernel(OP, &CROSS_ENTROPY, "cross_entropy_forward", logits)?;
    let (rows, classes) = (logits.dims()[0], logits.dims()[1]);
    let labels = Block::upload(&context, labels)?;
    let mut probabilities = Tensor::empty(logits.dims(), logits.dtype(), logits.device())?;
    let losses = Block::new(&context, 4 * rows)?;
    let grid = Grid::new(rows, 1, threads(classes));
    let stride = logits.row_stride(OP)? as u64;
    launch!(
        context,
        CROSS_ENTROPY,
        kernel,
        grid,
        logits,
        stride,
        &labels,
        &mut probabilities,
        &losses,
        classes as u32
    )?;
    let mut loss = Tensor::empty(&[], DType::F32, logits.device())?;
    let mean = single(&CROSS_ENTROPY, "mean_loss");
    launch!(context, CROSS_ENTROPY, mean, Grid::new(1, 1, 256), &losses, &mut loss, rows as u32)?;
    Ok(CrossEntropy { loss, probabilities })
}

pub(crate) fn cross_entropy_backward(
    dloss: &Tensor,
    probabilities: &Tensor,
    labels: &[u32],
) -> Result<Tensor> {
    let context = context_of(probabilities)?;
    let name = "cross_entropy_backward";
    let kernel = kernel(name, &CROSS_ENTROPY, name, probabilities)?;
    let labels = Block::upload(&context, labels)?;
    let dloss = dloss.to_device(probabilities.device())?.to_dtype(DType::F32)?.contiguous()?;
    let probabilities = probabilities.contiguous()?;
    let (rows, classes) = (probabilities.dims()[0], probabilities.dims()[1]);
    let mut dlogits = Tensor::empty(probabilities.dims(), probabilities.dtype(), probabilities.device())?;
    let grid = Grid::new(rows, 1, threads(classes));
    launch!(
        context,
        CROSS_ENTROPY,
        kernel,
        grid,
        &dloss,
        &probabilities,
        &labels,
        &mut dlogits,
        classes as u32
    )?;
    Ok(dlogits)
}
