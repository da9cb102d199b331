//! [`TokenBatch`]: the model's input, checked once.

use crate::{BertError, ModelConfig, Result};
use std::sync::Arc;
use vitrine_autograd::TokenIds;
use vitrine_tensor::Offsets;

/// `B` token sequences one after the other, without padding: `T` tokens in all. Host data.
///
/// A value of this type fits the config that it was made for: no id, position, token type or label is out of range.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    tokens: TokenIds,
    offsets: Offsets,
    labels: Option<Arc<[u32]>>,
    teacher: Option<Teacher>,
}

/// What a teacher says of the sequences of a batch, for a student to learn from.
#[derive(Clone, Debug)]
pub struct Teacher {
    /// `[B, K + M]`: logits, then hidden numbers.
    rows: Arc<[f32]>,
    classes: usize,
    labelled: Arc<[bool]>,
}

impl Teacher {
    /// For each sequence the logits, in the order of the student's classes.
    pub fn logits(&self) -> impl Iterator<Item = &[f32]> {
        self.rows.chunks_exact(self.width()).map(|row| &row[..self.classes])
    }

    /// For each sequence what the teacher's layers computed of it, one after the other; empty if only logits are known.
    pub fn hidden(&self) -> impl Iterator<Item = &[f32]> {
        self.rows.chunks_exact(self.width()).map(|row| &row[self.classes..])
    }

    /// Both, `[B, K + M]`, as [`TokenBatch::with_teacher`] takes it.
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    fn width(&self) -> usize {
        self.rows.len() / self.labelled.len()
    }

    /// Which sequences have a label of their own; the label of another does not count.
    pub fn labelled(&self) -> &[bool] {
        &self.labelled
    }
}

impl TokenBatch {
    /// A batch of sequences, each `[CLS] .. [SEP]`, all of token type 0; `labels` gives each sequence's class. Positions
    /// count from 0; in families that count them from the padding id, from the one after it, and a padding token has the id's.
    ///
    /// # Errors
    /// `Batch` naming the sequence for: no sequence, an empty or too long one, an id outside of the vocabulary, a label
    /// that is not a class, a number of labels other than of sequences.
    pub fn new<S: AsRef<[u32]>>(
        sequences: impl IntoIterator<Item = S>,
        labels: Option<&[u32]>,
        config: &ModelConfig,
    ) -> Result<Self> {
        let (mut ids, mut positions, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for (index, sequence) in sequences.into_iter().enumerate() {
            let sequence = sequence.as_ref();
            let longest = config.max_length();
            if !(1..=longest).contains(&sequence.len()) {
                let expected = format!("1 to {longest} tokens");
                return Err(refusal(index, "length", expected, &sequence.len()));
            }
            below(index, "token id", sequence, config.vocab_size)?;
            ids.extend_from_slice(sequence);
            match config.position_padding {
                None => positions.extend(0..sequence.len() as u32),
                Some(padding) => {
                    let mut last = padding;
                    positions.extend(sequence.iter().map(|&id| {
                        last += u32::from(id != padding);
                        if id == padding { padding } else { last }
                    }));
                }
            }
            lengths.push(sequence.len());
        }
        if lengths.is_empty() {
            return Err(refusal(0, "batch", "at least one sequence".into(), &"none"));
        }
        if let Some(labels) = labels {
            if labels.len() != lengths.len() {
                let expected = format!("{}, one a sequence", lengths.len());
                return Err(refusal(0, "number of labels", expected, &labels.len()));
            }
            for (index, label) in labels.iter().enumerate() {
                below(index, "label", std::slice::from_ref(label), config.num_labels())?;
            }
        }
        let offsets = Offsets::from_lengths(lengths)?;
        let token_types = vec![0; ids.len()].into();
        let tokens = TokenIds { ids: ids.into(), token_types, positions: positions.into() };
        Ok(TokenBatch { tokens, offsets, labels: labels.map(Into::into), teacher: None })
    }

    /// The same batch with these token types, `T` of them: 1 for the second text of a pair.
    ///
    /// # Errors
    /// `Batch` for another number of them, or one that the config does not have.
    pub fn with_token_types(self, token_types: &[u32], config: &ModelConfig) -> Result<Self> {
        if token_types.len() != self.len() {
            let expected = format!("{}, one a token", self.len());
            return Err(refusal(0, "number of token types", expected, &token_types.len()));
        }
        for (index, range) in self.offsets.ranges().enumerate() {
            below(index, "token type", &token_types[range], config.type_vocab_size)?;
        }
        Ok(TokenBatch { tokens: TokenIds { token_types: token_types.into(), ..self.tokens }, ..self })
    }

    /// The same batch with what a teacher says, `[B, K + M]`: a row has the logits of the K classes, and M numbers of the teacher's
    /// layers, or none. `labelled` says which sequences have a label: the others' labels do not count.
    ///
    /// # Errors
    /// `Batch` without labels, for rows of other numbers or less than K of them, and for what is not a number.
    pub fn with_teacher(self, rows: &[f32], labelled: &[bool], config: &ModelConfig) -> Result<Self> {
        self.require_labels()?;
        let (sequences, classes) = (self.sequences(), config.num_labels());
        if labelled.len() != sequences
            || rows.len() < sequences * classes
            || !rows.len().is_multiple_of(sequences)
        {
            let expected = format!("{sequences} x {classes} or more");
            return Err(refusal(0, "number of a teacher's logits", expected, &rows.len()));
        }
        if let Some(place) = rows.iter().position(|value| !value.is_finite()) {
            let sequence = place / (rows.len() / sequences);
            return Err(refusal(sequence, "what a teacher says", "a number".into(), &rows[place]));
        }
        let teacher = Teacher { rows: rows.into(), classes, labelled: labelled.into() };
        Ok(TokenBatch { teacher: Some(teacher), ..self })
    }

    /// What a teacher says of the sequences, if there is one.
    pub fn teacher(&self) -> Option<&Teacher> {
        self.teacher.as_ref()
    }

    /// The number of tokens `T`; never zero.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one token")]
    pub fn len(&self) -> usize {
        self.offsets.total()
    }

    /// The number of sequences `B`.
    pub fn sequences(&self) -> usize {
        self.offsets.sequences()
    }

    /// Id, token type and position of each token.
    pub fn tokens(&self) -> &TokenIds {
        &self.tokens
    }

    /// Where sequences begin and end.
    pub fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    /// Classes of the sequences, `B`.
    ///
    /// # Errors
    /// `Batch` where they are not known.
    pub fn require_labels(&self) -> Result<&Arc<[u32]>> {
        let refused = || refusal(0, "labels", "there, to compute a loss".into(), &"none");
        self.labels.as_ref().ok_or_else(refused)
    }

    /// Classes of the sequences, `B`, if known.
    pub fn labels(&self) -> Option<&Arc<[u32]>> {
        self.labels.as_ref()
    }
}

fn refusal(sequence: usize, name: &'static str, expected: String, got: &dyn ToString) -> BertError {
    BertError::Batch { sequence, name, expected, got: got.to_string() }
}

fn below(sequence: usize, name: &'static str, values: &[u32], limit: usize) -> Result<()> {
    match values.iter().find(|&&value| value as usize >= limit) {
        Some(value) => Err(refusal(sequence, name, format!("below {limit}"), value)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig { vocab_size: 10, max_position_embeddings: 4, ..ModelConfig::default() }
    }

    #[test]
    fn sequences_follow_one_another() {
        let batch = TokenBatch::new([vec![2, 5, 3], vec![2, 3]], Some(&[1, 0]), &config()).unwrap();
        assert_eq!(batch.tokens().ids[..], [2, 5, 3, 2, 3]);
        assert_eq!(batch.tokens().positions[..], [0, 1, 2, 0, 1]);
        assert_eq!(batch.offsets().positions(), [0, 3, 5]);
        assert_eq!(batch.labels().unwrap()[..], [1, 0]);
        let pairs = batch.with_token_types(&[0, 0, 1, 0, 1], &config()).unwrap();
        assert_eq!(pairs.tokens().token_types[..], [0, 0, 1, 0, 1]);
    }

    /// `create_position_ids_from_input_ids` in `transformers/models/roberta/modeling_roberta.py`, for `[0, 1, 5, 1, 2]`.
    #[test]
    fn positions_may_count_from_the_padding_id() {
        let config = ModelConfig { position_padding: Some(1), max_position_embeddings: 7, ..config() };
        let batch = TokenBatch::new([vec![0, 1, 5, 1, 2], vec![2]], None, &config).unwrap();
        assert_eq!(batch.tokens().positions[..], [2, 1, 3, 1, 4, 2]);
        let refused = TokenBatch::new([[3; 6]], None, &config).unwrap_err().to_string();
        assert!(refused.contains("1 to 5 tokens, got 6"), "{refused}");
    }

    #[test]
    fn misfits_are_refused() {
        let refused = |sequences: &[&[u32]], labels: Option<&[u32]>| {
            TokenBatch::new(sequences, labels, &config()).unwrap_err().to_string()
        };
        assert!(refused(&[], None).contains("at least one"));
        assert!(refused(&[&[1], &[]], None).contains("sequence 1"));
        assert!(refused(&[&[1; 5]], None).contains("1 to 4 tokens, got 5"));
        assert!(refused(&[&[1], &[1, 10]], None).contains("token id must be below 10, got 10"));
        assert!(refused(&[&[1]], Some(&[2])).contains("label must be below 2, got 2"));
        assert!(refused(&[&[1]], Some(&[1, 1])).contains("number of labels must be 1"));
        let batch = TokenBatch::new([[1, 2]], None, &config()).unwrap();
        assert!(batch.clone().with_token_types(&[0, 2], &config()).is_err());
        assert!(batch.clone().with_token_types(&[0], &config()).is_err());
        assert!(batch.with_teacher(&[0.0, 1.0], &[true], &config()).is_err());
        let batch = TokenBatch::new([[1, 2]], Some(&[1]), &config()).unwrap();
        assert!(batch.clone().with_teacher(&[0.0], &[true], &config()).is_err());
        assert!(batch.clone().with_teacher(&[0.0, f32::NAN], &[true], &config()).is_err());
        let taught = batch.with_teacher(&[0.0, 1.0], &[false], &config()).unwrap();
        assert_eq!(taught.teacher().unwrap().labelled(), [false]);
    }
}
