//! Rows as token ids: what training and evaluation read.

use crate::data::Dataset;
use crate::data::batching::{EvalBatch, epoch_order, eval_batches, grouped_order};
use crate::{Result, TrainError};
use vitrine_bert::{ModelConfig, TokenBatch, Tokenizer};

/// Tokenized rows, in the order of their data set.
#[derive(Clone, Debug)]
pub struct TokenizedDataset {
    /// Token ids of each row, `[CLS]` and `[SEP]` included.
    ids: Vec<Vec<u32>>,
    labels: Vec<u32>,
    truncated: usize,
}

impl TokenizedDataset {
    /// Tokenizes every row on all threads, truncating at `max_length` tokens.
    ///
    /// # Errors
    /// Errors of the tokenizer; an empty data set.
    pub fn new(rows: &Dataset, tokenizer: &Tokenizer, max_length: usize) -> Result<Self> {
        if rows.is_empty() {
            return Err(TrainError::Empty { data: rows.source.clone() });
        }
        let texts: Vec<&str> = rows.examples.iter().map(|example| example.text.as_str()).collect();
        let encodings = tokenizer.encode_batch(&texts, max_length)?;
        let truncated = encodings.iter().filter(|encoding| encoding.truncated).count();
        let labels = rows.examples.iter().map(|example| example.label).collect();
        let ids = encodings.into_iter().map(|encoding| encoding.ids).collect();
        Ok(TokenizedDataset { ids, labels, truncated })
    }

    /// Number of rows; never zero.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one row")]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Tokens of all rows together.
    pub fn tokens(&self) -> usize {
        self.ids.iter().map(Vec::len).sum()
    }

    /// Rows whose text was longer than the maximum.
    pub fn truncated(&self) -> usize {
        self.truncated
    }

    /// Tokens of each row, in the order of the rows.
    pub fn lengths(&self) -> Vec<u32> {
        self.ids.iter().map(|ids| ids.len() as u32).collect()
    }

    /// Label of each row, in the order of the rows.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The order in which an epoch visits the rows: shuffled by (seed, epoch), or theirs without a seed.
    pub fn order(&self, seed: Option<u64>, epoch: u32) -> Vec<usize> {
        seed.map_or_else(|| (0..self.len()).collect(), |seed| epoch_order(self.len(), seed, epoch))
    }

    /// As [`order`](Self::order) with a seed, but batches hold rows of like lengths.
    pub fn grouped_order(&self, batch_size: usize, seed: u64, epoch: u32) -> Vec<usize> {
        let lengths: Vec<usize> = self.ids.iter().map(Vec::len).collect();
        grouped_order(&lengths, batch_size, seed, epoch)
    }

    /// The rows by length, longest first: evaluation in this order has batches of even lengths, and meets the largest
    /// batch first.
    pub fn by_length(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(self.ids[row].len()));
        order
    }

    /// The rows as evaluation batches: in the order of [`by_length`](Self::by_length).
    pub fn eval_batches(&self, batch: EvalBatch) -> Vec<Vec<usize>> {
        let order = self.by_length();
        let ranges = eval_batches(order.iter().map(|&row| self.ids[row].len()), batch);
        ranges.into_iter().map(|range| order[range].to_vec()).collect()
    }

    /// The given rows as one unpadded batch.
    ///
    /// # Errors
    /// Ids or labels that the model does not have.
    pub fn batch(&self, rows: &[usize], config: &ModelConfig) -> Result<TokenBatch> {
        let sequences = rows.iter().map(|&row| self.ids[row].as_slice());
        Ok(TokenBatch::new(sequences, Some(&self.labels_of(rows)), config)?)
    }

    /// The labels of the given rows.
    pub fn labels_of(&self, rows: &[usize]) -> Vec<u32> {
        rows.iter().map(|&row| self.labels[row]).collect()
    }
}
