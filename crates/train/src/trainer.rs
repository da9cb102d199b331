//! The training loop.

use crate::checkpoint::{Checkpoints, Found};
use crate::data::batching::EvalBatch;
use crate::measurements::Measurements;
use crate::optimizer::Optimizer;
use crate::optimizer::groups::gradient_norms_by_layer;
use crate::schedule::{Schedule, ScheduleKind};
use crate::step::{MicroBatch, Step, StepSettings};
use crate::techniques::{Collapse, FailedStep, Techniques};
use crate::tokenized::TokenizedDataset;
use crate::validation::{BestBy, Every, SaveEvery, TrainState, ValidationSettings};
use crate::{Evaluation, Result, TrainError, evaluate};
use serde::Serialize;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vitrine_bert::{Place, SequenceClassifier, TokenBatch};
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
    /// Evaluation during training.
    #[serde(flatten)]
    pub validation: ValidationSettings,
    /// What is switched on beside.
    #[serde(flatten)]
    pub techniques: Techniques,
    /// What is measured beside.
    #[serde(flatten)]
    pub measurements: Measurements,
}

/// Settings that change time and memory, and results at most by the order of sums.
const NOT_MATHEMATICS: [&str; 3] = ["micro_batch_size", "eval_batch", "checkpoint_layers"];

impl TrainSettings {
    /// Rows that are computed at once.
    pub fn rows_at_once(&self) -> usize {
        self.micro_batch_size.map_or(self.batch_size, |rows| rows.min(self.batch_size))
    }

    /// Optimizer steps for this many rows: `ceil(rows / batch_size) * epochs`.
    pub fn total_steps(&self, rows: usize) -> usize {
        rows.div_ceil(self.batch_size) * self.epochs
    }

    /// The settings on which a run's result depends, by name: all but those that change time and memory alone.
    ///
    /// # Panics
    /// If they are not an object in JSON: `internal:`.
    pub fn mathematics(&self) -> Map<String, Value> {
        let settings = serde_json::to_value(self).expect("internal: settings are JSON");
        let Value::Object(settings) = settings else { panic!("internal: settings are an object") };
        let others = [&NOT_MATHEMATICS[..], &Measurements::NAMES].concat();
        settings.into_iter().filter(|(name, _)| !others.contains(&name.as_str())).collect()
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

    /// The norm of each part's gradient in a step, counted from 1, where that is measured: before [`Observer::step`] of that step.
    ///
    /// # Errors
    /// As [`Observer::step`].
    fn gradient_norms(&mut self, step: usize, norms: &[(Place, f64)]) -> Result<()> {
        let _ = (step, norms);
        Ok(())
    }

    /// Every operation of a step, counted from 1, was timed: before [`Observer::step`] of that step.
    ///
    /// # Errors
    /// As [`Observer::step`].
    fn profile(&mut self, step: usize, taken: &Step) -> Result<()> {
        let _ = (step, taken);
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

    /// Whether the run should stop. The run looks after each step and each batch of an evaluation; it then writes a checkpoint and
    /// ends with `Interrupted`.
    fn wants_to_stop(&self) -> bool {
        false
    }
}

impl Observer for Vec<&mut dyn Observer> {
    fn step(&mut self, record: &StepRecord, total_steps: usize) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.step(record, total_steps))
    }

    fn gradient_norms(&mut self, step: usize, norms: &[(Place, f64)]) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.gradient_norms(step, norms))
    }

    fn profile(&mut self, step: usize, taken: &Step) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.profile(step, taken))
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
    /// Wall-clock seconds, of all processes that had a part in it: steps, checkpoints, and evaluations during training.
    pub seconds: f64,
    /// Those of them that went into checkpoints.
    pub checkpoint_seconds: f64,
    /// Tokens seen.
    pub tokens: usize,
    /// Tokens per second of the steps.
    pub tokens_per_second: f64,
    /// Mean loss over all steps.
    pub mean_loss: f64,
    /// Loss of the last step.
    pub final_loss: f64,
    /// Whether patience ended the run before its last step.
    pub stopped_early: bool,
    /// The step whose model is the result, and its metric, where the best model is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<BestModel>,
}

/// The best model of a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BestModel {
    /// Optimizer steps before it.
    pub step: usize,
    /// The metric by which it is the best.
    pub by: BestBy,
    /// Its value.
    pub value: f64,
}

/// Rows of a run.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Those that are trained on.
    pub train: &'a TokenizedDataset,
    /// Those that the model is evaluated on during training.
    pub validation: Option<&'a TokenizedDataset>,
}

/// Where and when a run writes checkpoints, and the one from which it goes on.
pub struct Saving<'a> {
    /// The run's checkpoints.
    pub checkpoints: &'a mut Checkpoints,
    /// When they are written.
    pub every: SaveEvery,
    /// From [`Checkpoints::newest`]; none starts from the beginning.
    pub from: Option<Found<TrainState>>,
}

/// Fine-tunes a classifier in place, from the beginning or from a checkpoint.
///
/// One [`accumulating_step`](crate::accumulating_step) a batch. The model is one that [`Techniques::prepare`] made ready; with
/// an average of the weights, it ends with the averaged ones, and these are what is evaluated on the way. Weights after the run are a function of
/// the model, the rows and the settings alone: not of threads, nor of time, nor of how often it was stopped and went on.
/// Where the best model is kept, the model is that one at the end.
///
/// # Errors
/// `NonFinite` when a loss or gradient stops being a number, with the step; `Interrupted` when an observer wants to stop;
/// `Settings` that contradict each other; `Checkpoint`, `WriteCheckpoint`; errors of the layers below.
pub fn train(
    model: &mut SequenceClassifier,
    rows: Rows,
    settings: &TrainSettings,
    mut saving: Option<Saving>,
    observer: &mut dyn Observer,
) -> Result<TrainSummary> {
    let validation = settings.validation;
    validation.check(rows.validation.is_some(), saving.is_some())?;
    if settings.techniques.loss.distillation.is_some() != rows.train.has_teacher() {
        let why = "distillation needs a teacher's logits of the training rows, and a weight for them";
        return Err(TrainError::Settings { why });
    }
    let (total, per_epoch) =
        (settings.total_steps(rows.train.len()), rows.train.len().div_ceil(settings.batch_size));
    let mut optimizer = settings.techniques.optimizer(settings.weight_decay);
    let mut state = TrainState::default();
    if let Some(found) = saving.as_mut().and_then(|saving| saving.from.take()) {
        found.restore(model.parameters_mut(), optimizer.as_mut())?;
        state = found.state;
    }
    let mut saver = Saver { saving, last: Instant::now(), keeps_best: validation.keep_best.is_some() };
    let (started, seconds_before) = (Instant::now(), state.seconds);
    let mut order = Order::default();

    let stopped_early = loop {
        let step = state.step;
        let is_due = |every: Every| step == total || every.is_due(step, per_epoch);
        let to_evaluate = rows
            .validation
            .filter(|_| validation.eval_every.is_some_and(is_due) && state.evaluated != Some(step));
        let impatient = validation.patience.is_some_and(|patience| state.without_better >= patience);
        let over = to_evaluate.is_none() && (step == total || impatient);
        state.seconds = seconds_before + started.elapsed().as_secs_f64();
        if !over && observer.wants_to_stop() {
            let checkpoint = saver.save(&mut state, model, optimizer.as_ref(), observer)?;
            return Err(TrainError::Interrupted { step, total, checkpoint });
        }
        if let Some(rows) = to_evaluate {
            optimizer.swap_averages(model.parameters_mut())?;
            let mut go_on = |_| match observer.wants_to_stop() {
                true => Err(TrainError::Interrupted { step, total, checkpoint: None }),
                false => Ok(()),
            };
            let evaluated = evaluate(model, rows, settings.eval_batch, &mut go_on);
            optimizer.swap_averages(model.parameters_mut())?;
            if matches!(evaluated, Err(TrainError::Interrupted { .. })) {
                // The run goes on with this evaluation from its beginning.
                let checkpoint = saver.save(&mut state, model, optimizer.as_ref(), observer)?;
                return Err(TrainError::Interrupted { step, total, checkpoint });
            }
            let evaluation = evaluated?;
            let is_best = state.evaluated(validation.best_by(), &evaluation.metrics);
            let best = (validation.patience.is_some() || saver.keeps_best).then_some(is_best);
            let record = EvaluationRecord { step, epoch: step as f64 / per_epoch as f64, best };
            observer.evaluation(&record, &evaluation)?;
            if is_best && saver.keeps_best {
                // Without it there would be no best model at the end: a failure is not passed over.
                saver.save(&mut state, model, optimizer.as_ref(), observer)?;
            }
            continue;
        }
        if saver.is_due(step, per_epoch)
            && let Err(error) = saver.save(&mut state, model, optimizer.as_ref(), observer)
        {
            observer.checkpoint_failed(step, error)?;
        }
        if over {
            break step < total;
        }
        let indices = order.batch(rows.train, settings, step);
        let collapse = state.collapse.get_or_insert_with(|| Collapse::new(total, settings.warmup_steps));
        let record =
            one_step(model, rows.train, indices, settings, optimizer.as_mut(), step, collapse, observer)?;
        state.step += 1;
        state.tokens += record.tokens;
        state.step_seconds += record.seconds;
        state.loss_sum += record.loss;
        state.final_loss = record.loss;
        observer.step(&record, total)?;
    };

    let best = match (state.best, saver.saving, validation.keep_best) {
        (Some(best), Some(saving), Some(by)) => {
            let (found, _) = saving.checkpoints.at::<TrainState>(best.step)?;
            // The optimizer's state too: it may hold the averages that were evaluated.
            found.restore(model.parameters_mut(), optimizer.as_mut())?;
            Some(BestModel { step: best.step, by, value: best.value })
        }
        _ => None,
    };
    // What is evaluated and saved are the averaged weights, where the optimizer keeps such.
    optimizer.swap_averages(model.parameters_mut())?;
    Ok(TrainSummary {
        steps: state.step,
        seconds: state.seconds,
        checkpoint_seconds: state.checkpoint_seconds,
        tokens: state.tokens,
        tokens_per_second: state.tokens as f64 / state.step_seconds,
        mean_loss: state.loss_sum / state.step as f64,
        final_loss: state.final_loss,
        stopped_early,
        best,
    })
}

/// Writes a run's checkpoints, if it has any.
struct Saver<'a> {
    saving: Option<Saving<'a>>,
    /// When the last one was written, or the run began.
    last: Instant,
    keeps_best: bool,
}

impl Saver<'_> {
    /// Whether one is due after `step` steps.
    fn is_due(&self, step: usize, per_epoch: usize) -> bool {
        match self.saving.as_ref().map(|saving| saving.every) {
            Some(SaveEvery::Progress(every)) => every.is_due(step, per_epoch),
            Some(SaveEvery::Time(time)) => step > 0 && self.last.elapsed() >= time,
            Some(SaveEvery::Never) | None => false,
        }
    }

    /// Writes one, and says where it is; none before the first step. The next is due in a while, also if this one fails.
    fn save(
        &mut self,
        state: &mut TrainState,
        model: &SequenceClassifier,
        optimizer: &dyn Optimizer,
        observer: &mut dyn Observer,
    ) -> Result<Option<PathBuf>> {
        let Some(saving) = self.saving.as_mut().filter(|_| state.step > 0) else { return Ok(None) };
        let started = Instant::now();
        let best = state.best.filter(|_| self.keeps_best).map(|best| best.step);
        let path = saving.checkpoints.save(state.step, model.parameters(), optimizer, state, best);
        self.last = Instant::now();
        state.checkpoint_seconds += started.elapsed().as_secs_f64();
        let path = path?;
        observer.checkpoint(state.step, &path)?;
        Ok(Some(path))
    }
}

/// The order of the rows of one epoch, made when its first batch is needed: a function of the seed and the epoch, so that it is
/// the same after a checkpoint in its middle.
#[derive(Default)]
struct Order {
    epoch: Option<usize>,
    rows: Vec<usize>,
}

impl Order {
    /// The rows of the step that follows `step` others.
    fn batch(&mut self, rows: &TokenizedDataset, settings: &TrainSettings, step: usize) -> &[usize] {
        let per_epoch = rows.len().div_ceil(settings.batch_size);
        let (epoch, in_epoch) = (step / per_epoch, step % per_epoch);
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            self.rows = match (settings.shuffle, settings.group_by_length) {
                (false, _) => rows.order(None, epoch as u32),
                (true, false) => rows.order(Some(settings.seed), epoch as u32),
                (true, true) => rows.grouped_order(settings.batch_size, settings.seed, epoch as u32),
            };
        }
        let first = in_epoch * settings.batch_size;
        &self.rows[first..rows.len().min(first + settings.batch_size)]
    }
}

/// One optimizer step over these rows; `step` counts from 0. What `collapse` finds is passed on.
#[expect(clippy::too_many_arguments, reason = "what one iteration of the loop takes")]
fn one_step(
    model: &mut SequenceClassifier,
    rows: &TokenizedDataset,
    indices: &[usize],
    settings: &TrainSettings,
    optimizer: &mut dyn Optimizer,
    step: usize,
    collapse: &mut Collapse,
    observer: &mut dyn Observer,
) -> Result<StepRecord> {
    let (started, techniques) = (Instant::now(), &settings.techniques);
    let batches: Vec<TokenBatch> = indices
        .chunks(settings.rows_at_once())
        .map(|indices| rows.batch(indices, model.config()))
        .collect::<Result<_>>()?;
    let parts: Vec<MicroBatch> = batches.iter().map(|batch| techniques.loss.micro_batch(batch)).collect();
    let lr = settings.lr * settings.schedule(rows.len()).factor(step);
    let options = StepSettings {
        seed: settings.seed,
        step,
        lr,
        max_grad_norm: (settings.max_grad_norm > 0.0).then_some(settings.max_grad_norm),
        checkpoint_layers: settings.checkpoint_layers,
        profiled: settings.measurements.profile_step == Some(step + 1),
    };
    let logits = RefCell::new(Vec::with_capacity(batches.len()));
    let taken = crate::accumulating_step(
        model,
        &parts,
        |model, tape, index| {
            let (loss, of_batch) = techniques.loss.of_batch(model, tape, &batches[index])?;
            logits.borrow_mut().push(of_batch);
            Ok(loss)
        },
        optimizer,
        &options,
    );
    if let Err(TrainError::NonFinite { finding, .. }) = &taken {
        let (batches, settings) = (&batches, &options);
        observer.failed_step(&FailedStep { model, batches, settings, techniques, finding });
    }
    let taken = taken?;
    let (loss, grad_norm, step) = (taken.loss.item()?, taken.norm.norm()?, step + 1);
    let predicted = predicted_classes(&logits.into_inner())?;
    let names = model.config().label_names();
    let mut warnings = Vec::new();
    // Of rows without a label nobody knows whether the model is right.
    let (predicted, labelled): (Vec<usize>, Vec<usize>) =
        predicted.into_iter().zip(indices).filter(|(_, row)| rows.is_labelled(**row)).unzip();
    warnings.extend(collapse.predictions(step, &predicted, &rows.labels_of(&labelled), &names));
    let logs_norms = settings.measurements.log_gradient_norms;
    if logs_norms || collapse.looks_at(step) {
        let norms = gradient_norms_by_layer(model.parameters(), model.config(), &taken.gradients)?;
        if logs_norms {
            observer.gradient_norms(step, &norms)?;
        }
        if collapse.looks_at(step) {
            warnings.extend(collapse.gradients(step, &norms));
        }
    }
    warnings.iter().try_for_each(|text| observer.warning(step, text))?;
    if options.profiled {
        observer.profile(step, &taken)?;
    }
    let tokens = batches.iter().map(|batch| batch.offsets().total()).sum();
    let epoch = step as f64 / rows.len().div_ceil(settings.batch_size) as f64;
    let seconds = started.elapsed().as_secs_f64();
    Ok(StepRecord { step, epoch, loss, lr, grad_norm, tokens, seconds })
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
