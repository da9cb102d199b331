//! [`Prediction`], and logits of many variants of one text.

use crate::subject::numbers;
use crate::{Blocks, ExplainError, Result, Subject, Text};
use serde::Serialize;
use vitrine_autograd::Tape;
use vitrine_bert::Taps;

/// Tokens that run at once where nothing is kept for gradients.
pub(crate) const TOKENS: usize = 4096;

/// Called between batches with how much is done, and of how much; false ends the work with [`ExplainError::Stopped`].
pub type Watch<'a> = &'a dyn Fn(usize, usize) -> bool;

/// Tells a watch how far the work is.
pub(crate) fn tell(watch: Watch<'_>, done: usize, of: usize) -> Result<()> {
    if watch(done, of) { Ok(()) } else { Err(ExplainError::Stopped) }
}

/// What a classifier says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// A logit for each class.
    pub logits: Vec<f32>,
    /// Their softmax.
    pub probabilities: Vec<f32>,
}

impl Prediction {
    /// Of a row of logits.
    ///
    /// # Errors
    /// `NotFinite`.
    pub(crate) fn new(logits: &[f64]) -> Result<Prediction> {
        finite("a logit", logits)?;
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exponentials: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        Ok(Prediction {
            logits: logits.iter().map(|&logit| logit as f32).collect(),
            probabilities: exponentials.iter().map(|x| (x / sum) as f32).collect(),
        })
    }

    /// The likeliest class; of equals the first.
    pub fn class(&self) -> usize {
        (0..self.logits.len()).fold(0, |best, class| match self.logits[class] > self.logits[best] {
            true => class,
            false => best,
        })
    }
}

/// Refuses what is not finite.
pub(crate) fn finite(what: &'static str, values: &[f64]) -> Result<()> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(&value) => Err(ExplainError::NotFinite { what, value }),
        None => Ok(()),
    }
}

impl Subject {
    /// What the classifier says of a text; none without a classifier.
    ///
    /// # Errors
    /// As [`Blocks::check`]; `NotFinite`; errors of the model.
    pub fn predict(&self, text: &Text, blocks: &Blocks) -> Result<Option<Prediction>> {
        let mut taps = Taps::new();
        blocks.set(&mut taps, self, text.size())?;
        let tape = Tape::inference();
        let logits = self.run(&tape, &self.copies(&text.ids(), 1)?, &taps)?;
        logits.map(|logits| Prediction::new(&numbers(logits.value())?)).transpose()
    }

    /// The logit of a class for `count` variants of one text, in runs that have at most [`TOKENS`] tokens. `vary` sets the taps that
    /// make variants `first..first + n` of a batch of n copies.
    pub(crate) fn logits_of_variants(
        &self,
        text: &Text,
        blocks: &Blocks,
        class: usize,
        count: usize,
        watch: Watch<'_>,
        vary: impl Fn(&mut Taps, usize, usize) -> Result<()>,
    ) -> Result<Vec<f64>> {
        let rows = self.rows_of_variants(text, blocks, count, watch, vary)?;
        Ok(rows.iter().map(|row| row[class]).collect())
    }

    /// As [`logits_of_variants`](Self::logits_of_variants), of all classes.
    pub(crate) fn rows_of_variants(
        &self,
        text: &Text,
        blocks: &Blocks,
        count: usize,
        watch: Watch<'_>,
        vary: impl Fn(&mut Taps, usize, usize) -> Result<()>,
    ) -> Result<Vec<Vec<f64>>> {
        let (ids, size) = (text.ids(), text.size());
        let at_once = (TOKENS / size).max(1);
        let mut rows = Vec::with_capacity(count);
        for first in (0..count).step_by(at_once) {
            tell(watch, first, count)?;
            let n = at_once.min(count - first);
            let mut taps = Taps::new();
            blocks.set(&mut taps, self, size)?;
            vary(&mut taps, first, n)?;
            let tape = Tape::inference();
            let values = numbers(self.logits(&tape, &self.copies(&ids, n)?, &taps)?.value())?;
            finite("a logit", &values)?;
            rows.extend(values.chunks(values.len() / n).map(<[f64]>::to_vec));
        }
        tell(watch, count, count)?;
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_a_softmax() {
        let prediction = Prediction::new(&[1000.0, 1000.0 + 3f64.ln()]).unwrap();
        assert!((prediction.probabilities[1] - 0.75).abs() < 1e-6);
        assert_eq!(prediction.class(), 1);
        assert_eq!(Prediction::new(&[2.0, 2.0]).unwrap().class(), 0);
        assert!(Prediction::new(&[f64::NAN, 0.0]).is_err());
    }
}
