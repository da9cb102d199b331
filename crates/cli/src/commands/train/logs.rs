//! What other programs read while a run goes: TensorBoard's event files, and the trace of a step.

use crate::output::{note, warn};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vitrine_bert::{Place, write_atomically};
use vitrine_report::tensorboard::{EventWriter, PREFIX};
use vitrine_report::trace::{self, Span};
use vitrine_train::{Evaluation, EvaluationRecord, Observer, Step, StepRecord, TrainError};

/// Writes TensorBoard's event file. Where that fails it says so and the run goes on: `metrics.jsonl` has the same numbers.
pub struct TensorBoard {
    writer: Option<EventWriter<File>>,
    path: PathBuf,
    /// Event files of another run, which this one replaces.
    replaced: Vec<PathBuf>,
}

impl TensorBoard {
    /// Begins an event file in a run folder; `after` is the step of the checkpoint from which a run goes on. Where event files are
    /// there already, TensorBoard is told to drop their steps that this run makes again.
    pub fn start(folder: &Path, after: Option<usize>) -> Self {
        let files: Vec<PathBuf> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
            .map(|entry| entry.path())
            .collect();
        let purge_step = (!files.is_empty()).then(|| after.map_or(0, |step| step as u64 + 1));
        let replaced = if after.is_none() { files } else { Vec::new() };
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
        match EventWriter::create(folder, host, purge_step) {
            Ok((writer, path)) => TensorBoard { writer: Some(writer), path, replaced },
            Err(error) => {
                warn(format!("{}: no TensorBoard events: {error}", folder.display()));
                TensorBoard { writer: None, path: folder.to_owned(), replaced: Vec::new() }
            }
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut EventWriter<File>) -> io::Result<()>) {
        let Some(writer) = &mut self.writer else { return };
        if let Err(error) = write(writer) {
            warn(format!("{}: {error}; no more events for TensorBoard", self.path.display()));
            self.writer = None;
        }
    }

    /// The settings of the run, for TensorBoard's tab "Text".
    pub fn settings(&mut self, settings: &impl serde::Serialize) {
        let Ok(serde_json::Value::Object(settings)) = serde_json::to_value(settings) else { return };
        let mut table = String::from("| setting | value |\n|---|---|\n");
        for (name, value) in settings.iter().filter(|(_, value)| !value.is_null()) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            table.push_str(&format!("| {name} | {} |\n", text.replace('|', "\\|").replace('\n', " ")));
        }
        self.write(|writer| writer.text(0, "settings", &table));
    }

    /// What an evaluation found; `split` is the first part of its tags.
    pub fn evaluation(&mut self, split: &str, step: usize, evaluation: &Evaluation) {
        let metrics = &evaluation.metrics;
        let mut values = vec![
            ("accuracy", metrics.accuracy),
            ("f1", metrics.f1),
            ("loss", metrics.loss),
            ("precision", metrics.precision),
            ("recall", metrics.recall),
            ("expected_calibration_error", evaluation.calibration.expected_calibration_error),
        ];
        values.extend(evaluation.auroc.map(|auroc| ("auroc", auroc)));
        let tags: Vec<(String, f64)> =
            values.into_iter().map(|(name, value)| (format!("{split}/{name}"), value)).collect();
        self.scalars(step, &tags);
    }

    fn scalars(&mut self, step: usize, values: &[(String, f64)]) {
        let values: Vec<(&str, f64)> = values.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
        self.write(|writer| writer.scalars(step as u64, &values));
    }

    /// The run has failed before there was anything to look at.
    pub fn abandon(self) {
        if self.writer.is_some() {
            // The error that led here is told; there is no better one.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// The run's model is in its place: the events of the run before are gone for good.
    pub fn finished(&mut self) {
        for path in self.replaced.drain(..) {
            // What cannot be removed is marked as outdated by the first event of this run.
            let _ = fs::remove_file(path);
        }
    }
}

impl Observer for TensorBoard {
    fn step(&mut self, record: &StepRecord, _total: usize) -> Result<(), TrainError> {
        let values = [
            ("train/loss", record.loss),
            ("train/learning_rate", record.lr),
            ("train/grad_norm", record.grad_norm),
            ("train/tokens_per_second", record.tokens as f64 / record.seconds),
            ("train/epoch", record.epoch),
        ];
        self.write(|writer| writer.scalars(record.step as u64, &values));
        Ok(())
    }

    fn gradient_norms(&mut self, step: usize, norms: &[(Place, f64)]) -> Result<(), TrainError> {
        let values: Vec<(String, f64)> = norms
            .iter()
            .map(|(part, norm)| (format!("gradient_norm/{part}").replace(' ', "."), *norm))
            .collect();
        self.scalars(step, &values);
        Ok(())
    }

    fn evaluation(&mut self, record: &EvaluationRecord, evaluation: &Evaluation) -> Result<(), TrainError> {
        TensorBoard::evaluation(self, "eval", record.step, evaluation);
        Ok(())
    }
}

/// Writes the trace of the step that is profiled.
pub struct Tracer {
    /// Where to.
    pub folder: PathBuf,
}

impl Observer for Tracer {
    fn profile(&mut self, step: usize, taken: &Step) -> Result<(), TrainError> {
        let operations = || {
            let forward = taken.forward.operations().iter().map(|timed| ("forward", timed));
            forward.chain(taken.backward.operations().iter().map(|timed| ("backward", timed)))
        };
        let origin = operations().map(|(_, timed)| timed.started).min().unwrap_or(taken.update_started);
        let micros = |time: Instant| time.duration_since(origin).as_secs_f64() * 1e6;
        let mut spans: Vec<Span> = operations()
            .map(|(track, timed)| Span {
                track,
                name: timed.op.to_owned(),
                start: micros(timed.started),
                duration: timed.seconds * 1e6,
                scope: timed.scope.to_string(),
                shape: timed.shape.to_vec(),
            })
            .collect();
        spans.push(Span {
            track: "update",
            name: "clip and update".to_owned(),
            start: micros(taken.update_started),
            duration: taken.update_seconds * 1e6,
            scope: String::new(),
            shape: Vec::new(),
        });
        let path = self.folder.join(trace::file_name(step));
        let mut file = Vec::new();
        let written = trace::write(&mut file, &format!("vitrine train, step {step}"), &spans)
            .map_err(|error| error.to_string())
            .and_then(|()| write_atomically(&path, &file).map_err(|error| error.to_string()));
        match written {
            Ok(()) => note(format!("step {step} is traced in {}; ui.perfetto.dev opens it", path.display())),
            Err(error) => warn(format!("no trace of step {step}: {error}")),
        }
        Ok(())
    }
}
