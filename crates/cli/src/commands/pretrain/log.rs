//! What a pretraining run writes while it goes: `metrics.jsonl`, checkpoints, and lines for people.

use super::{MaskedEvaluation, Outcome, Progress, REPORT_FILE};
use crate::interrupt::Interrupts;
use crate::output::note;
use serde::Serialize;
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use vitrine_bert::{BertError, read_text};
use vitrine_nn::ParameterStore;
use vitrine_train::checkpoint::Checkpoints;
use vitrine_train::pretrain::{PretrainObserver, PretrainProgress};
use vitrine_train::{Optimizer, Result, StepRecord, TrainError};

/// A JSON object a step, and one an evaluation.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// The most bytes of the files that are read back.
const MOST: u64 = 1 << 30;

/// A line of an evaluation.
#[derive(Serialize)]
struct EvaluationLine<'a> {
    step: usize,
    epoch: f64,
    eval: &'a MaskedEvaluation,
}

/// Writes the log and the checkpoints of a run.
pub struct Log<'a> {
    metrics: File,
    path: PathBuf,
    progress: Progress,
    checkpoints: &'a mut Checkpoints,
    interrupts: &'a Interrupts,
    save_every: usize,
    total: usize,
    last: Option<MaskedEvaluation>,
}

/// What a log has seen.
pub struct Logged {
    /// The last evaluation.
    pub last: Option<MaskedEvaluation>,
}

impl<'a> Log<'a> {
    /// Goes on with the log in a folder after so many steps: lines of later ones are removed.
    pub fn open(
        output: &Path,
        step: usize,
        checkpoints: &'a mut Checkpoints,
        interrupts: &'a Interrupts,
        save_every: usize,
    ) -> Outcome<Self> {
        let path = output.join(METRICS_FILE);
        let io = |source| BertError::Io { path: path.clone(), source };
        let mut last = None;
        if step == 0 {
            File::create(&path).map_err(io)?;
        } else {
            let mut kept = String::new();
            for line in metrics(output)?.lines() {
                // A line that a kill has cut off is of a later step, too.
                let Ok(value) = serde_json::from_str::<Value>(line) else { break };
                if value["step"].as_u64().is_none_or(|there| there > step as u64) {
                    break;
                }
                last = serde_json::from_value(value["eval"].clone()).ok().or(last);
                kept.push_str(line);
                kept.push('\n');
            }
            vitrine_bert::write_atomically(&path, kept.as_bytes())?;
        }
        let metrics = OpenOptions::new().append(true).open(&path).map_err(io)?;
        let progress = Progress::new("pretrain", 0);
        Ok(Log { metrics, path, progress, checkpoints, interrupts, save_every, total: 0, last })
    }

    /// The end of the log.
    pub fn finish(self) -> Logged {
        Logged { last: self.last }
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let write = |source| TrainError::Write { path: self.path.clone(), source };
        let mut text = serde_json::to_string(line).map_err(|error| write(error.into()))?;
        text.push('\n');
        // One write a line, so that a reader never sees a part of one.
        self.metrics.write_all(text.as_bytes()).map_err(write)
    }
}

impl PretrainObserver for Log<'_> {
    fn step(&mut self, record: &StepRecord, total: usize) -> Result<()> {
        self.write(record)?;
        if self.total != total {
            self.total = total;
            self.progress = Progress::new("pretrain", total);
        }
        self.progress.set(record.step, || {
            let speed = record.tokens as f64 / record.seconds;
            format!("loss {:.4}  lr {:.2e}  {speed:.0} tokens/s", record.loss, record.lr)
        });
        Ok(())
    }

    fn evaluated(&mut self, step: usize, epoch: f64, eval: &MaskedEvaluation) -> Result<()> {
        self.last = Some(*eval);
        note(format!(
            "step {step}, epoch {epoch:.2}: held-out loss {:.4}, accuracy {:.4}",
            eval.loss, eval.accuracy
        ));
        self.write(&EvaluationLine { step, epoch, eval })
    }

    fn after_step(
        &mut self,
        progress: &PretrainProgress,
        parameters: &ParameterStore,
        optimizer: &dyn Optimizer,
    ) -> Result<()> {
        let is_last = progress.step == self.total;
        let stops = self.interrupts.seen() && !is_last;
        let mut checkpoint = None;
        if stops || is_last || progress.step.is_multiple_of(self.save_every) {
            self.metrics
                .sync_data()
                .map_err(|source| TrainError::Write { path: self.path.clone(), source })?;
            checkpoint = Some(self.checkpoints.save(progress.step, parameters, optimizer, progress, None)?);
        }
        match stops {
            true => Err(TrainError::Interrupted { step: progress.step, total: self.total, checkpoint }),
            false => Ok(()),
        }
    }
}

/// Takes the time of steps, and nothing else.
#[derive(Default)]
pub struct Timer(Vec<f64>);

impl Timer {
    /// The median seconds of the steps after the first `skipped`.
    pub fn median_after(mut self, skipped: usize) -> f64 {
        let mut measured = self.0.split_off(skipped.min(self.0.len().saturating_sub(1)));
        measured.sort_by(f64::total_cmp);
        measured.get(measured.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl PretrainObserver for Timer {
    fn step(&mut self, record: &StepRecord, _: usize) -> Result<()> {
        self.0.push(record.seconds);
        Ok(())
    }

    fn evaluated(&mut self, _: usize, _: f64, _: &MaskedEvaluation) -> Result<()> {
        Ok(())
    }

    fn after_step(&mut self, _: &PretrainProgress, _: &ParameterStore, _: &dyn Optimizer) -> Result<()> {
        Ok(())
    }
}

/// The text of a run's log.
pub fn metrics(output: &Path) -> Outcome<String> {
    Ok(read_text(&output.join(METRICS_FILE), MOST)?)
}

/// What a folder's `run.json` says, if it is that of pretraining.
fn report(output: &Path) -> Option<Value> {
    let value: Value = serde_json::from_str(&fs::read_to_string(output.join(REPORT_FILE)).ok()?).ok()?;
    (value["command"] == "pretrain").then_some(value)
}

/// The state of the pretraining run in a folder.
pub fn state(output: &Path) -> Option<String> {
    Some(report(output)?["state"].as_str()?.to_owned())
}

/// The steps of the pretraining run in a folder.
pub fn began_with(output: &Path) -> Option<usize> {
    Some(report(output)?["settings"]["steps"].as_u64()? as usize)
}
