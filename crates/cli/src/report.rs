//! Pieces that `train` and `eval` share: sampling, limits, progress, and results for people.

use crate::args::Samples;
use crate::interrupt::Interrupts;
use crate::output::{self, Align, Failure, Outcome, Style, line, paint};
use crate::progress::{Progress, duration};
use std::io::Write;
use std::path::{Path, PathBuf};
use vitrine_bert::BertConfig;
use vitrine_train::data::sampling::{Sample, stratified};
use vitrine_train::data::{self, Dataset, LoadOptions};
use vitrine_train::{Evaluation, Observer, StepRecord, TrainError};

/// The longest input of a run: what was asked, within what the model can take.
pub fn max_length(asked: Option<usize>, config: &BertConfig) -> Outcome<usize> {
    let limit = config.max_position_embeddings;
    match asked {
        None => Ok(limit),
        Some(length) if length < 3 => Err(Failure::Usage(format!(
            "--max-length {length} leaves no room for text between [CLS] and [SEP]; use 3 or more"
        ))),
        Some(length) if length > limit => Err(Failure::Usage(format!(
            "--max-length {length} is more than the model's {limit} positions; use {limit} or less"
        ))),
        Some(length) => Ok(length),
    }
}

/// The rows asked for: all, or a balanced draw as pandas makes it.
pub fn sampled(rows: &Dataset, samples: Samples, seed: u32) -> Dataset {
    let sample = match samples {
        Samples::All => Sample::All,
        Samples::Count(total) => Sample::Total(total),
    };
    rows.subset(&stratified(rows, sample, seed))
}

/// Reads rows to evaluate on: a folder's test split, or a file.
pub fn load_for_evaluation(path: &Path, options: LoadOptions) -> Outcome<Dataset> {
    let options = LoadOptions { split: Some("test".into()), ..options };
    Ok(data::load(path, &options)?)
}

/// Shows training and evaluation as they go, and writes `metrics.jsonl`.
pub struct RunObserver<'a, W> {
    /// Where step records go, a JSON object a line.
    pub metrics: W,
    /// The file behind `metrics`, for messages.
    pub metrics_path: PathBuf,
    /// The bar of the training loop.
    pub progress: Progress,
    /// Whoever wants the run to end.
    pub interrupts: &'a Interrupts,
}

impl<W: Write> Observer for RunObserver<'_, W> {
    fn step(&mut self, record: &StepRecord, total: usize) -> Result<(), TrainError> {
        let write = |metrics: &mut W| -> std::io::Result<()> {
            serde_json::to_writer(&mut *metrics, record)?;
            metrics.write_all(b"\n")
        };
        write(&mut self.metrics)
            .map_err(|source| TrainError::Write { path: self.metrics_path.clone(), source })?;
        self.progress.set(record.step, || {
            let speed = record.tokens as f64 / record.seconds;
            format!("loss {:.4}  lr {:.2e}  {speed:.0} tokens/s", record.loss, record.lr)
        });
        if self.interrupts.seen() && record.step < total {
            return Err(TrainError::Interrupted { step: record.step, total });
        }
        Ok(())
    }

    fn evaluated(&mut self, _done: usize, _total: usize) {}
}

/// Shows an evaluation as it goes.
pub struct EvalProgress(pub Progress);

impl Observer for EvalProgress {
    fn step(&mut self, _record: &StepRecord, _total_steps: usize) -> Result<(), TrainError> {
        Ok(())
    }

    fn evaluated(&mut self, done: usize, total: usize) {
        self.0.set(done, || format!("{:.0} %", 100.0 * done as f64 / total as f64));
    }
}

/// Prints what an evaluation found.
pub fn print_evaluation(eval: &Evaluation, names: &[String]) -> Outcome {
    let m = &eval.metrics;
    let (low, high) = eval.accuracy_interval;
    line(format!(
        "accuracy {}  (95 % interval {low:.4} to {high:.4}, {} rows)",
        paint(&std::io::stdout(), Style::Bold, &format!("{:.4}", m.accuracy)),
        m.examples
    ))?;
    line(format!(
        "f1 {:.4}  precision {:.4}  recall {:.4}  loss {:.4}",
        m.f1, m.precision, m.recall, m.loss
    ))?;
    let columns: Vec<(&str, Align)> = [("true \\ predicted", Align::Left)]
        .into_iter()
        .chain(names.iter().map(|name| (name.as_str(), Align::Right)))
        .collect();
    let rows: Vec<Vec<String>> = m
        .confusion_matrix
        .iter()
        .zip(names)
        .map(|(row, name)| [name.clone()].into_iter().chain(row.iter().map(ToString::to_string)).collect())
        .collect();
    line(output::table(&columns, &rows))?;
    line(format!("evaluated in {}, {:.0} tokens/s", duration(eval.seconds), eval.tokens_per_second))
}
