//! Classification of texts without labels.

use crate::{Result, TrainError};
use vitrine_autograd::Tape;
use vitrine_bert::{SequenceClassifier, TokenBatch, Tokenizer};

/// What a classifier says of one text.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// One number a class, before softmax.
    pub logits: Vec<f32>,
    /// Softmax of the logits.
    pub probabilities: Vec<f32>,
    /// Tokens read, `[CLS]` and `[SEP]` included.
    pub tokens: usize,
    /// Whether the text was longer than the model's maximum.
    pub truncated: bool,
}

impl Prediction {
    /// Softmax of the logits, and where they come from.
    ///
    /// # Errors
    /// `NonFiniteLogits`.
    pub fn new(logits: Vec<f32>, tokens: usize, truncated: bool) -> Result<Self> {
        if let Some(&value) = logits.iter().find(|logit| !logit.is_finite()) {
            return Err(TrainError::NonFiniteLogits { row: 0, value });
        }
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exponentials: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - largest).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        let probabilities = exponentials.iter().map(|x| (x / sum) as f32).collect();
        Ok(Prediction { logits, probabilities, tokens, truncated })
    }

    /// The classes, likeliest first; equals in their own order.
    pub fn ranked(&self) -> Vec<usize> {
        let mut classes: Vec<usize> = (0..self.logits.len()).collect();
        classes.sort_by(|&a, &b| self.logits[b].total_cmp(&self.logits[a]));
        classes
    }
}

/// Classifies texts in one unpadded batch, truncating at the model's maximum.
///
/// # Errors
/// Errors of the layers below; logits that are not numbers.
pub fn predict(model: &SequenceClassifier, tokenizer: &Tokenizer, texts: &[&str]) -> Result<Vec<Prediction>> {
    let config = model.config();
    let encodings = tokenizer.encode_batch(texts, config.max_length())?;
    let batch = TokenBatch::new(encodings.iter().map(|encoding| encoding.ids.as_slice()), None, config)?;
    let logits = model.logits(&Tape::inference(), &batch)?.value().to_vec::<f32>()?;
    let rows = logits.chunks(config.num_labels());
    encodings
        .iter()
        .zip(rows)
        .map(|(e, row)| Prediction::new(row.to_vec(), e.ids.len(), e.truncated))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_a_softmax() {
        let prediction = Prediction::new(vec![1000.0, 1000.0 + 3f32.ln()], 5, false).unwrap();
        assert!((prediction.probabilities[1] - 0.75).abs() < 1e-4, "{:?}", prediction.probabilities);
        assert_eq!(prediction.ranked(), [1, 0]);
        assert!(Prediction::new(vec![f32::NAN, 0.0], 5, false).is_err());
    }
}
