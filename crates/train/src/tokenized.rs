//! Rows as token ids: what training and evaluation read.

use crate::data::Dataset;
use crate::data::batching::{EvalBatch, epoch_order, eval_batches, grouped_order};
use crate::token_cache::{CacheUse, TokenCache};
use crate::{Result, TrainError};
use vitrine_bert::{BertError, ModelConfig, TokenBatch, Tokenizer};
use vitrine_tensor::cpu::parallel;

/// Rows whose texts are tokenized by one piece of parallel work.
const ROWS: usize = 16;

/// Token ids of rows, one row after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// `[T]`, `[CLS]` and `[SEP]` of each row included.
    pub ids: Vec<u32>,
    /// Where rows begin and end: row `i` is `ids[offsets[i]..offsets[i + 1]]`.
    offsets: Vec<usize>,
    /// Rows whose text was longer than the maximum.
    pub truncated: usize,
}

impl Tokens {
    /// Rows of these lengths; none if they are not as long as the ids together.
    pub fn new(
        ids: Vec<u32>,
        lengths: impl ExactSizeIterator<Item = usize>,
        truncated: usize,
    ) -> Option<Self> {
        let mut offsets = Vec::with_capacity(lengths.len() + 1);
        offsets.push(0);
        let mut end = 0usize;
        for length in lengths {
            end = end.checked_add(length)?;
            offsets.push(end);
        }
        (end == ids.len()).then_some(Tokens { ids, offsets, truncated })
    }

    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    fn row(&self, row: usize) -> &[u32] {
        &self.ids[self.offsets[row]..self.offsets[row + 1]]
    }

    pub fn lengths(&self) -> impl ExactSizeIterator<Item = usize> {
        self.offsets.windows(2).map(|ends| ends[1] - ends[0])
    }

    /// Tokenizes every text on all threads.
    fn of(texts: &[&str], tokenizer: &Tokenizer, max_length: usize) -> Result<Self> {
        let pieces = parallel::map(texts.chunks(ROWS), |_, texts| {
            let mut piece = Tokens { ids: Vec::new(), offsets: vec![0], truncated: 0 };
            for text in texts {
                let encoding = tokenizer.encode(text, max_length)?;
                piece.ids.extend_from_slice(&encoding.ids);
                piece.offsets.push(piece.ids.len());
                piece.truncated += usize::from(encoding.truncated);
            }
            Ok::<_, BertError>(piece)
        });
        let mut all = Tokens { ids: Vec::new(), offsets: vec![0], truncated: 0 };
        for piece in pieces {
            let piece = piece?;
            let before = all.ids.len();
            all.ids.extend_from_slice(&piece.ids);
            all.offsets.extend(piece.offsets[1..].iter().map(|end| before + end));
            all.truncated += piece.truncated;
        }
        Ok(all)
    }
}

/// Tokenized rows, in the order of their data set.
#[derive(Clone, Debug)]
pub struct TokenizedDataset {
    tokens: Tokens,
    /// Of rows without a label, 0.
    labels: Vec<u32>,
    /// The first so many rows have labels.
    labelled: usize,
    /// What a teacher says of each row, `[rows, W]`.
    teacher: Option<Vec<f32>>,
}

impl TokenizedDataset {
    /// Tokenizes every row on all threads, truncating at `max_length` tokens.
    ///
    /// # Errors
    /// Errors of the tokenizer; an empty data set.
    pub fn new(rows: &Dataset, tokenizer: &Tokenizer, max_length: usize) -> Result<Self> {
        let tokens = Tokens::of(&texts(rows)?, tokenizer, max_length)?;
        Ok(Self::with_labels(tokens, rows))
    }

    /// As [`TokenizedDataset::new`], but ids that the cache has are not made again; what the cache did.
    ///
    /// # Errors
    /// The same. A cache that cannot be read or written is no error.
    pub fn cached(
        rows: &Dataset,
        tokenizer: &Tokenizer,
        max_length: usize,
        cache: &TokenCache,
    ) -> Result<(Self, CacheUse)> {
        let (tokens, used) = cached_tokens(&texts(rows)?, tokenizer, max_length, cache)?;
        Ok((Self::with_labels(tokens, rows), used))
    }

    fn with_labels(tokens: Tokens, rows: &Dataset) -> Self {
        let labels = rows.examples.iter().map(|example| example.label).collect();
        TokenizedDataset { tokens, labels, labelled: rows.len(), teacher: None }
    }

    /// These rows, and behind them `others` without their labels: only a teacher can say what they should become.
    #[must_use]
    pub fn with_unlabelled(mut self, others: &TokenizedDataset) -> Self {
        let end = self.tokens.ids.len();
        self.tokens.ids.extend_from_slice(&others.tokens.ids);
        self.tokens.offsets.extend(others.tokens.offsets[1..].iter().map(|offset| end + offset));
        self.tokens.truncated += others.tokens.truncated;
        self.labels.resize(self.labels.len() + others.len(), 0);
        TokenizedDataset { teacher: None, ..self }
    }

    /// The rows with what a teacher says of each, `width` numbers: logits, and perhaps hidden states ([`TokenBatch::with_teacher`]).
    ///
    /// # Errors
    /// `MetricsShape` if these are not as many for each row.
    pub fn with_teacher(self, teacher: Vec<f32>, width: usize) -> Result<Self> {
        if width == 0 || teacher.len() != self.len() * width {
            let (logits, labels, classes) = (teacher.len(), self.len(), width);
            return Err(TrainError::MetricsShape { logits, labels, classes });
        }
        Ok(TokenizedDataset { teacher: Some(teacher), ..self })
    }

    /// Whether they have a teacher.
    pub fn has_teacher(&self) -> bool {
        self.teacher.is_some()
    }

    /// Whether a row has a label of its own.
    pub fn is_labelled(&self, row: usize) -> bool {
        row < self.labelled
    }

    /// Number of rows; never zero.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one row")]
    pub fn len(&self) -> usize {
        self.tokens.rows()
    }

    /// Tokens of all rows together.
    pub fn tokens(&self) -> usize {
        self.tokens.ids.len()
    }

    /// Rows whose text was longer than the maximum.
    pub fn truncated(&self) -> usize {
        self.tokens.truncated
    }

    /// Tokens of each row, in the rows' order.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = usize> {
        self.tokens.lengths()
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
        let lengths: Vec<usize> = self.lengths().collect();
        grouped_order(&lengths, batch_size, seed, epoch)
    }

    /// The rows by length, longest first: evaluation in this order has batches of even lengths, and meets the largest
    /// batch first.
    pub fn by_length(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(self.tokens.row(row).len()));
        order
    }

    /// The rows as evaluation batches: in the order of [`by_length`](Self::by_length).
    pub fn eval_batches(&self, batch: EvalBatch) -> Vec<Vec<usize>> {
        let order = self.by_length();
        let ranges = eval_batches(order.iter().map(|&row| self.tokens.row(row).len()), batch);
        ranges.into_iter().map(|range| order[range].to_vec()).collect()
    }

    /// The given rows as one unpadded batch, with what they should become.
    ///
    /// # Errors
    /// Ids or labels that the model does not have.
    pub fn batch(&self, rows: &[usize], config: &ModelConfig) -> Result<TokenBatch> {
        let sequences = rows.iter().map(|&row| self.tokens.row(row));
        let batch = TokenBatch::new(sequences, Some(&self.labels_of(rows)), config)?;
        let Some(teacher) = &self.teacher else { return Ok(batch) };
        let width = teacher.len() / self.len();
        let said: Vec<f32> =
            rows.iter().flat_map(|&row| &teacher[row * width..(row + 1) * width]).copied().collect();
        let labelled: Vec<bool> = rows.iter().map(|&row| self.is_labelled(row)).collect();
        Ok(batch.with_teacher(&said, &labelled, config)?)
    }

    /// The given rows as one unpadded batch that has nothing but tokens.
    ///
    /// # Errors
    /// Ids that the model does not have.
    pub fn inputs(&self, rows: &[usize], config: &ModelConfig) -> Result<TokenBatch> {
        Ok(TokenBatch::new(rows.iter().map(|&row| self.tokens.row(row)), None, config)?)
    }

    /// The labels of the given rows.
    pub fn labels_of(&self, rows: &[usize]) -> Vec<u32> {
        rows.iter().map(|&row| self.labels[row]).collect()
    }
}

fn texts(rows: &Dataset) -> Result<Vec<&str>> {
    match rows.is_empty() {
        true => Err(TrainError::Empty { data: rows.source.clone() }),
        false => Ok(rows.examples.iter().map(|example| example.text.as_str()).collect()),
    }
}

fn cached_tokens(
    texts: &[&str],
    tokenizer: &Tokenizer,
    max_length: usize,
    cache: &TokenCache,
) -> Result<(Tokens, CacheUse)> {
    cache.tokens(texts, tokenizer, max_length, || Tokens::of(texts, tokenizer, max_length))
}

/// Tokens of each text with nothing cut off, `[CLS]` and `[SEP]` included.
///
/// # Errors
/// Errors of the tokenizer.
pub fn token_lengths(
    texts: &[&str],
    tokenizer: &Tokenizer,
    cache: Option<&TokenCache>,
) -> Result<Vec<usize>> {
    let tokens = match cache {
        Some(cache) => cached_tokens(texts, tokenizer, usize::MAX, cache)?.0,
        None => Tokens::of(texts, tokenizer, usize::MAX)?,
    };
    Ok(tokens.lengths().collect())
}
