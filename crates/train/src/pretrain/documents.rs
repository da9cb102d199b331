//! [`Documents`]: texts as token ids, cut into pieces that a model can read, and packed into batches without padding.

use crate::data::batching::{EvalBatch, epoch_order, eval_batches};
use crate::{Result, TrainError};
use sha2::{Digest, Sha256};
use std::ops::Range;
use vitrine_bert::Tokenizer;

/// Texts whose encodings, of which only the ids are kept, are in memory at once.
const ENCODED_AT_ONCE: usize = 2048;
/// A text is encoded whole.
const NO_LIMIT: usize = 1 << 30;

/// Tokenized documents, one after the other, and which of them are held out.
#[derive(Clone, Debug)]
pub struct Documents {
    /// Ids of all documents, without `[CLS]` and `[SEP]`.
    ids: Vec<u32>,
    /// Where each document ends in `ids`.
    ends: Vec<usize>,
    pub(super) held_out: Vec<bool>,
    /// SHA-256 over the ids and the ends.
    sha256: String,
}

impl Documents {
    /// Tokenizes texts on all threads; `progress` learns how many are done. A text without a token is a document without one.
    ///
    /// A document is held out by the SHA-256 of its text, whose first 64 bits are uniform: about `held_out` of all, whatever their
    /// order, and two equal texts on the same side. At least one is, if there is more than one and `held_out` is above 0.
    ///
    /// # Errors
    /// Errors of the tokenizer; `Empty` without a token.
    pub fn new<S: AsRef<str> + Sync>(
        texts: &[S],
        tokenizer: &Tokenizer,
        held_out: f64,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let (mut ids, mut ends) = (Vec::new(), Vec::with_capacity(texts.len()));
        for some in texts.chunks(ENCODED_AT_ONCE) {
            for encoding in tokenizer.encode_batch(some, NO_LIMIT)? {
                let inside = 1..encoding.ids.len() - 1;
                ids.extend_from_slice(&encoding.ids[inside]);
                ends.push(ids.len());
            }
            progress(ends.len());
        }
        if ids.is_empty() {
            return Err(TrainError::Empty { data: "the texts for pretraining".into() });
        }
        let draw = |text: &S| {
            let hash = Sha256::digest(text.as_ref());
            u64::from_le_bytes(std::array::from_fn(|i| hash[i]))
        };
        let draws: Vec<u64> = texts.iter().map(draw).collect();
        let below = (held_out * 2f64.powi(64)) as u64;
        let mut held: Vec<bool> = draws.iter().map(|&draw| draw < below).collect();
        let is_empty =
            |document: usize| ends[document] == document.checked_sub(1).map_or(0, |before| ends[before]);
        let with_tokens: Vec<usize> = (0..ends.len()).filter(|&document| !is_empty(document)).collect();
        // A few documents may fall all on one side.
        let first = with_tokens.iter().copied().min_by_key(|&document| draws[document]);
        let last = with_tokens.iter().copied().max_by_key(|&document| draws[document]);
        if let (Some(first), Some(last), true) = (first, last, with_tokens.len() > 1 && held_out > 0.0) {
            held[first] = true;
            held[last] = false;
        } else if let Some(only) = last.filter(|_| with_tokens.len() == 1) {
            held[only] = false;
        }
        let mut hash = Sha256::new();
        for values in [ids.len() as u64].into_iter().chain(ends.iter().map(|&end| end as u64)) {
            hash.update(values.to_le_bytes());
        }
        ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Documents { ids, ends, held_out: held, sha256 })
    }

    /// Number of documents, those without a token included; never zero.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one token")]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Number of documents that are held out.
    pub fn held_out(&self) -> usize {
        self.held_out.iter().filter(|&&held_out| held_out).count()
    }

    /// Tokens of all documents, without `[CLS]` and `[SEP]`.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// SHA-256 over the token ids by document: two runs with the same see the same tokens.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The ids of a piece.
    pub fn ids(&self, piece: &Piece) -> &[u32] {
        let start = self.range(piece.document as usize).start + piece.start as usize;
        &self.ids[start..start + piece.tokens as usize]
    }

    fn range(&self, document: usize) -> Range<usize> {
        document.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[document]
    }

    /// The documents of one side cut into consecutive pieces of at most `max_length` tokens with `[CLS]` and `[SEP]`, every
    /// token in exactly one of them. A piece begins with a word, unless a single word is longer than a piece.
    pub fn pieces(
        &self,
        held_out: bool,
        max_length: usize,
        continues_word: impl Fn(u32) -> bool,
    ) -> Vec<Piece> {
        let room = max_length.saturating_sub(2).max(1);
        let mut pieces = Vec::new();
        for document in (0..self.len()).filter(|&document| self.held_out[document] == held_out) {
            let ids = &self.ids[self.range(document)];
            let mut start = 0;
            while start < ids.len() {
                let most = ids.len().min(start + room);
                let mut end = most;
                while end < ids.len() && end > start && continues_word(ids[end]) {
                    end -= 1;
                }
                if end == start {
                    end = most;
                }
                pieces.push(Piece {
                    document: document as u32,
                    start: start as u32,
                    tokens: (end - start) as u32,
                });
                start = end;
            }
        }
        pieces
    }
}

/// A part of a document, which becomes a sequence `[CLS] .. [SEP]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The number of the document among all.
    pub document: u32,
    /// Its first token's place in the document.
    pub start: u32,
    /// Its tokens, without `[CLS]` and `[SEP]`.
    pub tokens: u32,
}

impl Piece {
    /// Its tokens with `[CLS]` and `[SEP]`.
    pub fn length(&self) -> usize {
        self.tokens as usize + 2
    }
}

/// The batches of an epoch: all pieces, shuffled by (seed, epoch), and cut in that order into batches of at most `batch_tokens` tokens
/// (a longer piece is a batch of its own). Each batch lists pieces by their index.
pub fn epoch_batches(pieces: &[Piece], batch_tokens: usize, seed: u64, epoch: u32) -> Vec<Vec<usize>> {
    let order = epoch_order(pieces.len(), seed, epoch);
    let lengths = order.iter().map(|&piece| pieces[piece].length());
    let batches = eval_batches(lengths, EvalBatch::Tokens(batch_tokens));
    batches.into_iter().map(|range| order[range].to_vec()).collect()
}
