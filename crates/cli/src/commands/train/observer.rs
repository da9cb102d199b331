//! [`RunObserver`]: progress, `metrics.jsonl`, checkpoints and signals of a training run.

use crate::interrupt::Interrupts;
use crate::output::{note, si, warn};
use crate::progress::Progress;
use serde::Serialize;
use std::fs::File;
use std::io::{LineWriter, Write};
use std::path::{Path, PathBuf};
use vitrine_bert::Place;
use vitrine_train::techniques::FailedStep;
use vitrine_train::{Evaluation, EvaluationRecord, Observer, StepRecord, TrainError};

/// Shows training as it goes, and writes `metrics.jsonl`.
pub struct RunObserver<'a> {
    /// Where records go, a JSON object a line.
    pub metrics: LineWriter<File>,
    /// The file behind `metrics`, for messages.
    pub metrics_path: PathBuf,
    /// The bar of the training loop.
    pub progress: Progress,
    /// Whoever wants the run to end.
    pub interrupts: &'a Interrupts,
    /// Steps that this process has seen.
    pub steps: usize,
    /// What went wrong while the run went on.
    pub warnings: Vec<String>,
    /// What to do about a step that broke, if one did.
    pub failed_step: Option<String>,
    /// Saves such a step, and says what to do.
    pub save_failed_step: &'a dyn Fn(&FailedStep<'_>) -> String,
}

/// A warning, as a line of `metrics.jsonl`.
#[derive(Serialize)]
struct WarningLine<'a> {
    step: usize,
    warning: &'a str,
}

/// A line of `metrics.jsonl` for an evaluation.
#[derive(Serialize)]
struct EvaluationLine<'a> {
    #[serde(flatten)]
    record: &'a EvaluationRecord,
    eval: &'a Evaluation,
}

/// A line of `metrics.jsonl` for the gradient norms of a step.
#[derive(Serialize)]
struct GradientNormsLine {
    step: usize,
    gradient_norms: serde_json::Map<String, serde_json::Value>,
}

impl RunObserver<'_> {
    fn write(&mut self, line: &impl Serialize) -> Result<(), TrainError> {
        let written = serde_json::to_writer(&mut self.metrics, line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.metrics.write_all(b"\n"));
        written.map_err(|source| TrainError::Write { path: self.metrics_path.clone(), source })
    }
}

impl Observer for RunObserver<'_> {
    fn step(&mut self, record: &StepRecord, _total: usize) -> Result<(), TrainError> {
        self.steps += 1;
        self.write(record)?;
        self.progress.set(record.step, || {
            let speed = record.tokens as f64 / record.seconds;
            // Short, so that a line of 50 columns has all of it.
            let speed = if speed < 1e3 { format!("{speed:.0}") } else { si(speed).replace(' ', "") };
            format!("loss {:.3}  lr {:.1e}  {speed} tok/s", record.loss, record.lr)
        });
        Ok(())
    }

    fn gradient_norms(&mut self, step: usize, norms: &[(Place, f64)]) -> Result<(), TrainError> {
        let norms =
            norms.iter().map(|(part, norm)| (part.to_string().replace(' ', "."), (*norm).into())).collect();
        self.write(&GradientNormsLine { step, gradient_norms: norms })
    }

    fn evaluation(&mut self, record: &EvaluationRecord, evaluation: &Evaluation) -> Result<(), TrainError> {
        self.write(&EvaluationLine { record, eval: evaluation })?;
        let metrics = &evaluation.metrics;
        self.progress.suspend(|| {
            note(format!(
                "step {}: accuracy {:.4}  f1 {:.4}  loss {:.4} on {} rows{}",
                record.step,
                metrics.accuracy,
                metrics.f1,
                metrics.loss,
                metrics.examples,
                if record.best == Some(true) { "  (the best so far)" } else { "" }
            ));
        });
        Ok(())
    }

    /// The lines up to a checkpoint are on the disk as it is.
    fn checkpoint(&mut self, _step: usize, _folder: &Path) -> Result<(), TrainError> {
        let synced = self.metrics.get_ref().sync_data();
        synced.map_err(|source| TrainError::Write { path: self.metrics_path.clone(), source })
    }

    /// Hours of work are not given up for a disk on which somebody may make room.
    fn checkpoint_failed(&mut self, _step: usize, error: TrainError) -> Result<(), TrainError> {
        warn(format!("{error}; training goes on without it"));
        Ok(())
    }

    fn warning(&mut self, step: usize, text: &str) -> Result<(), TrainError> {
        self.progress.suspend(|| warn(text));
        self.warnings.push(text.to_owned());
        self.write(&WarningLine { step, warning: text })
    }

    fn failed_step(&mut self, failed: &FailedStep<'_>) {
        self.failed_step = Some((self.save_failed_step)(failed));
    }

    fn wants_to_stop(&self) -> bool {
        self.interrupts.seen()
    }
}
