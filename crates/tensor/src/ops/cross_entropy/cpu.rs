//! Cross entropy on the CPU: a row's softmax and its loss in one pass.

use super::CrossEntropy;
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::ops::softmax::cpu::{exponentials, max_and_sum};
use crate::tensor::Rows;
use crate::{Float, Result, Tensor, for_float};

/// Rows in one piece of parallel work.
const ROWS: usize = 4;

pub(super) fn forward(
    op: &'static str,
    logits: &Tensor,
    labels: &[u32],
    classes: usize,
) -> Result<CrossEntropy> {
    let mut probabilities = Tensor::empty(logits.dims(), logits.dtype(), logits.device())?;
    let mut losses = vec![0.0; labels.len()];
    for_float!(op, logits.dtype(), E => {
        let (logits, isa) = (logits.as_rows::<E>(op)?, Isa::current());
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

pub(super) fn backward(
    op: &'static str,
    dloss: &Tensor,
    probabilities: &Tensor,
    labels: &[u32],
    classes: usize,
) -> Result<Tensor> {
    let scale = dloss.item()? / labels.len() as f64;
    let mut dlogits = Tensor::empty(probabilities.dims(), probabilities.dtype(), probabilities.device())?;
    for_float!(op, probabilities.dtype(), E => {
        let (probabilities, isa) = (probabilities.as_rows::<E>(op)?, Isa::current());
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
