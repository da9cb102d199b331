//! Mean cross entropy of rows of logits: `loss = 1/B sum_b (logsumexp(x_b) - x_b[label_b])`.
//!
//! Backward: `dx = dloss / B * (softmax(x) - onehot(label))`. `torch.nn.functional.cross_entropy` with its default mean.

use super::check;
use super::softmax::{exponentials, max_and_sum};
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::tensor::Rows;
use crate::{Device, Error, Float, Result, Tensor, cuda, for_float};

/// Rows in one piece of parallel work.
const ROWS: usize = 4;

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
    if logits.device() != Device::Cpu {
        return cuda::cross_entropy(logits, labels);
    }
    let mut probabilities = Tensor::empty(logits.dims(), logits.dtype(), logits.device())?;
    let mut losses = vec![0.0; labels.len()];
    for_float!(OP, logits.dtype(), E => {
        let (logits, isa) = (logits.as_rows::<E>(OP)?, Isa::current());
        let pieces = probabilities.as_mut_slice::<E>()?.chunks_mut(ROWS * classes);
        parallel::for_each(pieces.zip(losses.chunks_mut(ROWS)), |piece, (probabilities, losses)| {
            simd::run(isa, Forward { logits, labels, first: piece * ROWS, probabilities, losses });
        });
        Ok(())
    })?;
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    let loss = Tensor::full(&[], mean, logits.dtype().accumulator(), logits.device())?;
    Ok(CrossEntropy { loss, probabilities })
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

struct Forward<'a, E: Float> {
    logits: Rows<'a, E>,
    labels: &'a [u32],
    first: usize,
    probabilities: &'a mut [E],
    losses: &'a mut [f64],
}

impl<E: Float> Kernel<E::Real> for Forward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        let rows = self.probabilities.chunks_mut(self.logits.width);
        for (row, (probabilities, loss)) in (self.first..).zip(rows.zip(self.losses)) {
            let logits = self.logits.row(row);
            let (max, sum) = max_and_sum::<L, E>(logits);
            exponentials::<L, E>(logits, probabilities, max, sum);
            *loss = sum.ln() + (max - logits[self.labels[row] as usize].to_f64());
        }
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
    if probabilities.device() != Device::Cpu {
        return cuda::cross_entropy_backward(dloss, probabilities, labels);
    }
    let scale = dloss.item()? / labels.len() as f64;
    let mut dlogits = Tensor::empty(probabilities.dims(), probabilities.dtype(), probabilities.device())?;
    for_float!(OP, probabilities.dtype(), E => {
        let (probabilities, isa) = (probabilities.as_rows::<E>(OP)?, Isa::current());
        parallel::for_each_chunk_mut(dlogits.as_mut_slice::<E>()?, ROWS * classes, |piece, dlogits| {
            simd::run(isa, Backward { probabilities, labels, first: piece * ROWS, scale, dlogits });
        });
        Ok(())
    })?;
    Ok(dlogits)
}

struct Backward<'a, E: Float> {
    probabilities: Rows<'a, E>,
    labels: &'a [u32],
    first: usize,
    scale: f64,
    dlogits: &'a mut [E],
}

impl<E: Float> Kernel<E::Real> for Backward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        let scale = L::constant(self.scale);
        for (row, dlogits) in (self.first..).zip(self.dlogits.chunks_mut(self.probabilities.width)) {
            let probabilities = self.probabilities.row(row);
            simd::map(probabilities, dlogits, |p: L| p * scale);
            let label = self.labels[row] as usize;
            dlogits[label] = E::from_f64((probabilities[label].to_f64() - 1.0) * self.scale);
        }
    }
}
