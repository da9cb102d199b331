//! Masked-language-model pretraining (Devlin et al., arXiv:1810.04805): a model learns a language by predicting hidden words of
//! texts that need no labels.
//!
//! Reading order: [`Documents`] for texts as token ids, pieces and batches; [`Masking`] for what is hidden; [`pretrain`] for the loop;
//! [`adopt`] for a start from another model; [`HiddenTeacher`] for a larger model to learn from. The
//! vocabulary is made by [`vitrine_bert::Tokenizer::train`].

mod adopt;
mod documents;
mod evaluate;
mod masking;
mod teacher;
#[cfg(test)]
mod tests;

pub use adopt::{Adopted, adopt};
pub use documents::{Documents, Piece, epoch_batches};
pub use evaluate::{HELD_OUT_EPOCH, MaskedEvaluation, evaluate_masked};
pub use masking::{MaskedBatch, Masking};
pub use teacher::HiddenTeacher;

use crate::optimizer::AdamW;
use crate::schedule::{Schedule, ScheduleKind};
use crate::{Optimizer, Result, Step, StepRecord, StepSettings, TrainError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;
use vitrine_bert::MaskedLm;
use vitrine_nn::ParameterStore;

/// Everything that decides a pretraining run, given a model and its data.
#[derive(Clone, Debug, Serialize)]
pub struct PretrainSettings {
    /// Optimizer steps.
    pub steps: usize,
    /// The most tokens of a batch, with `[CLS]` and `[SEP]`.
    pub batch_tokens: usize,
    /// The longest piece of a document, in tokens with `[CLS]` and `[SEP]`.
    pub max_length: usize,
    /// The share of words that are to be predicted.
    pub mask_share: f64,
    /// Peak learning rate.
    pub lr: f64,
    /// How the learning rate moves.
    #[serde(flatten)]
    pub schedule: ScheduleKind,
    /// Steps over which it rises from 0.
    pub warmup_steps: usize,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// AdamW's decay of the second moment.
    pub beta2: f64,
    /// What AdamW adds to the root of the second moment.
    pub eps: f64,
    /// Largest global norm of the gradient; 0 for none.
    pub max_grad_norm: f64,
    /// Seed of new weights, masks, the order of pieces and dropout.
    pub seed: u64,
    /// Steps from one evaluation on held-out documents to the next; there is one at the end, too.
    pub eval_every: usize,
    /// Whether layers are computed again in backward instead of saving their activations.
    pub checkpoint_layers: bool,
}

impl PretrainSettings {
    /// The learning rate of each step.
    pub fn schedule(&self) -> Schedule {
        Schedule { kind: self.schedule, total: self.steps, warmup: self.warmup_steps }
    }

    /// The optimizer before its first step.
    pub fn optimizer(&self) -> AdamW {
        let mut optimizer = AdamW::new(self.weight_decay);
        (optimizer.beta2, optimizer.eps) = (self.beta2, self.eps);
        optimizer
    }
}

/// The documents of a run as pieces of at most so many tokens, how they are masked, and who else says something of them.
#[derive(Clone)]
pub struct PretrainData {
    documents: Arc<Documents>,
    masking: Masking,
    train: Vec<Piece>,
    held_out: Vec<Piece>,
    /// Pieces without an ordinary token, which have nothing to predict.
    dropped: usize,
    teacher: Option<Arc<HiddenTeacher>>,
}

impl PretrainData {
    /// Cuts documents into pieces of at most `max_length` tokens with `[CLS]` and `[SEP]`.
    ///
    /// # Errors
    /// `Empty` if none of the documents to train on has an ordinary token.
    pub fn new(documents: Documents, masking: Masking, max_length: usize) -> Result<Self> {
        let mut dropped = 0;
        let mut pieces = |held_out| {
            let all = documents.pieces(held_out, max_length, |id| masking.continues_word(id));
            let count = all.len();
            let kept: Vec<Piece> =
                all.into_iter().filter(|piece| masking.has_words(documents.ids(piece))).collect();
            dropped += count - kept.len();
            kept
        };
        let (train, held_out) = (pieces(false), pieces(true));
        if train.is_empty() {
            return Err(TrainError::Empty { data: "the documents to train on".into() });
        }
        Ok(PretrainData { documents: Arc::new(documents), masking, train, held_out, dropped, teacher: None })
    }

    /// The same, and a teacher whose hidden states count in the loss.
    #[must_use]
    pub fn with_teacher(self, teacher: HiddenTeacher) -> Self {
        PretrainData { teacher: Some(Arc::new(teacher)), ..self }
    }

    /// The teacher, if there is one.
    pub fn teacher(&self) -> Option<&HiddenTeacher> {
        self.teacher.as_deref()
    }

    /// The same to train on, and nothing held out: no time goes into evaluations.
    #[must_use]
    pub fn without_held_out(&self) -> Self {
        PretrainData { held_out: Vec::new(), ..self.clone() }
    }

    /// The documents.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Pieces to train on.
    pub fn train(&self) -> &[Piece] {
        &self.train
    }

    /// Pieces that are held out.
    pub fn held_out(&self) -> &[Piece] {
        &self.held_out
    }

    /// Pieces that are left out, as they have no ordinary token.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Tokens of an epoch, with `[CLS]` and `[SEP]`.
    pub fn epoch_tokens(&self) -> usize {
        self.train.iter().map(Piece::length).sum()
    }

    /// The steps of so many epochs. An epoch's last batch is not filled up, and how full the others are depends on the order.
    pub fn steps(&self, epochs: usize, batch_tokens: usize, seed: u64) -> usize {
        (0..epochs).map(|epoch| epoch_batches(&self.train, batch_tokens, seed, epoch as u32).len()).sum()
    }

    /// The entropy of the tokens that are trained on, in nats: the loss of a model that knows how frequent each is, and no more.
    pub fn unigram_entropy(&self) -> f64 {
        let mut counts: Vec<u64> = Vec::new();
        for id in self.train.iter().flat_map(|piece| self.documents.ids(piece)) {
            let id = *id as usize;
            counts.resize(counts.len().max(id + 1), 0);
            counts[id] += 1;
        }
        let all: u64 = counts.iter().sum();
        let shares = counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 / all as f64);
        -shares.map(|share| share * share.ln()).sum::<f64>()
    }
}

/// How far a run has come: what a checkpoint keeps beside weights and optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PretrainProgress {
    /// Steps done.
    pub step: usize,
    /// Tokens seen, with `[CLS]` and `[SEP]`.
    pub tokens: usize,
    /// Wall-clock seconds of steps, evaluation and saving not counted.
    #[serde(with = "crate::checkpoint::exact")]
    pub seconds: f64,
    /// Sum of the losses of all steps.
    #[serde(with = "crate::checkpoint::exact")]
    pub loss_sum: f64,
    /// Loss of the last step.
    #[serde(with = "crate::checkpoint::exact")]
    pub last_loss: f64,
}

/// What a pretraining run took, all of its processes together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PretrainSummary {
    /// Optimizer steps.
    pub steps: usize,
    /// Wall-clock seconds of the steps.
    pub seconds: f64,
    /// Tokens seen, with `[CLS]` and `[SEP]`.
    pub tokens: usize,
    /// Tokens per second.
    pub tokens_per_second: f64,
    /// Mean loss over all steps.
    pub mean_loss: f64,
    /// Loss of the last step.
    pub final_loss: f64,
}

/// Watches a pretraining run.
pub trait PretrainObserver {
    /// A step has ended.
    ///
    /// # Errors
    /// Whatever the observer cannot bear, such as a full disk; the run stops.
    fn step(&mut self, record: &StepRecord, total_steps: usize) -> Result<()>;

    /// The model was measured on the held-out documents after so many steps and epochs.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    fn evaluated(&mut self, step: usize, epoch: f64, evaluation: &MaskedEvaluation) -> Result<()>;

    /// Everything of a step is done: the place for a checkpoint, and for an end.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    fn after_step(
        &mut self,
        progress: &PretrainProgress,
        parameters: &ParameterStore,
        optimizer: &dyn Optimizer,
    ) -> Result<()>;
}

/// Pretrains a model in place, from `progress` on, which moves along. Weights after the run are a function of the model, the data and the
/// settings alone: not of threads, nor of time, nor of how often the run was stopped between steps and went on.
///
/// # Errors
/// `NonFinite` when a loss or gradient stops being a number; those of the observer; errors of the layers below.
pub fn pretrain(
    model: &mut MaskedLm,
    optimizer: &mut dyn Optimizer,
    data: &PretrainData,
    settings: &PretrainSettings,
    progress: &mut PretrainProgress,
    observer: &mut dyn PretrainObserver,
) -> Result<PretrainSummary> {
    let schedule = settings.schedule();
    let max_grad_norm = (settings.max_grad_norm > 0.0).then_some(settings.max_grad_norm);
    let mut before_epoch = 0;
    for epoch in 0.. {
        if progress.step >= settings.steps {
            break;
        }
        let batches = epoch_batches(&data.train, settings.batch_tokens, settings.seed, epoch);
        let done = progress.step - before_epoch;
        before_epoch += batches.len();
        for (in_epoch, batch) in batches.iter().enumerate().skip(done) {
            if progress.step >= settings.steps {
                break;
            }
            let started = Instant::now();
            let pieces: Vec<Piece> = batch.iter().map(|&piece| data.train[piece]).collect();
            let masked = data.masking.batch(&data.documents, &pieces, epoch, model.config())?;
            let said =
                data.teacher.as_ref().map(|teacher| teacher.states(&data.masking, &data.documents, &pieces));
            let said = said.transpose()?;
            let step = progress.step;
            let lr = settings.lr * schedule.factor(step);
            let options = StepSettings {
                seed: settings.seed,
                step,
                lr,
                max_grad_norm,
                checkpoint_layers: settings.checkpoint_layers,
                profiled: false,
            };
            let Step { loss, norm, .. } = crate::step(
                model,
                |model, tape| match (&data.teacher, &said) {
                    (Some(teacher), Some(said)) => teacher.loss(model, tape, &masked, said),
                    _ => model.loss(tape, &masked.batch, &masked.rows, &masked.targets),
                },
                optimizer,
                &options,
            )?;
            let (loss, grad_norm) = (loss.item()?, norm.norm()?);
            let seconds = started.elapsed().as_secs_f64();
            let tokens = masked.batch.len();
            *progress = PretrainProgress {
                step: step + 1,
                tokens: progress.tokens + tokens,
                seconds: progress.seconds + seconds,
                loss_sum: progress.loss_sum + loss,
                last_loss: loss,
            };
            let epochs = f64::from(epoch) + (in_epoch + 1) as f64 / batches.len() as f64;
            let record = StepRecord { step: step + 1, epoch: epochs, loss, lr, grad_norm, tokens, seconds };
            observer.step(&record, settings.steps)?;
            let is_last = progress.step == settings.steps;
            if !data.held_out.is_empty() && (is_last || progress.step.is_multiple_of(settings.eval_every)) {
                let evaluation = evaluate_masked(model, data, settings.batch_tokens)?;
                observer.evaluated(progress.step, epochs, &evaluation)?;
            }
            observer.after_step(progress, model.parameters(), optimizer)?;
        }
    }
    Ok(PretrainSummary {
        steps: progress.step,
        seconds: progress.seconds,
        tokens: progress.tokens,
        tokens_per_second: progress.tokens as f64 / progress.seconds,
        mean_loss: progress.loss_sum / progress.step as f64,
        final_loss: progress.last_loss,
    })
}
