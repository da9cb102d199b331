//! [`Subject::pooled_states`]: what each layer makes of many texts, a row a text.

use crate::lens::stream;
use crate::prediction::{TOKENS, tell};
use crate::subject::numbers;
use crate::{Result, Subject, Text, Watch};
use serde::Serialize;
use vitrine_autograd::Tape;
use vitrine_bert::{Tap, Taps, TokenBatch};

/// What becomes of the tokens of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The row of the first token.
    Cls,
    /// The mean over all tokens, the added ones included.
    Mean,
    /// The largest value of each column over all tokens.
    Max,
}

impl Pooling {
    /// Every kind.
    pub const ALL: [Pooling; 3] = [Pooling::Cls, Pooling::Mean, Pooling::Max];

    /// Rows of the tokens of a text, `[S, width]`, to one.
    fn pool(self, rows: &[f64], width: usize) -> Vec<f64> {
        let mut all = rows.chunks(width);
        let mut pooled = all.next().map(<[f64]>::to_vec).unwrap_or_default();
        match self {
            Pooling::Cls => {}
            Pooling::Mean => {
                all.for_each(|row| pooled.iter_mut().zip(row).for_each(|(sum, value)| *sum += value));
                let size = (rows.len() / width) as f64;
                pooled.iter_mut().for_each(|sum| *sum /= size);
            }
            Pooling::Max => {
                all.for_each(|row| {
                    pooled.iter_mut().zip(row).for_each(|(most, value)| *most = most.max(*value));
                });
            }
        }
        pooled
    }
}

/// Rows of numbers, one a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Row-major.
    pub values: Vec<f64>,
    /// Numbers of a row.
    pub width: usize,
}

impl Rows {
    /// The number of rows.
    pub fn count(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Each row.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks(self.width.max(1))
    }
}

impl Subject {
    /// Of the residual stream at each depth, a row of the hidden width for each text: `[L + 1]` of `poolings`. Depth 0 is the
    /// embeddings.
    ///
    /// # Errors
    /// `Stopped`; errors of the model.
    pub fn pooled_states(
        &self,
        texts: &[Text],
        poolings: &[Pooling],
        watch: Watch<'_>,
    ) -> Result<Vec<Vec<Rows>>> {
        let (layers, width) = (self.config().num_hidden_layers, self.config().hidden_size);
        let empty = Rows { values: Vec::with_capacity(texts.len() * width), width };
        let mut all = vec![vec![empty; poolings.len()]; layers + 1];
        let mut first = 0;
        while first < texts.len() {
            tell(watch, first, texts.len())?;
            let mut tokens = 0;
            let fits = texts[first..].iter().take_while(|text| {
                tokens += text.size();
                tokens <= TOKENS
            });
            let batch = &texts[first..first + fits.count().max(1)];
            first += batch.len();
            let mut taps = Taps::new();
            let read: Vec<Tap> = stream(layers).into_iter().map(|point| taps.read(point)).collect();
            let batch = TokenBatch::new(batch.iter().map(Text::ids), None, self.config())?;
            self.run(&Tape::inference(), &batch, &taps)?;
            for (tap, rows) in read.into_iter().zip(&mut all) {
                let values = numbers(&taps.value(tap)?)?;
                for range in batch.offsets().ranges() {
                    let of_text = &values[range.start * width..range.end * width];
                    for (rows, pooling) in rows.iter_mut().zip(poolings) {
                        rows.values.extend(pooling.pool(of_text, width));
                    }
                }
            }
        }
        tell(watch, texts.len(), texts.len())?;
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_become_one_row() {
        let rows = [1.0, -2.0, 3.0, -4.0, 2.0, 0.0];
        let pooled = Pooling::ALL.map(|pooling| pooling.pool(&rows, 2));
        assert_eq!(pooled, [vec![1.0, -2.0], vec![2.0, -2.0], vec![3.0, 0.0]]);
    }
}
