//! The settings of a run: options, then the recipe, then defaults.

use super::techniques::schedule;
use crate::args::{Recipe, Samples, Train};
use crate::hub::name_of;
use crate::names::{DataName, ModelName};
use crate::output::Outcome;
use serde::Serialize;
use std::collections::BTreeMap;
use vitrine_bert::Truncation;
use vitrine_train::TrainSettings;
use vitrine_train::data::batching::EvalBatch;
use vitrine_train::techniques::Techniques;

/// The options after recipe and defaults have filled the gaps: what `run.json` stores.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    pub model: String,
    pub data: String,
    pub save_dtype: String,
    pub recipe: Option<&'static str>,
    pub test_data: Option<String>,
    pub text_column: Option<String>,
    pub label_column: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub label_map: BTreeMap<String, String>,
    pub train_samples: Option<usize>,
    pub test_samples: Option<usize>,
    pub sample_seed: u32,
    pub validation_split: Option<f64>,
    pub max_length: usize,
    pub truncate: String,
    pub warmup_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distill_from: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unlabelled: Vec<String>,
    #[serde(flatten)]
    pub train: TrainSettings,
}

/// What is used where neither an option nor anything else says otherwise.
pub struct Defaults {
    pub train_samples: Option<usize>,
    pub test_samples: Option<usize>,
    pub max_length: Option<usize>,
    pub epochs: usize,
    pub batch_size: usize,
    pub lr: f64,
    pub warmup_steps: Option<usize>,
    pub warmup_ratio: f64,
    pub weight_decay: f64,
}

impl Defaults {
    /// The recipe's, or the usual ones.
    pub fn of(arguments: &Train) -> Self {
        let (train_samples, test_samples) = recipe_samples(arguments.recipe);
        let common = Defaults {
            train_samples,
            test_samples,
            max_length: None,
            epochs: 3,
            batch_size: 16,
            lr: 5e-5,
            warmup_steps: None,
            warmup_ratio: 0.1,
            weight_decay: 0.01,
        };
        match (arguments.recipe, &arguments.model, &arguments.data) {
            (Some(Recipe::Notebook), ..) => {
                Defaults { max_length: Some(512), lr: 2e-5, warmup_steps: Some(500), ..common }
            }
            // A small BERT from scratch takes more passes; at 1e-3 it does not leave the loss of a guess on IMDB.
            (_, ModelName::Scratch, _) => Defaults { epochs: 8, batch_size: 32, lr: 3e-4, ..common },
            // A narrow model takes higher rates than BERT-base. The generated reviews need few passes, at a high one.
            (_, ModelName::Embedded(_), DataName::Embedded) => {
                Defaults { epochs: 2, batch_size: 32, lr: 5e-4, ..common }
            }
            (_, ModelName::Embedded(_), _) => Defaults { batch_size: 32, lr: 2e-4, ..common },
            (_, ModelName::Path(_), _) => common,
        }
    }
}

/// Rows to train and to evaluate on by a recipe; none for all.
pub fn recipe_samples(recipe: Option<Recipe>) -> (Option<usize>, Option<usize>) {
    match recipe {
        Some(Recipe::Notebook) => (Some(2500), Some(500)),
        None => (None, None),
    }
}

/// What the options are that nobody gave, as far as it does not depend on the data or the model.
pub fn default_options(arguments: &Train) -> Vec<(&'static str, String)> {
    let defaults = Defaults::of(arguments);
    let samples = |count: Option<usize>| count.map_or("all".to_owned(), |count| count.to_string());
    let mut options = vec![
        ("train-samples", samples(defaults.train_samples)),
        ("test-samples", samples(defaults.test_samples)),
        ("sample-seed", "42".into()),
        ("epochs", defaults.epochs.to_string()),
        ("batch-size", defaults.batch_size.to_string()),
        ("lr", defaults.lr.to_string()),
        ("weight-decay", defaults.weight_decay.to_string()),
        ("max-grad-norm", "1".into()),
        ("seed", "42".into()),
    ];
    options.extend(defaults.max_length.map(|length| ("max-length", length.to_string())));
    if arguments.warmup_steps.is_none() && arguments.warmup_ratio.is_none() {
        options.push(match defaults.warmup_steps {
            Some(steps) => ("warmup-steps", steps.to_string()),
            None => ("warmup-ratio", defaults.warmup_ratio.to_string()),
        });
    }
    options
}

/// The settings of a run over `rows` rows.
pub fn settings(
    arguments: &Train,
    defaults: &Defaults,
    seed: u64,
    (max_length, truncate): (usize, Truncation),
    rows: usize,
    techniques: Techniques,
) -> Outcome<Settings> {
    let lr = arguments.lr.unwrap_or(defaults.lr);
    let batch_size = arguments.batch_size.unwrap_or(defaults.batch_size);
    let epochs = arguments.epochs.unwrap_or(defaults.epochs);
    let total_steps = rows.div_ceil(batch_size) * epochs;
    let by_ratio = |ratio: f64| (ratio * total_steps as f64).ceil() as usize;
    // An explicit option, then the recipe's steps, then a share of the run.
    let (warmup_steps, warmup_ratio) =
        match (arguments.warmup_steps, arguments.warmup_ratio, defaults.warmup_steps) {
            (Some(steps), _, _) | (None, None, Some(steps)) => (steps, None),
            (None, Some(ratio), _) => (by_ratio(ratio), Some(ratio)),
            (None, None, None) => (by_ratio(defaults.warmup_ratio), Some(defaults.warmup_ratio)),
        };
    let count = |samples: Option<Samples>, default: Option<usize>| match samples {
        None => default,
        Some(Samples::All) => None,
        Some(Samples::Count(count)) => Some(count),
    };
    Ok(Settings {
        model: arguments.model.to_string(),
        data: arguments.data.to_string(),
        save_dtype: arguments.save_dtype.dtype().to_string(),
        recipe: arguments.recipe.map(|Recipe::Notebook| "notebook"),
        test_data: arguments.test_data.as_ref().map(|path| name_of(path)),
        text_column: arguments.columns.text_column.clone(),
        label_column: arguments.columns.label_column.clone(),
        label_map: arguments.columns.label_map.iter().cloned().collect(),
        train_samples: count(arguments.train_samples, defaults.train_samples),
        test_samples: count(arguments.test_samples, defaults.test_samples),
        sample_seed: arguments.sample_seed.unwrap_or(42),
        validation_split: arguments.validation.validation_split,
        max_length,
        truncate: truncate.to_string(),
        warmup_ratio,
        distill_from: arguments.distillation.distill_from.as_ref().map(ToString::to_string),
        unlabelled: arguments.distillation.unlabelled.iter().map(|path| path.display().to_string()).collect(),
        train: TrainSettings {
            epochs,
            batch_size,
            micro_batch_size: arguments.micro_batch_size,
            eval_batch: arguments.eval_batch_size.map_or_else(EvalBatch::default, EvalBatch::Rows),
            lr,
            schedule: schedule(arguments, lr)?,
            warmup_steps,
            weight_decay: arguments.weight_decay.unwrap_or(defaults.weight_decay),
            max_grad_norm: arguments.max_grad_norm.unwrap_or(1.0),
            seed,
            shuffle: !arguments.no_shuffle,
            group_by_length: arguments.group_by_length,
            checkpoint_layers: arguments.checkpoint_layers,
            measurements: arguments.logging.measurements(),
            validation: arguments.validation.settings(),
            techniques,
        },
    })
}
