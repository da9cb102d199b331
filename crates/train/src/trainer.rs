//! The training loop.

use crate::data::batching::EvalBatch;
use crate::optimizer::AdamW;
use crate::schedule::{Schedule, ScheduleKind};
use crate::step::{Step, StepSettings};
use crate::tokenized::TokenizedDataset;
use crate::{Result, TrainError};
use serde::Serialize;
use std::time::Instant;
use vitrine_bert::{SequenceClassifier, TokenBatch};

/// Everything that decides a training run, given a model and tokenized rows.
#[derive(Clone, Debug, Serialize)]
pub struct TrainSettings {
    /// Passes over the rows.
    pub epochs: usize,
    /// Rows in an optimizer step; the last step of an epoch may have fewer.
    pub batch_size: usize,
    /// Rows of a step that are computed at once; all if not said. It changes memory and the order of sums, nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch_size: Option<usize>,
    /// How evaluation batches are cut.
    pub eval_batch: EvalBatch,
    /// Peak learning rate.
    pub lr: f64,
    /// How the learning rate moves.
    #[serde(serialize_with = "as_text")]
    pub schedule: ScheduleKind,
    /// Steps over which it rises from 0.
    pub warmup_steps: usize,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; 0 for none.
    pub max_grad_norm: f64,
    /// Seed of the order of rows and of dropout.
    pub seed: u64,
    /// Whether every epoch has an order of its own.
    pub shuffle: bool,
    /// Whether a shuffled epoch's batches are of rows of like lengths.
    pub group_by_length: bool,
    /// Whether layers are computed again in backward instead of saving their activations.
    pub checkpoint_layers: bool,
}

impl TrainSettings {
    /// Rows that are computed at once.
    pub fn rows_at_once(&self) -> usize {
        self.micro_batch_size.map_or(self.batch_size, |rows| rows.min(self.batch_size))
    }

    /// Optimizer steps for this many rows: `ceil(rows / batch_size) * epochs`.
    pub fn total_steps(&self, rows: usize) -> usize {
        rows.div_ceil(self.batch_size) * self.epochs
    }

    /// The schedule of a run over this many rows.
    pub fn schedule(&self, rows: usize) -> Schedule {
        Schedule { kind: self.schedule, total: self.total_steps(rows), warmup: self.warmup_steps }
    }
}

fn as_text<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// One optimizer step, as a line of `metrics.jsonl`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StepRecord {
    /// Counted from 1.
    pub step: usize,
    /// Passes over the data that are behind us after this step.
    pub epoch: f64,
    /// Mean loss over the step's rows.
    pub loss: f64,
    /// The learning rate that the step used.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens in the step; there is no padding to count.
    pub tokens: usize,
    /// Wall-clock seconds of the step.
    pub seconds: f64,
}

/// Watches a training run: progress bars, log files.
pub trait Observer {
    /// A training step has ended.
    ///
    /// # Errors
    /// Whatever the observer cannot bear, such as a full disk; the run stops.
    fn step(&mut self, record: &StepRecord, total_steps: usize) -> Result<()>;
}

/// What a training run took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TrainSummary {
    /// Optimizer steps.
    pub steps: usize,
    /// Wall-clock seconds, evaluation not counted.
    pub seconds: f64,
    /// Tokens seen.
    pub tokens: usize,
    /// Tokens per second.
    pub tokens_per_second: f64,
    /// Mean loss over all steps.
    pub mean_loss: f64,
    /// Loss of the last step.
    pub final_loss: f64,
}

/// Fine-tunes a classifier in place.
///
/// One [`step`](crate::step) a batch, with AdamW. Weights after the run are a function of
/// the model, the rows and the settings alone: not of threads, nor of time.
///
/// # Errors
/// `NonFinite` when a loss or gradient stops being a number, with the step; errors of the layers below.
pub fn train(
    model: &mut SequenceClassifier,
    rows: &TokenizedDataset,
    settings: &TrainSettings,
    observer: &mut dyn Observer,
) -> Result<TrainSummary> {
    let schedule = settings.schedule(rows.len());
    let steps_per_epoch = rows.len().div_ceil(settings.batch_size);
    let max_grad_norm = (settings.max_grad_norm > 0.0).then_some(settings.max_grad_norm);
    let mut optimizer = AdamW::new(settings.weight_decay);
    let started = Instant::now();
    let (mut step, mut tokens, mut loss_sum, mut final_loss) = (0, 0, 0.0, f64::NAN);

    for epoch in 0..settings.epochs {
        let order = match (settings.shuffle, settings.group_by_length) {
            (false, _) => rows.order(None, epoch as u32),
            (true, false) => rows.order(Some(settings.seed), epoch as u32),
            (true, true) => rows.grouped_order(settings.batch_size, settings.seed, epoch as u32),
        };
        for (in_epoch, indices) in order.chunks(settings.batch_size).enumerate() {
            let step_started = Instant::now();
            let micro_batches: Vec<&[usize]> = indices.chunks(settings.rows_at_once()).collect();
            let sequences: Vec<usize> = micro_batches.iter().map(|rows| rows.len()).collect();
            let batches: Vec<TokenBatch> = micro_batches
                .iter()
                .map(|indices| rows.batch(indices, model.config()))
                .collect::<Result<_>>()?;
            let lr = settings.lr * schedule.factor(step);

            let options = StepSettings {
                seed: settings.seed,
                step,
                lr,
                max_grad_norm,
                checkpoint_layers: settings.checkpoint_layers,
                profiled: false,
            };
            let Step { loss, norm, .. } = crate::accumulating_step(
                model,
                &sequences,
                |model, tape, index| model.loss(tape, &batches[index]),
                &mut optimizer,
                &options,
            )?;
            // Only now, with the whole step asked for, is a CUDA device waited for.
            let (loss, grad_norm) = (loss.item()?, norm.norm()?);
            if !(loss.is_finite() && grad_norm.is_finite()) {
                return Err(TrainError::NonFinite { step: step + 1, loss, grad_norm });
            }

            step += 1;
            let step_tokens = batches.iter().map(|batch| batch.offsets().total()).sum();
            tokens += step_tokens;
            loss_sum += loss;
            final_loss = loss;
            let record = StepRecord {
                step,
                epoch: epoch as f64 + (in_epoch + 1) as f64 / steps_per_epoch as f64,
                loss,
                lr,
                grad_norm,
                tokens: step_tokens,
                seconds: step_started.elapsed().as_secs_f64(),
            };
            observer.step(&record, schedule.total)?;
        }
    }

    let seconds = started.elapsed().as_secs_f64();
    Ok(TrainSummary {
        steps: step,
        seconds,
        tokens,
        tokens_per_second: tokens as f64 / seconds,
        mean_loss: loss_sum / step as f64,
        final_loss,
    })
}
