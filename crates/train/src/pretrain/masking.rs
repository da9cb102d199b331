//! [`Masking`]: which tokens are hidden from the model, and what stands in their place.
//!
//! Source: Devlin et al., arXiv:1810.04805, section 3.1 and appendix C.2, with whole words as in the later release of the authors (their
//! repository's README, "Whole Word Masking"); `DataCollatorForLanguageModeling` with `whole_word_mask` in
//! `transformers/data/data_collator.py`.

use super::documents::{Documents, Piece};
use crate::{Result, TrainError};
use std::sync::Arc;
use vitrine_bert::{ModelConfig, TokenBatch, Tokenizer};
use vitrine_tensor::random;

/// Keeps these draws apart from those of dropout and of the order, which have the seed as their key too.
const MASKS: u64 = 0x6d61_736b_6564_2121;

/// Whole-word masking: a word is chosen with probability `share`, and all of its tokens are to be predicted. Of these, 80 % become
/// `[MASK]`, 10 % a random token, and 10 % stay, each token by its own draw. Special tokens are never chosen.
///
/// A draw is one Philox call with the counter `(position in the document, document, epoch, 0)`. So masks are a function of (seed, epoch,
/// document, position): new in each epoch, and the same however documents are cut and packed and on whatever number of threads.
#[derive(Clone, Debug)]
pub struct Masking {
    share: f64,
    seed: u64,
    mask: u32,
    ends: (u32, u32),
    /// By token: whether it is special, and so never hidden.
    special: Vec<bool>,
    /// By token: whether it continues a word.
    continues: Vec<bool>,
    /// The tokens that are not special: what a random token is drawn from.
    pub(super) ordinary: Vec<u32>,
}

/// A batch with hidden tokens.
pub struct MaskedBatch {
    /// What the model reads.
    pub batch: TokenBatch,
    /// The rows (numbered `0..T`) whose tokens are to be predicted.
    pub rows: Arc<[u32]>,
    /// Their tokens.
    pub targets: Arc<[u32]>,
}

impl Masking {
    /// Masks words of this tokenizer with probability `share`, a number above 0 and at most 1.
    ///
    /// # Errors
    /// `Tokenizer` for one without a mask token or without an ordinary one.
    pub fn new(tokenizer: &Tokenizer, share: f64, seed: u64) -> Result<Self> {
        let lacks = |what: &str| {
            let source = format!("it has no {what}, which pretraining needs").into();
            TrainError::Bert(vitrine_bert::BertError::Tokenizer { path: "tokenizer".into(), source })
        };
        let (_, mask) = tokenizer.mask().ok_or_else(|| lacks("mask token"))?;
        let size = tokenizer.vocabulary_size();
        let mut special = vec![false; size];
        tokenizer.special_ids().into_iter().for_each(|id| special[id as usize] = true);
        let exists = |id: &u32| !special[*id as usize] && tokenizer.token(*id).is_some();
        let ordinary: Vec<u32> = (0..size as u32).filter(exists).collect();
        if ordinary.is_empty() {
            return Err(lacks("token of a text"));
        }
        let continues = (0..size as u32).map(|id| tokenizer.continues_word(id)).collect();
        Ok(Masking { share, seed, mask, ends: tokenizer.ends(), special, continues, ordinary })
    }

    /// Whether a token continues a word.
    pub fn continues_word(&self, id: u32) -> bool {
        self.continues[id as usize]
    }

    /// Whether any of these tokens is an ordinary one, which can be hidden.
    pub fn has_words(&self, ids: &[u32]) -> bool {
        ids.iter().any(|&id| !self.special[id as usize])
    }

    /// `[CLS]`, the ids of a piece with some hidden, `[SEP]`; and the places in it that are to be predicted, in order. If no word is
    /// chosen, the one of the smallest draw is, so that every piece with an ordinary token counts (as in `transformers`).
    pub fn hide(&self, ids: &[u32], piece: &Piece, epoch: u32) -> (Vec<u32>, Vec<u32>) {
        let key = random::key(self.seed ^ MASKS);
        let draw = |place: usize| random::philox([piece.start + place as u32, piece.document, epoch, 0], key);
        // Word starts with their draws; a special token is no word and belongs to none.
        let mut words: Vec<(usize, u32)> = Vec::new();
        for (place, &id) in ids.iter().enumerate() {
            let in_word = place > 0 && self.continues_word(id) && !self.special[ids[place - 1] as usize];
            if !self.special[id as usize] && !in_word {
                words.push((place, draw(place)[0]));
            }
        }
        let below = (self.share * 2f64.powi(32)) as u64;
        let least = words.iter().map(|&(_, draw)| draw).min();
        let none = least.is_some_and(|least| u64::from(least) >= below);
        let chosen = |draw: u32| u64::from(draw) < below || none && Some(draw) == least;
        let mut hidden = Vec::with_capacity(ids.len() + 2);
        hidden.push(self.ends.0);
        hidden.extend_from_slice(ids);
        hidden.push(self.ends.1);
        let mut places = Vec::new();
        for &(start, _) in words.iter().filter(|&&(_, draw)| chosen(draw)) {
            let rest = ids[start + 1..]
                .iter()
                .take_while(|&&id| self.continues_word(id) && !self.special[id as usize]);
            for place in start..=start + rest.count() {
                let [_, kind, other, _] = draw(place);
                hidden[1 + place] = match (u64::from(kind) * 10) >> 32 {
                    0..8 => self.mask,
                    8 => self.ordinary[((u64::from(other) * self.ordinary.len() as u64) >> 32) as usize],
                    _ => ids[place],
                };
                places.push(1 + place as u32);
            }
        }
        (hidden, places)
    }

    /// `[CLS]`, the ids of a piece, `[SEP]`: nothing is hidden.
    pub fn whole(&self, ids: &[u32]) -> Vec<u32> {
        [&[self.ends.0], ids, &[self.ends.1]].concat()
    }

    /// The pieces as one batch. `rows` may be empty, if the pieces have special tokens only.
    ///
    /// # Errors
    /// Ids and lengths that the model does not have.
    pub fn batch(
        &self,
        documents: &Documents,
        pieces: &[Piece],
        epoch: u32,
        config: &ModelConfig,
    ) -> Result<MaskedBatch> {
        let (mut sequences, mut rows, mut targets) =
            (Vec::with_capacity(pieces.len()), Vec::new(), Vec::new());
        let mut first = 0;
        for piece in pieces {
            let ids = documents.ids(piece);
            let (hidden, places) = self.hide(ids, piece, epoch);
            targets.extend(places.iter().map(|&place| ids[place as usize - 1]));
            rows.extend(places.iter().map(|&place| first + place));
            first += hidden.len() as u32;
            sequences.push(hidden);
        }
        Ok(MaskedBatch {
            batch: TokenBatch::new(sequences, None, config)?,
            rows: rows.into(),
            targets: targets.into(),
        })
    }
}
