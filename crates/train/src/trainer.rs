//! The training loop and the evaluation loop.

use crate::data::batching::EvalBatch;
use crate::metrics::{Accumulator, Metrics};
use crate::optimizer::groups::gradient_norms_by_layer;
use crate::schedule::{Schedule, ScheduleKind};
use crate::step::{MicroBatch, Step, StepSettings};
use crate::techniques::{Collapse, FailedStep, Techniques};
use crate::tokenized::TokenizedDataset;
use crate::{Result, TrainError};
use serde::Serialize;
use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;
use vitrine_autograd::Tape;
use vitrine_bert::{SequenceClassifier, TokenBatch};
use vitrine_tensor::{DType, Device, Tensor};

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
    #[serde(flatten)]
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
    /// What is switched on beside.
    #[serde(flatten)]
    pub techniques: Techniques,
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

/// Where in a run it was evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EvaluationRecord {
    /// Optimizer steps before it.
    pub step: usize,
    /// Passes over the data before it.
    pub epoch: f64,
    /// Whether the metric that the run looks at is better than ever before; none where it looks at none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<bool>,
}

/// Watches a training run: progress bars, log files, signals. Several watch it as a `Vec<&mut dyn Observer>`, in its order.
pub trait Observer {
    /// A training step has ended.
    ///
    /// # Errors
    /// Whatever the observer cannot bear, such as a full disk; the run stops.
    fn step(&mut self, record: &StepRecord, total_steps: usize) -> Result<()> {
        let _ = (record, total_steps);
        Ok(())
    }

    /// The model was evaluated after so many steps.
    ///
    /// # Errors
    /// As [`Observer::step`].
    fn evaluation(&mut self, record: &EvaluationRecord, evaluation: &Evaluation) -> Result<()> {
        let _ = (record, evaluation);
        Ok(())
    }

    /// A checkpoint was written after so many steps, into this folder.
    ///
    /// # Errors
    /// As [`Observer::step`].
    fn checkpoint(&mut self, step: usize, folder: &Path) -> Result<()> {
        let _ = (step, folder);
        Ok(())
    }

    /// A checkpoint could not be written: `Ok` goes on without it.
    ///
    /// # Errors
    /// The error itself, unless another body says otherwise; the run stops.
    fn checkpoint_failed(&mut self, step: usize, error: TrainError) -> Result<()> {
        let _ = step;
        Err(error)
    }

    /// Something is wrong with the run, which goes on. `text` names the step.
    ///
    /// # Errors
    /// As [`Observer::step`].
    fn warning(&mut self, step: usize, text: &str) -> Result<()> {
        let _ = (step, text);
        Ok(())
    }

    /// A step's loss or gradient is not finite; the run ends, with the weights of before the step.
    fn failed_step(&mut self, failed: &FailedStep<'_>) {
        let _ = failed;
    }

    /// Whether the run should stop: asked after each step, it then writes a checkpoint and ends with `Interrupted`.
    fn wants_to_stop(&self) -> bool {
        false
    }
}

impl Observer for Vec<&mut dyn Observer> {
    fn step(&mut self, record: &StepRecord, total_steps: usize) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.step(record, total_steps))
    }

    fn evaluation(&mut self, record: &EvaluationRecord, evaluation: &Evaluation) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.evaluation(record, evaluation))
    }

    fn checkpoint(&mut self, step: usize, folder: &Path) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.checkpoint(step, folder))
    }

    /// The first observer that can bear it has the last word.
    fn checkpoint_failed(&mut self, step: usize, mut error: TrainError) -> Result<()> {
        for observer in self.iter_mut() {
            match observer.checkpoint_failed(step, error) {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
        }
        Err(error)
    }

    fn warning(&mut self, step: usize, text: &str) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.warning(step, text))
    }

    fn failed_step(&mut self, failed: &FailedStep<'_>) {
        self.iter_mut().for_each(|observer| observer.failed_step(failed));
    }

    fn wants_to_stop(&self) -> bool {
        self.iter().any(|observer| observer.wants_to_stop())
    }
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
/// One [`accumulating_step`](crate::accumulating_step) a batch. The model is one that [`Techniques::prepare`] made ready; with
/// an average of the weights, it ends with the averaged ones. Weights after the run are a function of
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
    let Techniques { loss: loss_settings, .. } = &settings.techniques;
    let mut optimizer = settings.techniques.optimizer(settings.weight_decay);
    let mut collapse = Collapse::new(schedule.total, schedule.warmup);
    let names = model.config().label_names();
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
            let batches: Vec<TokenBatch> = indices
                .chunks(settings.rows_at_once())
                .map(|indices| rows.batch(indices, model.config()))
                .collect::<Result<_>>()?;
            let parts: Vec<MicroBatch> =
                batches.iter().map(|batch| loss_settings.micro_batch(batch)).collect();
            let lr = settings.lr * schedule.factor(step);

            let options = StepSettings {
                seed: settings.seed,
                step,
                lr,
                max_grad_norm,
                checkpoint_layers: settings.checkpoint_layers,
                profiled: false,
            };
            let logits = RefCell::new(Vec::with_capacity(batches.len()));
            let taken = crate::accumulating_step(
                model,
                &parts,
                |model, tape, index| {
                    let (loss, of_batch) = loss_settings.of_batch(model, tape, &batches[index])?;
                    logits.borrow_mut().push(of_batch);
                    Ok(loss)
                },
                optimizer.as_mut(),
                &options,
            );
            if let Err(TrainError::NonFinite { finding, .. }) = &taken {
                let techniques = &settings.techniques;
                observer.failed_step(&FailedStep {
                    model,
                    batches: &batches,
                    settings: &options,
                    techniques,
                    finding,
                });
            }
            let Step { loss, norm, gradients, .. } = taken?;
            let (loss, grad_norm) = (loss.item()?, norm.norm()?);

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
            let mut warnings = Vec::new();
            let predicted = predicted_classes(&logits.into_inner())?;
            warnings.extend(collapse.predictions(step, &predicted, &rows.labels_of(indices), &names));
            if collapse.looks_at(step) {
                let norms = gradient_norms_by_layer(model.parameters(), model.config(), &gradients)?;
                warnings.extend(collapse.gradients(step, &norms));
            }
            drop(gradients);
            warnings.iter().try_for_each(|text| observer.warning(step, text))?;
            observer.step(&record, schedule.total)?;
        }
    }

    // What is evaluated and saved are the averaged weights, where the optimizer keeps such; without adapters beside them.
    optimizer.swap_averages(model.parameters_mut())?;
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

/// The class of the largest logit of each row of `[B, K]`; on a CUDA device it waits.
fn predicted_classes(logits: &[Tensor]) -> Result<Vec<usize>> {
    let mut predicted = Vec::new();
    for batch in logits {
        let values = batch.to_device(Device::Cpu)?.to_dtype(DType::F32)?.to_vec::<f32>()?;
        let rows = values.chunks_exact(batch.dims()[1]);
        predicted.extend(rows.map(|row| {
            (1..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best })
        }));
    }
    Ok(predicted)
}

/// What an evaluation found and took.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Loss, accuracy and the rest.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// The 95 % interval of the accuracy (Wilson).
    pub accuracy_interval: (f64, f64),
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Tokens per second.
    pub tokens_per_second: f64,
}

/// Measures a classifier on labelled rows, without dropout.
///
/// Batches are cut from the rows in order of length, longest first, so that no batch mixes a short review with a long
/// one; nothing is padded, so this changes speed and memory only. `progress` learns how many rows are done.
///
/// # Errors
/// Errors of the layers below; logits that are not numbers.
pub fn evaluate(
    model: &SequenceClassifier,
    rows: &TokenizedDataset,
    batch: EvalBatch,
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation> {
    let started = Instant::now();
    let mut metrics = Accumulator::new(model.config().label_names());
    let (mut done, mut tokens) = (0, 0);
    for indices in rows.eval_batches(batch) {
        let batch = rows.batch(&indices, model.config())?;
        let tape = Tape::inference();
        let logits = model.logits(&tape, &batch)?.value().to_vec::<f32>()?;
        metrics.add(&logits, &rows.labels_of(&indices))?;
        done += indices.len();
        tokens += batch.offsets().total();
        progress(done);
    }
    let seconds = started.elapsed().as_secs_f64();
    let metrics = metrics.finish()?;
    let accuracy_interval = metrics.accuracy_interval();
    Ok(Evaluation { metrics, accuracy_interval, seconds, tokens_per_second: tokens as f64 / seconds })
}
