//! Mean cross entropy of rows of logits: `loss = 1/B sum_b (logsumexp(x_b) - x_b[label_b])`.
//!
//! Backward: `dx = dloss / B * (softmax(x) - onehot(label))`. `torch.nn.functional.cross_entropy` with its default mean.

mod cpu;
mod cuda;

use super::check;
use crate::cuda::Context;
use crate::{Device, Error, Result, Tensor};

/// What [`cross_entropy`] returns; backward needs the probabilities.
#[derive(Debug)]
pub struct CrossEntropy {
    /// A scalar in the accumulator's dtype.
    pub loss: Tensor,
    /// `[B, K]`: softmax of the logits, in their dtype.
    pub probabilities: Tensor,
}

/// Mean loss of `logits: [B, K]` (rows may be strided) against `labels: [B]`; losses of rows are added up in f64.
///
/// # Errors
/// `ShapeMismatch`, also for no rows; `IndexOutOfRange` for a label; `DTypeMismatch` for integers, `NotContiguous`,
/// `NotSupported` on CUDA but for F32 and BF16.
pub fn cross_entropy(logits: &Tensor, labels: &[u32]) -> Result<CrossEntropy> {
    const OP: &str = "cross_entropy";
    let classes = check_labels(OP, "logits [B, K]", logits, labels)?;
    match logits.device() {
        Device::Cpu => cpu::forward(OP, logits, labels, classes),
        Device::Cuda(ordinal) => cuda::forward(&Context::get(ordinal)?, OP, logits, labels),
    }
}

/// Gradient of [`cross_entropy`] with respect to the logits: `[B, K]` in the dtype of `probabilities: [B, K]`, from the
/// scalar `dloss`.
///
/// # Errors
/// As [`cross_entropy`].
pub fn cross_entropy_backward(dloss: &Tensor, probabilities: &Tensor, labels: &[u32]) -> Result<Tensor> {
    const OP: &str = "cross_entropy_backward";
    let classes = check_labels(OP, "probabilities [B, K]", probabilities, labels)?;
    match probabilities.device() {
        Device::Cpu => cpu::backward(OP, dloss, probabilities, labels, classes),
        Device::Cuda(ordinal) => cuda::backward(&Context::get(ordinal)?, OP, dloss, probabilities, labels),
    }
}

/// Checks `[B, K]` against B labels, and returns K.
fn check_labels(op: &'static str, what: &str, x: &Tensor, labels: &[u32]) -> Result<usize> {
    let (rows, classes) = check::matrix(op, what, x)?;
    if rows == 0 || rows != labels.len() {
        let expected = format!("{what} with a row for each of {} labels, at least one", labels.len());
        return Err(Error::ShapeMismatch { op, expected, got: x.dims().to_vec() });
    }
    check::ids(op, labels, classes)?;
    Ok(classes)
}
