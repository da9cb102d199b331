//! [`Subject::backward_lens`]: how the logit of a class would change with the states of each layer.

use crate::attribution::{like, one_hot};
use crate::lens::{largest, stream};
use crate::prediction::finite;
use crate::subject::numbers;
use crate::{Blocks, ExplainError, Result, Subject, Text};
use serde::Serialize;
use std::ops::Range;
use vitrine_autograd::Tape;
use vitrine_bert::{Tap, Taps};
use vitrine_tensor::{Device, Tensor};

/// A word whose direction raises a logit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Direction {
    /// The word.
    pub word: String,
    /// Its number in the vocabulary.
    pub id: u32,
    /// How fast the logit rises when the state moves along the word's embedding, by length 1.
    pub rise: f64,
}

/// The gradient of a logit with respect to the residual stream: the backward twin of the logit lens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackwardLens {
    /// The class whose logit is differentiated.
    pub class: usize,
    /// That logit.
    pub logit: f64,
    /// The first token of `words`.
    pub from: usize,
    /// `[L + 1][S]`: the gradient's length. 0 is the embeddings. In the last layer only the first token has one.
    pub norms: Vec<Vec<f64>>,
    /// `[L + 1][S]`: the cosine between the gradient and the state; 0 where one of them is zero.
    pub cosines: Vec<Vec<f64>>,
    /// `[L + 1][count][top]`: the words along whose embedding the logit rises fastest.
    pub words: Vec<Vec<Vec<Direction>>>,
}

impl Subject {
    /// The gradient of the logit of a class with respect to the states of each layer, as length, as cosine with the state, and, for the
    /// tokens `rows`, as the `top` words whose embeddings point where the logit rises. Each row costs a product with the vocabulary in
    /// every layer.
    ///
    /// # Errors
    /// `NoClassifier`, `NoClass`, `NoToken`; as [`Blocks::check`]; `NotFinite`; errors of the model.
    pub fn backward_lens(
        &self,
        text: &Text,
        blocks: &Blocks,
        class: usize,
        rows: Range<usize>,
        top: usize,
    ) -> Result<BackwardLens> {
        self.check_class(class)?;
        let size = text.size();
        if let Some(index) = [rows.start, rows.end.saturating_sub(1)].into_iter().find(|&row| row >= size) {
            return Err(ExplainError::NoToken { index, count: size });
        }
        let mut taps = Taps::new();
        blocks.set(&mut taps, self, size)?;
        let points = stream(self.config().num_hidden_layers);
        let read: Vec<Tap> = points.into_iter().map(|point| taps.read_with_gradient(point)).collect();
        let tape = Tape::recording();
        let logits = self.logits(&tape, &self.copies(&text.ids(), 1)?, &taps)?;
        let logit = numbers(logits.value())?[class];
        let seed = one_hot(class, logits.value())?;
        let id = logits.id();
        drop(logits);
        let gradients = tape.vjp(&[(id, seed)], &taps.ids())?;
        let (table, lengths) = self.word_table()?;
        let known = self.known_words();
        let (from, none) = (rows.start, Vec::new);
        let mut lens =
            BackwardLens { class, logit, from, norms: none(), cosines: Vec::new(), words: Vec::new() };
        for tap in read {
            let gradient = taps.gradient(tap, &gradients)?;
            let (values, states) = (numbers(&gradient)?, numbers(&taps.value(tap)?)?);
            finite("a gradient", &values)?;
            let width = values.len() / size;
            let pairs = || values.chunks(width).zip(states.chunks(width));
            lens.norms.push(pairs().map(|(gradient, _)| norm(gradient)).collect());
            lens.cosines.push(pairs().map(|(gradient, state)| cosine(gradient, state)).collect());
            let chosen = gradient.narrow(0, rows.start, rows.len())?.contiguous()?;
            lens.words.push(self.directions(&chosen, &table, &lengths, &known, top)?);
        }
        Ok(lens)
    }

    /// The word embeddings `[V, C]` where the model computes, and the length of each.
    fn word_table(&self) -> Result<(Tensor, Vec<f64>)> {
        let key = format!("{}.embeddings.word_embeddings.weight", self.config().family.names.base);
        let parts = self.parameters().parts()?;
        let table = parts.into_iter().find(|(name, _)| *name == key).map(|(_, table)| table);
        let table = table.expect("internal: every encoder has word embeddings");
        let values = numbers(&table)?;
        let lengths = values.chunks(self.config().hidden_size).map(norm).collect();
        Ok((table, lengths))
    }

    /// The words along which each row of a gradient rises fastest.
    fn directions(
        &self,
        gradient: &Tensor,
        table: &Tensor,
        lengths: &[f64],
        known: &[u32],
        top: usize,
    ) -> Result<Vec<Vec<Direction>>> {
        let gradient = like(&gradient.to_device(Device::Cpu)?, table)?;
        let rises = numbers(&vitrine_tensor::ops::matmul::matmul(&gradient, &table.t()?)?)?;
        let of_row = |row: &[f64]| {
            let rise = |id: u32| match lengths[id as usize] {
                length if length > 0.0 => row[id as usize] / length,
                _ => 0.0,
            };
            let direction = |id: u32| {
                let word = self.tokenizer().token(id).unwrap_or_default();
                Direction { word, id, rise: rise(id) }
            };
            largest(known, top, rise).into_iter().map(direction).collect()
        };
        Ok(rises.chunks(lengths.len()).map(of_row).collect())
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    match norm(a) * norm(b) {
        lengths if lengths > 0.0 => dot(a, b) / lengths,
        _ => 0.0,
    }
}
