//! [`HiddenTeacher`]: while it guesses hidden words, a model learns the hidden states of a larger one, too.

use super::{Documents, MaskedBatch, Masking, Piece};
use crate::techniques::teacher_layers;
use crate::{Result, TrainError};
use vitrine_autograd::{Tape, Var};
use vitrine_bert::{BaseModel, MaskedLm, ModelConfig, TokenBatch, Tokenizer};
use vitrine_tensor::Tensor;

/// A pretrained encoder whose hidden states count in the loss of pretraining.
///
/// With `s_ij` the student's state of token i after its layer j of L, `t_ij` the teacher's after the [layer in its
/// place](teacher_layers), T tokens in a batch and weight h, the loss of masked words has another term,
///
/// `h / (L T) sum_ij || s_ij / ||s_ij|| - t_ij / ||t_ij|| ||^2`.
///
/// The teacher reads the tokens that are hidden from the student, so states of hidden tokens are guessed, as words are. Comparing
/// the states of all tokens layer by layer is the distillation of TinyBERT (Jiao et al. 2020, arXiv 1909.10351, equation 8), here
/// without a projection, as both have one width; unit vectors are those of patient knowledge distillation (Sun et al. 2019, arXiv
/// 1908.09355, equation 7).
pub struct HiddenTeacher {
    model: BaseModel,
    /// The teacher's id for each of the student's.
    ids: Vec<u32>,
    /// The teacher's layer for each of the student's.
    layers: Vec<usize>,
    weight: f64,
}

impl HiddenTeacher {
    /// A teacher for a student of this config and tokenizer.
    ///
    /// # Errors
    /// `Technique` if the teacher does not have the student's width, one of its tokens or as many positions as `max_length`, or for a
    /// weight that is not a number above 0.
    pub fn new(
        model: BaseModel,
        theirs: &Tokenizer,
        student: &ModelConfig,
        tokenizer: &Tokenizer,
        max_length: usize,
        weight: f64,
    ) -> Result<Self> {
        let refuse = |why| Err(TrainError::Technique { option: "--distill-from", why });
        let config = model.config();
        if config.hidden_size != student.hidden_size {
            let (own, other) = (student.hidden_size, config.hidden_size);
            return refuse(format!("its states have {other} numbers and those of the new model {own}"));
        }
        if config.max_length() < max_length {
            let longest = config.max_length();
            return refuse(format!(
                "it reads at most {longest} tokens, and pieces have {max_length} (--max-length)"
            ));
        }
        if !(weight.is_finite() && weight > 0.0) {
            let why = format!("{weight} is not a number above 0");
            return Err(TrainError::Technique { option: "--distill-hidden", why });
        }
        let layers = teacher_layers(student.num_hidden_layers, config.num_hidden_layers);
        let mut ids = Vec::with_capacity(tokenizer.vocabulary_size());
        for id in 0..tokenizer.vocabulary_size() as u32 {
            // An id without a token never occurs in a text.
            let Some(token) = tokenizer.token(id) else {
                ids.push(0);
                continue;
            };
            match theirs.id(&token).filter(|&id| (id as usize) < config.vocab_size) {
                Some(id) => ids.push(id),
                None => return refuse(format!("it does not know the token '{token}' of the new model")),
            }
        }
        Ok(HiddenTeacher { model, ids, layers, weight })
    }

    /// The teacher's encoder.
    pub fn model(&self) -> &BaseModel {
        &self.model
    }

    /// The weight h of its term.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// What the teacher's layers make of these pieces: `[T, C]` for each layer of the student.
    ///
    /// # Errors
    /// Errors of the layers below.
    pub(super) fn states(
        &self,
        masking: &Masking,
        documents: &Documents,
        pieces: &[Piece],
    ) -> Result<Vec<Tensor>> {
        let read = |piece: &Piece| -> Vec<u32> {
            masking.whole(documents.ids(piece)).into_iter().map(|id| self.ids[id as usize]).collect()
        };
        let batch = TokenBatch::new(pieces.iter().map(read), None, self.model.config())?;
        let tape = Tape::inference();
        let states = self.model.hidden_states(&tape, &batch)?;
        Ok(self.layers.iter().map(|&layer| states[layer].value().clone()).collect())
    }

    /// The loss of masked words and the term of the hidden states, a scalar. `said` is what [`states`](Self::states) returned of the same
    /// pieces.
    ///
    /// # Errors
    /// Tensor and tape errors.
    pub(super) fn loss<'t>(
        &self,
        student: &MaskedLm,
        tape: &'t Tape,
        masked: &MaskedBatch,
        said: &[Tensor],
    ) -> vitrine_bert::Result<Var<'t>> {
        let states = student.hidden_states(tape, &masked.batch)?;
        let last = states.last().expect("a model has layers");
        let logits = student.head(tape, &last.gather_rows(&masked.rows)?)?;
        let _scope = tape.scope("loss");
        let mut loss = logits.cross_entropy(&masked.targets)?;
        // The square of the distance of two unit vectors is 2 - 2 cos.
        let share = self.weight / (states.len() * masked.batch.len()) as f64;
        for (state, said) in states.iter().zip(said) {
            let said = tape.constant(said.to_dtype(state.value().dtype())?);
            let squares = state.mul(state)?.sum(1, false)?.mul(&said.mul(&said)?.sum(1, false)?)?;
            let cosines = state.mul(&said)?.sum(1, false)?.div(&squares.sqrt()?)?;
            loss = loss.add(&cosines.sum_all()?.scale(-2.0 * share)?)?;
        }
        Ok(loss.add_scalar(2.0 * self.weight)?)
    }
}
