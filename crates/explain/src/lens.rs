//! [`Subject::lens`]: what the masked-language-model head would guess from each layer.

use crate::prediction::finite;
use crate::subject::numbers;
use crate::{Blocks, ExplainError, Result, Subject, Text};
use serde::Serialize;
use std::ops::Range;
use vitrine_autograd::Tape;
use vitrine_bert::{LayerPoint, Point, Tap, Taps};

/// A word of the vocabulary that a head guesses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guess {
    /// The word.
    pub word: String,
    /// Its number in the vocabulary.
    pub id: u32,
    /// Its probability.
    pub probability: f32,
}

/// What the masked-language-model head would guess from each layer's states: the logit lens (nostalgebraist 2020).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Lens {
    /// The words.
    Words {
        /// The first token.
        from: usize,
        /// `[L + 1][count][top]`: the likeliest words, best first. Layer 0 is the embeddings; the last layer's are the model's guesses.
        layers: Vec<Vec<Vec<Guess>>>,
    },
    /// There is none.
    Unavailable {
        /// Why, in one line.
        unavailable: String,
    },
}

/// The residual stream: the embeddings, and each layer's output.
pub(crate) fn stream(layers: usize) -> Vec<Point> {
    let outputs = (0..layers).map(|layer| Point::Layer(layer, LayerPoint::Output));
    [Point::Embeddings].into_iter().chain(outputs).collect()
}

impl Subject {
    /// What the masked-language-model head would guess from each layer's states at the tokens `rows`, the `top` likeliest words of each.
    /// Each row costs a product with the vocabulary in every layer.
    ///
    /// # Errors
    /// `NoToken`; as [`Blocks::check`]; `NotFinite`; errors of the model.
    pub fn lens(&self, text: &Text, blocks: &Blocks, rows: Range<usize>, top: usize) -> Result<Lens> {
        let count = text.size();
        if let Some(index) = [rows.start, rows.end.saturating_sub(1)].into_iter().find(|&row| row >= count) {
            return Err(ExplainError::NoToken { index, count });
        }
        let Some(head) = self.masked_lm() else {
            let unavailable = format!(
                "{} has no masked-language-model head to look through; use a pretrained model, or borrow the head of the one it was made of",
                self.name()
            );
            return Ok(Lens::Unavailable { unavailable });
        };
        let mut taps = Taps::new();
        blocks.set(&mut taps, self, count)?;
        let read: Vec<Tap> =
            stream(self.config().num_hidden_layers).into_iter().map(|point| taps.read(point)).collect();
        self.run(&Tape::inference(), &self.copies(&text.ids(), 1)?, &taps)?;
        let known = self.known_words();
        let mut layers = Vec::with_capacity(read.len());
        for tap in read {
            let tape = Tape::inference();
            let states = tape.constant(taps.value(tap)?.narrow(0, rows.start, rows.len())?.contiguous()?);
            let probabilities = numbers(head.head(&tape, &states)?.softmax()?.value())?;
            finite("a guess", &probabilities)?;
            let width = probabilities.len() / rows.len().max(1);
            let guesses = probabilities.chunks(width.max(1)).map(|row| self.likeliest(row, &known, top));
            layers.push(guesses.collect());
        }
        Ok(Lens::Words { from: rows.start, layers })
    }

    /// The ids that have a word. A model may have more rows than its tokenizer words.
    pub(crate) fn known_words(&self) -> Vec<u32> {
        let all = 0..self.config().vocab_size as u32;
        all.filter(|&id| self.tokenizer().token(id).is_some()).collect()
    }

    fn likeliest(&self, probabilities: &[f64], known: &[u32], top: usize) -> Vec<Guess> {
        let guess = |id: u32| Guess {
            word: self.tokenizer().token(id).unwrap_or_default(),
            id,
            probability: probabilities[id as usize] as f32,
        };
        largest(known, top, |id| probabilities[id as usize]).into_iter().map(guess).collect()
    }
}

/// The `top` ids with the largest values, best first; of equals the first.
pub(crate) fn largest(ids: &[u32], top: usize, value: impl Fn(u32) -> f64) -> Vec<u32> {
    let mut ids = ids.to_vec();
    let order = |&a: &u32, &b: &u32| value(b).total_cmp(&value(a)).then(a.cmp(&b));
    if top < ids.len() {
        ids.select_nth_unstable_by(top, order);
        ids.truncate(top);
    }
    ids.sort_by(order);
    ids
}
