//! [`Predictions`]: what a classifier said of every row.

use crate::{Result, TrainError};
use serde::Serialize;
use std::io::Write;

/// What a classifier said of every evaluated row, in the order of the data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    pub(super) names: Vec<String>,
    /// True class of each row.
    pub(super) labels: Vec<u32>,
    /// Tokens of each row as they were read, `[CLS]` and `[SEP]` included.
    pub(super) tokens: Vec<u32>,
    /// Class of the largest logit, the first of equals.
    pub(super) predicted: Vec<u32>,
    /// Softmax of the logits, `[rows, classes]`, rounded to f32.
    pub(super) probabilities: Vec<f32>,
}

/// One row, as a line of `predictions.jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    row: usize,
    label: &'a str,
    predicted: &'a str,
    probabilities: &'a [f32],
    tokens: u32,
}

impl Predictions {
    /// Rows of these true classes and lengths, `[rows]` each, of which nothing is said yet.
    pub fn new(names: Vec<String>, labels: Vec<u32>, tokens: Vec<u32>) -> Self {
        let (rows, classes) = (labels.len(), names.len());
        Predictions {
            names,
            labels,
            tokens,
            predicted: vec![0; rows],
            probabilities: vec![0.0; rows * classes],
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Stores what the model said of some rows: `logits` is `[rows, classes]`. Softmax is computed in f64.
    ///
    /// # Errors
    /// When the lengths do not fit, or a logit is NaN or infinite.
    pub fn set(&mut self, rows: &[usize], logits: &[f32]) -> Result<()> {
        let classes = self.names.len();
        if classes == 0 || logits.len() != rows.len() * classes {
            return Err(TrainError::MetricsShape { logits: logits.len(), labels: rows.len(), classes });
        }
        for (&row, logits) in rows.iter().zip(logits.chunks_exact(classes)) {
            if let Some(&value) = logits.iter().find(|value| !value.is_finite()) {
                return Err(TrainError::NonFiniteLogits { row, value });
            }
            let best = largest(logits);
            let exponentials = logits.iter().map(|&x| (f64::from(x) - f64::from(logits[best])).exp());
            let sum: f64 = exponentials.clone().sum();
            self.predicted[row] = best as u32;
            let probabilities = &mut self.probabilities[row * classes..(row + 1) * classes];
            probabilities.iter_mut().zip(exponentials).for_each(|(p, e)| *p = (e / sum) as f32);
        }
        Ok(())
    }

    /// The probability of the predicted class of a row.
    pub fn confidence(&self, row: usize) -> f32 {
        self.probabilities[row * self.names.len() + self.predicted[row] as usize]
    }

    /// Whether the predicted class of a row is its true one.
    pub fn is_correct(&self, row: usize) -> bool {
        self.predicted[row] == self.labels[row]
    }

    /// Writes a JSON object a row: row, label, predicted, probabilities by class, tokens.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_jsonl(&self, mut file: impl Write) -> std::io::Result<()> {
        let name = |class: u32| self.names[class as usize].as_str();
        for (row, probabilities) in self.probabilities.chunks_exact(self.names.len().max(1)).enumerate() {
            let line = Line {
                row,
                label: name(self.labels[row]),
                predicted: name(self.predicted[row]),
                probabilities,
                tokens: self.tokens[row],
            };
            serde_json::to_writer(&mut file, &line)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// The index of the largest number, the first of equals.
pub(super) fn largest(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}
