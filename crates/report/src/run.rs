//! [`Run`]: what a run folder says.

use crate::trace::OpTime;
use crate::{ReportError, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};

/// What happened, as one JSON object.
pub const RUN_FILE: &str = "run.json";
/// A JSON object a step.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// A run: finished, going, or interrupted.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Its folder.
    pub folder: PathBuf,
    /// `run.json`.
    pub summary: Summary,
    /// Optimizer steps, from the first to the last.
    pub steps: Vec<Step>,
    /// Evaluations during the run: after which step, and what they found.
    pub evaluations: Vec<(f64, Evaluation)>,
    /// What the run warned of, such as a collapse.
    pub warnings: Vec<String>,
    /// Lines of `metrics.jsonl` that could not be read.
    pub unreadable_lines: usize,
    /// Seconds by operation of the step that was profiled, and which it was.
    pub profile: Option<(usize, Vec<OpTime>)>,
}

/// `run.json`. What a version of Vitrine did not write is empty or none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// "running", "finished", "interrupted" or "failed".
    pub state: Option<String>,
    /// The options after recipe and defaults have filled the gaps.
    pub settings: Map<String, Value>,
    /// Precision, device and threads.
    pub resolved: Map<String, Value>,
    /// The machine.
    pub machine: Map<String, Value>,
    /// The splits that were read.
    pub data: Vec<Split>,
    /// Warnings about them.
    pub data_warnings: Vec<String>,
    /// What training took.
    pub train: Option<Training>,
    /// Largest resident size.
    pub peak_rss_bytes: Option<f64>,
    /// Wall-clock seconds from start to end.
    pub seconds_total: Option<f64>,
    /// The evaluation at the end.
    pub eval: Option<Evaluation>,
}

/// One split of the data.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Split {
    /// "train", "test" or the name that the data give it.
    pub split: String,
    /// Where it was read.
    pub source: String,
    /// Rows used.
    pub rows: u64,
    /// Rows of each class.
    pub classes: Map<String, Value>,
    /// Tokens of all rows.
    pub tokens: u64,
    /// Rows that were cut.
    pub truncated: u64,
    /// Rows by length.
    pub lengths: Option<Lengths>,
}

/// Rows by length in tokens as read: `counts[i]` has `i * width + 1` to `(i + 1) * width` tokens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Lengths {
    /// Tokens in a bin.
    pub width: u32,
    /// Rows of each bin.
    pub counts: Vec<u64>,
}

/// What training took.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Training {
    /// Optimizer steps.
    pub steps: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Tokens per second.
    pub tokens_per_second: f64,
}

/// A line of `metrics.jsonl`. A number that was not finite is none.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// Counted from 1.
    pub step: f64,
    /// Passes over the data.
    #[serde(default)]
    pub epoch: Option<f64>,
    /// Mean loss over the step's rows.
    pub loss: Option<f64>,
    /// Learning rate.
    #[serde(default)]
    pub lr: Option<f64>,
    /// Global norm of the gradient before clipping.
    #[serde(default)]
    pub grad_norm: Option<f64>,
    /// Tokens in the step.
    #[serde(default)]
    pub tokens: Option<f64>,
    /// Wall-clock seconds.
    #[serde(default)]
    pub seconds: Option<f64>,
}

/// What an evaluation found.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// Mean negative log-likelihood, in nats.
    pub loss: Option<f64>,
    /// Share of rows that are right.
    pub accuracy: f64,
    /// Its 95 % Wilson interval.
    pub accuracy_interval: Option<(f64, f64)>,
    /// Of the positive class, or a mean.
    pub precision: f64,
    /// Of the positive class, or a mean.
    pub recall: f64,
    /// Of the positive class, or a mean.
    pub f1: f64,
    /// Its 95 % bootstrap interval.
    pub f1_interval: Option<(f64, f64)>,
    /// Area under the ROC curve.
    pub auroc: Option<f64>,
    /// `[true][predicted]`.
    pub confusion_matrix: Vec<Vec<u64>>,
    /// Rows.
    pub examples: u64,
    /// The class of precision, recall and F1, of two.
    pub positive_class: Option<String>,
    /// Every class.
    pub per_class: Vec<Class>,
    /// Reliability.
    pub calibration: Option<Calibration>,
    /// Accuracy by length.
    pub accuracy_by_length: Vec<Bucket>,
    /// The surest errors.
    pub confidently_wrong: Vec<Wrong>,
    /// Wall-clock seconds.
    pub seconds: Option<f64>,
}

/// One class against all others.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Class {
    /// Its name.
    pub class: String,
    /// True positives over predicted positives.
    pub precision: f64,
    /// True positives over actual positives.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Rows of it.
    pub support: u64,
}

/// Confidence and accuracy by bins of confidence.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Calibration {
    /// In [0, 1].
    pub expected_calibration_error: f64,
    /// From low to high confidence.
    pub bins: Vec<Bin>,
}

/// One bin of confidence.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Bin {
    /// Lower end, exclusive.
    pub lower: f64,
    /// Upper end, inclusive.
    pub upper: f64,
    /// Rows in it.
    pub rows: u64,
    /// Their mean confidence.
    pub confidence: Option<f64>,
    /// Their share of right ones.
    pub accuracy: Option<f64>,
}

/// One bucket of lengths.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// Shortest.
    pub from: u32,
    /// Longest.
    pub to: u32,
    /// Rows in it.
    pub rows: u64,
    /// Share of right ones.
    pub accuracy: f64,
    /// Its 95 % Wilson interval.
    pub interval: (f64, f64),
}

/// A row that the model got wrong.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wrong {
    /// Index in the evaluated rows, from 0.
    pub row: usize,
    /// True class.
    pub label: String,
    /// What the model said.
    pub predicted: String,
    /// How sure it was.
    pub probability: f64,
    /// Tokens read.
    pub tokens: u32,
    /// The beginning of the text.
    pub excerpt: Option<String>,
}

impl Run {
    /// Reads a run folder. A run that still goes may lack `run.json`, and may be writing the last line of `metrics.jsonl`.
    ///
    /// # Errors
    /// `NotARun` when there is neither `run.json` nor `metrics.jsonl`; `Read` and `Json` naming the file.
    pub fn read(folder: &Path) -> Result<Self> {
        let text = |name: &str| {
            let path = folder.join(name);
            match fs::read(&path) {
                Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(ReportError::Read { path, source }),
            }
        };
        let (summary, metrics) = (text(RUN_FILE)?, text(METRICS_FILE)?);
        if summary.is_none() && metrics.is_none() {
            return Err(ReportError::NotARun { folder: folder.to_owned() });
        }
        let mut run = Run { folder: folder.to_owned(), ..Run::default() };
        if let Some(summary) = summary {
            run.summary = serde_json::from_str(&summary)
                .map_err(|source| ReportError::Json { path: folder.join(RUN_FILE), source })?;
        }
        run.read_metrics(&metrics.unwrap_or_default());
        let profiled = run.summary.settings.get("profile_step").and_then(Value::as_u64);
        if let Some(step) = profiled {
            run.profile = crate::trace::read(folder, step as usize)?.map(|times| (step as usize, times));
        }
        Ok(run)
    }

    /// Reads the lines of `metrics.jsonl`. Kinds of lines are told apart by their keys; unknown ones are passed over.
    fn read_metrics(&mut self, text: &str) {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines().filter(|line| !line.trim().is_empty()) {
            let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
                self.unreadable_lines += 1;
                continue;
            };
            let step = fields.get("step").and_then(Value::as_f64);
            if let (Some(step), Some(evaluation)) = (step, fields.get("eval")) {
                match Evaluation::deserialize(evaluation) {
                    Ok(evaluation) => self.evaluations.push((step, evaluation)),
                    Err(_) => self.unreadable_lines += 1,
                }
            } else if let Some(warning) = fields.get("warning") {
                let said = warning.as_str().map_or_else(|| warning.to_string(), str::to_owned);
                self.warnings.push(step.map_or(said.clone(), |step| format!("step {step}: {said}")));
            } else if fields.contains_key("loss") {
                match Step::deserialize(Value::Object(fields)) {
                    Ok(step) => self.steps.push(step),
                    Err(_) => self.unreadable_lines += 1,
                }
            }
        }
    }

    /// Its name: the last part of the folder's path.
    pub fn name(&self) -> String {
        let whole = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        whole.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned())
    }

    /// The evaluation at the end, or the last one during the run.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.summary.eval.as_ref().or(self.evaluations.last().map(|(_, evaluation)| evaluation))
    }

    /// Whether it has come to its end.
    pub fn is_finished(&self) -> bool {
        match self.summary.state.as_deref() {
            Some(state) => state == "finished",
            None => self.summary.train.is_some(),
        }
    }

    /// A setting as text.
    pub fn setting(&self, key: &str) -> Option<String> {
        self.summary.settings.get(key).map(plain).filter(|text| !text.is_empty())
    }

    /// The split that was trained on.
    pub fn training_split(&self) -> Option<&Split> {
        self.summary.data.first()
    }
}

/// A value as a person writes it: no quotes around text, nothing for null.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(_) | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_still_goes_is_read_up_to_its_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [
            r#"{"step":1,"epoch":0.5,"loss":0.7,"lr":1e-5,"grad_norm":2,"tokens":100,"seconds":0.5}"#,
            r#"{"step":1,"warning":"only one class is predicted"}"#,
            r#"{"step":1,"gradient_norms":{"pooler":1}}"#,
            r#"{"step":1,"epoch":0.5,"eval":{"accuracy":0.75,"examples":8}}"#,
            "not JSON",
            r#"{"step":2,"epoch":1,"loss":null,"lr":1e-5}"#,
            r#"{"step":3,"los"#,
        ];
        fs::write(folder.path().join(METRICS_FILE), lines.join("\n")).unwrap();
        let run = Run::read(folder.path()).unwrap();
        assert_eq!(run.steps.len(), 2);
        assert_eq!((run.steps[0].loss, run.steps[1].loss), (Some(0.7), None));
        assert_eq!(run.evaluations.len(), 1);
        assert_eq!(run.evaluation().unwrap().accuracy, 0.75);
        assert_eq!(run.warnings, ["step 1: only one class is predicted"]);
        assert_eq!(run.unreadable_lines, 1);
        assert!(!run.is_finished());
    }

    #[test]
    fn what_is_no_run_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let error = Run::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("run.json") && error.contains("metrics.jsonl"), "{error}");
        fs::write(folder.path().join(RUN_FILE), "{\"settings\": 3}").unwrap();
        let error = Run::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("run.json") && error.contains("line 1"), "{error}");
    }
}
