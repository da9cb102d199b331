//! The model of a finished run, beside which the baseline is set.

use crate::args::{Baseline, Samples};
use crate::commands::train::{RowChoice, Rows};
use crate::names::DataName;
use crate::output::{Align, Failure, Outcome, line, quoted_path, table, thousands};
use crate::predictions::{Discordance, Predictions};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use vitrine_bert::looks_like_hub_name;
use vitrine_train::Evaluation;
use vitrine_train::data::LoadOptions;

/// Bytes of a run.json, at most: lengths and confusion of a thousand classes are 10 MB.
const RUN_JSON: u64 = 64 << 20;

/// What is read of `run.json`.
#[derive(Deserialize)]
struct RunJson {
    command: String,
    state: String,
    settings: Settings,
    rows: Hashes,
    eval_split: Option<String>,
    eval: Option<Figures>,
    train: Option<Trained>,
}

#[derive(Deserialize)]
struct Settings {
    data: String,
    test_data: Option<String>,
    text_column: Option<String>,
    label_column: Option<String>,
    #[serde(default)]
    label_map: BTreeMap<String, String>,
    train_samples: Option<usize>,
    test_samples: Option<usize>,
    sample_seed: u32,
    validation_split: Option<f64>,
}

#[derive(Deserialize)]
struct Hashes {
    train_hash: String,
    validation_hash: Option<String>,
    test_hash: Option<String>,
}

#[derive(Deserialize)]
struct Trained {
    seconds: f64,
}

/// The figures of an evaluation that are compared.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Figures {
    accuracy: f64,
    accuracy_interval: (f64, f64),
    f1: f64,
    f1_interval: (f64, f64),
    #[serde(skip_serializing)]
    per_class: Vec<ClassName>,
}

/// A class, by name.
#[derive(Clone, Debug, Deserialize)]
struct ClassName {
    class: String,
}

/// A finished run with an evaluation.
pub struct FinishedRun {
    folder: PathBuf,
    report: RunJson,
    figures: Figures,
    train_seconds: f64,
}

/// The model beside the baseline, for `--json`.
#[derive(Serialize)]
pub struct Against {
    folder: String,
    #[serde(flatten)]
    figures: Figures,
    train_seconds: f64,
    /// The model is the first, the baseline the second; none without the run's predictions.
    mcnemar: Option<Discordance>,
    /// Why there is no test.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_tested: Option<String>,
}

/// Reads a finished run.
pub fn read(folder: &Path) -> Outcome<FinishedRun> {
    let path = folder.join("run.json");
    let fail = |why: String| Failure::Run(format!("--run {}: {why}", path.display()));
    let file = File::open(&path).map_err(|error| {
        Failure::Usage(format!("--run {}: {error}; name the --output of a `vitrine train`", path.display()))
    })?;
    let mut text = String::new();
    BufReader::new(file).take(RUN_JSON).read_to_string(&mut text).map_err(|error| fail(error.to_string()))?;
    let report: RunJson =
        serde_json::from_str(&text).map_err(|error| fail(format!("not of a `vitrine train`: {error}")))?;
    if report.command != "train" || report.state != "finished" {
        return Err(fail(format!(
            "a `{}` that is {}; name a finished `train`",
            report.command, report.state
        )));
    }
    match (&report.eval, &report.train) {
        (Some(figures), Some(Trained { seconds })) => Ok(FinishedRun {
            folder: folder.to_owned(),
            figures: figures.clone(),
            train_seconds: *seconds,
            report,
        }),
        _ => Err(fail("the run has no evaluation to compare with".into())),
    }
}

impl FinishedRun {
    /// The rows of the run, with the classes of its model.
    pub fn rows(&self, arguments: &Baseline) -> Outcome<Rows> {
        let settings = &self.report.settings;
        let recorded = || DataName::from(OsString::from(&settings.data));
        let data = arguments.data.clone().unwrap_or_else(recorded);
        if arguments.data.is_none()
            && let DataName::Path(path) = &data
            && !path.exists()
            && !looks_like_hub_name(path)
        {
            return Err(Failure::Run(format!(
                "--run {}: its data {} are not there; name them with --data, or run this where the run was started",
                self.folder.display(),
                path.display()
            )));
        }
        let samples = |count: Option<usize>| count.map_or(Samples::All, Samples::Count);
        let choice = RowChoice {
            data,
            test_data: arguments.test_data.as_deref().or(settings.test_data.as_deref().map(Path::new)),
            options: LoadOptions {
                text_column: settings.text_column.clone(),
                label_column: settings.label_column.clone(),
                label_map: settings.label_map.clone(),
                ..LoadOptions::default()
            },
            train_samples: samples(settings.train_samples),
            test_samples: samples(settings.test_samples),
            sample_seed: settings.sample_seed,
            validation_split: settings.validation_split,
        };
        let Rows { train, validation, test, notes } = choice.rows()?;
        let names: Vec<String> = self.figures.per_class.iter().map(|class| class.class.clone()).collect();
        let known = |rows: vitrine_train::data::Dataset| {
            rows.aligned(&names, "the run's model").map(|(rows, _)| rows)
        };
        Ok(Rows {
            train: known(train)?,
            validation: validation.map(known).transpose()?,
            test: test.map(known).transpose()?,
            notes,
        })
    }

    /// Whether these are the rows that the run had, by their hashes.
    pub fn check(&self, split: &str, train_hash: &str, eval_hash: &str) -> Outcome {
        let rows = &self.report.rows;
        let evaluated = match split {
            "test" => rows.test_hash.as_deref(),
            _ => rows.validation_hash.as_deref(),
        };
        let differs = if rows.train_hash != train_hash {
            "training"
        } else if self.report.eval_split.as_deref() != Some(split) || evaluated != Some(eval_hash) {
            split
        } else {
            return Ok(());
        };
        Err(Failure::Run(format!(
            "--run {}: the {differs} rows of {} are not those of the run (their SHA-256 differs from run.json); name the \
             run's own data with --data",
            self.folder.display(),
            self.report.settings.data
        )))
    }

    /// The model beside the baseline's evaluation of the same rows.
    pub fn compare(self, eval: &Evaluation) -> Outcome<Against> {
        let baseline = &eval.predictions;
        let right: Vec<bool> = (0..baseline.len()).map(|row| baseline.is_correct(row)).collect();
        let (mcnemar, not_tested) = match Predictions::read(&self.folder) {
            Ok(model) if model.right.len() == right.len() => {
                (Some(Discordance::of(&model.right, &right)), None)
            }
            Ok(model) => {
                let (rows, lines) = (thousands(right.len()), thousands(model.right.len()));
                (None, Some(format!("predictions.jsonl has {lines} rows instead of {rows}")))
            }
            Err(why) => (None, Some(why)),
        };
        Ok(Against {
            folder: self.folder.display().to_string(),
            figures: self.figures,
            train_seconds: self.train_seconds,
            mcnemar,
            not_tested,
        })
    }
}

impl Against {
    /// Prints both, and McNemar's test.
    pub fn print(&self, baseline: &Evaluation, terms: &str, seconds: f64) -> Outcome {
        let m = &baseline.metrics;
        let cells = |name: String, accuracy: f64, a: (f64, f64), f1: f64, f: (f64, f64), seconds: f64| {
            let interval = |(low, high): (f64, f64)| format!("{low:.4} to {high:.4}");
            vec![
                name,
                format!("{accuracy:.4}"),
                interval(a),
                format!("{f1:.4}"),
                interval(f),
                format!("{seconds:.1}"),
            ]
        };
        let figures = &self.figures;
        let rows = [
            cells(
                format!("model in {}", quoted_path(Path::new(&self.folder))),
                figures.accuracy,
                figures.accuracy_interval,
                figures.f1,
                figures.f1_interval,
                self.train_seconds,
            ),
            cells(
                format!("bag of {terms}"),
                m.accuracy,
                baseline.accuracy_interval,
                m.f1,
                baseline.f1_interval,
                seconds,
            ),
        ];
        let columns = [
            ("on the same rows", Align::Left),
            ("accuracy", Align::Right),
            ("95 % interval", Align::Left),
            ("f1", Align::Right),
            ("95 % interval", Align::Left),
            ("seconds of training", Align::Right),
        ];
        line(table(&columns, &rows))?;
        match (&self.mcnemar, &self.not_tested) {
            (Some(Discordance { only_first, only_second, p }), _) => line(format!(
                "McNemar's test, {} rows: {} are right in the model only, {} in the baseline only: p = {p:.2e}",
                thousands(baseline.predictions.len()),
                thousands(*only_first),
                thousands(*only_second),
            )),
            (None, why) => line(format!("no McNemar test: {}", why.as_deref().unwrap_or_default())),
        }
    }
}
