//! Measuring a classifier on labelled rows.

use crate::Result;
use crate::data::Dataset;
use crate::data::batching::EvalBatch;
use crate::metrics::{
    Accumulator, Calibration, LengthBucket, Metrics, Predictions, WrongRow, accuracy_by_length, auroc,
    confidently_wrong,
};
use crate::tokenized::TokenizedDataset;
use serde::Serialize;
use std::time::Instant;
use vitrine_autograd::Tape;
use vitrine_bert::{ModelConfig, SequenceClassifier, TokenBatch};

/// What an evaluation found and took.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Loss, accuracy and the rest.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// The 95 % interval of the accuracy (Wilson).
    pub accuracy_interval: (f64, f64),
    /// The 95 % interval of F1 (percentile bootstrap).
    pub f1_interval: (f64, f64),
    /// The area under the ROC curve; none where a class has no row.
    pub auroc: Option<f64>,
    /// Whether the probabilities can be believed.
    pub calibration: Calibration,
    /// Accuracy by length of the text.
    pub accuracy_by_length: Vec<LengthBucket>,
    /// The wrong rows of which the model was surest.
    pub confidently_wrong: Vec<WrongRow>,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Tokens per second.
    pub tokens_per_second: f64,
    /// What the model said of every row: not in the JSON, but a line each in `predictions.jsonl`.
    #[serde(skip)]
    pub predictions: Predictions,
}

impl Evaluation {
    /// All that follows from these metrics and predictions of the same rows, which took so many seconds and have so many tokens.
    pub(crate) fn of(metrics: Metrics, predictions: Predictions, seconds: f64, tokens: usize) -> Self {
        Evaluation {
            accuracy_interval: metrics.accuracy_interval(),
            f1_interval: metrics.f1_interval(),
            auroc: auroc(&predictions),
            calibration: Calibration::of(&predictions),
            accuracy_by_length: accuracy_by_length(&predictions),
            confidently_wrong: confidently_wrong(&predictions),
            metrics,
            seconds,
            tokens_per_second: tokens as f64 / seconds,
            predictions,
        }
    }

    /// Adds the beginning of their texts to the rows that are named as wrong. `rows` are the evaluated ones.
    #[must_use]
    pub fn quoting(mut self, rows: &Dataset) -> Self {
        self.confidently_wrong.iter_mut().for_each(|wrong| wrong.quote(rows));
        self
    }
}

/// Measures a classifier on labelled rows, without dropout.
///
/// Batches are cut from the rows in order of length, longest first, so that no batch mixes a short review with a long
/// one; nothing is padded, so this changes speed and memory only. `progress` learns how many rows are done,
/// and ends the evaluation by an error.
///
/// # Errors
/// Errors of the layers below; logits that are not numbers; that of `progress`.
pub fn evaluate(
    model: &SequenceClassifier,
    rows: &TokenizedDataset,
    batch: EvalBatch,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Evaluation> {
    let started = Instant::now();
    let names = model.config().label_names();
    let mut metrics = Accumulator::new(names.clone());
    let mut predictions =
        Predictions::new(names, rows.labels().to_vec(), rows.lengths().map(|length| length as u32).collect());
    for_each_batch(rows, model.config(), batch, progress, |indices, batch| {
        let logits = model.logits(&Tape::inference(), batch)?.value().to_vec::<f32>()?;
        metrics.add(&logits, &rows.labels_of(indices))?;
        predictions.set(indices, &logits)
    })?;
    Ok(Evaluation::of(metrics.finish()?, predictions, started.elapsed().as_secs_f64(), rows.tokens()))
}

/// Calls `measure(rows, batch)` with every batch, the longest rows first.
pub(crate) fn for_each_batch(
    rows: &TokenizedDataset,
    config: &ModelConfig,
    batch: EvalBatch,
    progress: &mut dyn FnMut(usize) -> Result<()>,
    mut measure: impl FnMut(&[usize], &TokenBatch) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    for indices in rows.eval_batches(batch) {
        measure(&indices, &rows.inputs(&indices, config)?)?;
        done += indices.len();
        progress(done)?;
    }
    Ok(())
}
