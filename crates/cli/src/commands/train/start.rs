//! Where a run starts: its rows, its model and its tokenizer.

use super::settings::Defaults;
use crate::args::{Samples, Train};
use crate::output::{Failure, Outcome, thousands};
use crate::report;
use vitrine_bert::{Checkpoint, DataColumns, Head, Loaded, ModelConfig, SequenceClassifier, Tokenizer};
use vitrine_train::data::{self, Dataset, Splits, classes};
use vitrine_train::{TrainError, corpus};

/// The rows to train on and, where there are any, to evaluate on, drawn as the options say, and remarks on them.
pub fn rows(arguments: &Train, defaults: &Defaults) -> Outcome<Splits> {
    let options = arguments.columns.options(None);
    let Splits { train, mut test, mut notes } = match &arguments.data {
        Some(path) => data::load_splits(path, &options)?,
        None => corpus::splits(0),
    };
    if let Some(path) = &arguments.test_data {
        let (rows, remarks) = data::load_evaluation(path, &options)?;
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
    let seed = arguments.sample_seed.unwrap_or(42);
    let count = |asked: Option<Samples>, default: Option<usize>| {
        asked.unwrap_or(default.map_or(Samples::All, Samples::Count))
    };
    let train = report::sampled(&train, count(arguments.train_samples, defaults.train_samples), seed);
    let test =
        test.map(|rows| report::sampled(&rows, count(arguments.test_samples, defaults.test_samples), seed));
    Ok(Splits { train, test, notes })
}

/// Where training starts: a model with a class for each of the rows' classes.
pub struct Start {
    pub model: SequenceClassifier,
    pub tokenizer: Tokenizer,
    pub train: Dataset,
    pub test: Option<Dataset>,
}

/// The model and tokenizer to start from; `notes` says how they were made. A classifier that the checkpoint brings keeps its
/// classes in their order, and rows are given these by name; it is saved with the data's names.
pub fn start(
    arguments: &Train,
    train: Dataset,
    test: Option<Dataset>,
    seed: u64,
    notes: &mut Vec<String>,
) -> Outcome<Start> {
    let columns = DataColumns { text: train.text_column.clone(), label: train.label_column.clone() };
    let Some(folder) = &arguments.model else {
        let tokenizer = Tokenizer::from_vocabulary(&corpus::vocabulary())?;
        // About a million parameters: enough for short reviews, seconds an epoch.
        let config = ModelConfig {
            vocab_size: tokenizer.vocabulary_size(),
            hidden_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 512,
            max_position_embeddings: 128,
            ..ModelConfig::bert_mini()
        }
        .with_labels(&train.label_names);
        let model = SequenceClassifier::random(config, seed)?;
        notes.push("no --model and --data: a small BERT from scratch on the embedded corpus".into());
        return Ok(Start { model, tokenizer, train, test });
    };
    let known = match arguments.new_head {
        true => None,
        false => Checkpoint::read(folder, |checkpoint| checkpoint.classes())?.0,
    };
    let Some(known) = known else {
        let head = Head::New { names: &train.label_names, seed };
        let Loaded { mut model, tokenizer, notes: remarks } = SequenceClassifier::load_with(folder, head)?;
        notes.extend(remarks);
        model.describe(&train.label_names, &columns)?;
        return Ok(Start { model, tokenizer, train, test });
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
    let (mut train, remark) = fits(train)?;
    let mut test = test.map(fits).transpose()?.map(|(rows, _)| rows);
    for rows in [Some(&mut train), test.as_mut()].into_iter().flatten() {
        rows.label_names.clone_from(&names);
    }
    let Loaded { mut model, tokenizer, notes: remarks } =
        SequenceClassifier::load_with(folder, Head::KeepOrNew { names: &names, seed })?;
    notes.extend(remarks.into_iter().chain(remark));
    model.describe(&names, &columns)?;
    Ok(Start { model, tokenizer, train, test })
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
