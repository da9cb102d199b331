//! Where a run starts: its rows, its model and its tokenizer.

use super::settings::Defaults;
use crate::args::{Samples, Train};
use crate::hub::resolve_data;
use crate::names::{DataName, ModelName};
use crate::output::{Failure, Outcome, thousands};
use crate::report;
use std::path::Path;
use vitrine_bert::{Checkpoint, DataColumns, Head, Loaded, ModelConfig, SequenceClassifier, Tokenizer};
use vitrine_train::TrainError;
use vitrine_train::data::sampling::hold_back;
use vitrine_train::data::{self, Dataset, LoadOptions, Purpose, Splits, classes};

/// Share of the rows that is held back to evaluate on where there are no test rows.
const VALIDATION_SPLIT: f64 = 0.1;

/// The arguments with the place of its files for each name of the hub.
pub fn located(arguments: &Train) -> Outcome<Train> {
    let mut located = arguments.clone();
    located.model = arguments.model.located()?;
    located.data = arguments.data.located()?;
    if let Some(data) = &mut located.test_data {
        *data = resolve_data(data, Purpose::Labelled)?;
    }
    if let Some(teacher) = &mut located.distillation.distill_from {
        *teacher = teacher.located()?;
    }
    for texts in &mut located.distillation.unlabelled {
        *texts = resolve_data(texts, Purpose::Pretraining)?;
    }
    Ok(located)
}

/// The rows of a run, and remarks on them.
pub struct Rows {
    pub train: Dataset,
    /// Rows held back from those to train on.
    pub validation: Option<Dataset>,
    pub test: Option<Dataset>,
    pub notes: Vec<String>,
}

/// Which rows a run uses.
pub struct RowChoice<'a> {
    pub data: DataName,
    pub test_data: Option<&'a Path>,
    pub options: LoadOptions,
    pub train_samples: Samples,
    pub test_samples: Samples,
    pub sample_seed: u32,
    /// Share of the training rows that is held back; none for the default.
    pub validation_split: Option<f64>,
}

impl<'a> RowChoice<'a> {
    /// Those of `vitrine train` with these options.
    pub fn of(arguments: &'a Train, defaults: &Defaults) -> Self {
        let count = |asked: Option<Samples>, default: Option<usize>| {
            asked.unwrap_or(default.map_or(Samples::All, Samples::Count))
        };
        RowChoice {
            data: arguments.data.clone(),
            test_data: arguments.test_data.as_deref(),
            options: arguments.columns.options(None),
            train_samples: count(arguments.train_samples, defaults.train_samples),
            test_samples: count(arguments.test_samples, defaults.test_samples),
            sample_seed: arguments.sample_seed.unwrap_or(42),
            validation_split: arguments.validation.validation_split,
        }
    }

    /// The rows to train on and, where there are any, to evaluate on, drawn as the options say, and remarks on them.
    pub fn rows(&self) -> Outcome<Rows> {
        let Splits { train, mut test, mut notes } = self.data.splits(&self.options)?;
        if let Some(path) = self.test_data {
            let (rows, remarks) =
                data::load_evaluation(&resolve_data(path, Purpose::Labelled)?, &self.options)?;
            let (rows, remark) = rows.aligned(&train.label_names, "the training rows")?;
            notes.extend(remarks.into_iter().chain(remark));
            test = Some(rows);
        }
        let labels = train.class_counts().iter().filter(|&&count| count > 0).count();
        if labels < 2 {
            let (rows, source) = (thousands(train.len()), &train.source);
            let message = format!(
                "{source}: all {rows} rows have the same label; there is nothing to learn (see --label-column)"
            );
            return Err(Failure::Run(message));
        }
        let (seed, samples) = (self.sample_seed, self.train_samples);
        let split = self.validation_split.unwrap_or(if test.is_none() { VALIDATION_SPLIT } else { 0.0 });
        // A share of the rows that are used; those to train on are drawn from the rest, as many as were asked for.
        let used = match samples {
            Samples::All => train.len(),
            Samples::Count(wanted) => wanted.min(train.len()),
        };
        let (kept, held) = hold_back(&train, split * used as f64 / train.len() as f64, seed);
        if held.is_empty() && split > 0.0 {
            notes.push(format!("{} rows are too few to hold some back for evaluation", thousands(used)));
        }
        let validation = (!held.is_empty()).then(|| train.subset(&held));
        let train = report::sampled(&train.subset(&kept), samples, seed);
        let test = test.map(|rows| report::sampled(&rows, self.test_samples, seed));
        Ok(Rows { train, validation, test, notes })
    }
}

/// Where training starts: a model with a class for each of the rows' classes.
pub struct Start {
    pub model: SequenceClassifier,
    pub tokenizer: Tokenizer,
    pub rows: Rows,
}

/// The model and tokenizer to start from, and remarks on how they were made among those on the rows. A classifier that the checkpoint brings keeps its
/// classes in their order, and rows are given these by name; it is saved with the data's names.
pub fn start(arguments: &Train, mut rows: Rows, seed: u64) -> Outcome<Start> {
    let train = &rows.train;
    let columns = DataColumns { text: train.text_column.clone(), label: train.label_column.clone() };
    let source = arguments.model.source()?;
    if arguments.model == ModelName::Scratch {
        let config = ModelConfig::from_source(&source)?.with_labels(&train.label_names);
        let tokenizer = Tokenizer::from_dir(&source)?.for_positions(config.max_length());
        let mut model = SequenceClassifier::random(config, seed)?;
        model.describe(&train.label_names, &columns)?;
        return Ok(Start { model, tokenizer, rows });
    }
    let known = match arguments.new_head {
        true => None,
        false => Checkpoint::read(&source, |checkpoint| checkpoint.classes())?.0,
    };
    let Some(known) = known else {
        let head = Head::New { names: &train.label_names, seed };
        let Loaded { mut model, tokenizer, notes: remarks } = SequenceClassifier::load_with(&source, head)?;
        model.describe(&train.label_names, &columns)?;
        rows.notes.extend(remarks);
        return Ok(Start { model, tokenizer, rows });
    };
    let names = saved_names(&train.label_names, &known);
    let fits = |rows: Dataset| {
        rows.aligned(&known, "the checkpoint's classifier").map_err(|error| match error {
            TrainError::Classes { .. } => {
                Failure::Run(format!("{error}, --new-head starts a new classifier with the data's classes"))
            }
            error => error.into(),
        })
    };
    let Rows { train, validation, test, mut notes } = rows;
    let (mut train, remark) = fits(train)?;
    let named = |rows: Option<Dataset>| -> Outcome<Option<Dataset>> {
        let Some(rows) = rows else { return Ok(None) };
        Ok(Some(Dataset { label_names: names.clone(), ..fits(rows)?.0 }))
    };
    let (validation, test) = (named(validation)?, named(test)?);
    train.label_names.clone_from(&names);
    let Loaded { mut model, tokenizer, notes: remarks } =
        SequenceClassifier::load_with(&source, Head::KeepOrNew { names: &names, seed })?;
    notes.extend(remarks.into_iter().chain(remark));
    model.describe(&names, &columns)?;
    Ok(Start { model, tokenizer, rows: Rows { train, validation, test, notes } })
}

/// The names of a kept classifier's classes after training: the data's where the data have names, else the model's.
fn saved_names(data: &[String], known: &[String]) -> Vec<String> {
    let mut names = known.to_vec();
    if let Some((map, _)) = classes::align(data, known).filter(|_| !classes::unnamed(data)) {
        for (name, class) in data.iter().zip(map) {
            names[class as usize].clone_from(name);
        }
    }
    names
}
