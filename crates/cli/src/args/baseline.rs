//! The options of `vitrine baseline`.

use super::{Columns, Recipe, Samples, count, examples, positive};
use crate::names::DataName;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use vitrine_train::baseline::BagOfWordsSettings;

/// How often a term counts that a text has several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TermFrequency {
    /// 1 + ln n for n times.
    Sublinear,
    /// n for n times.
    Raw,
}

/// `vitrine baseline`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::BASELINE)]
pub struct Baseline {
    /// The output folder of a finished `vitrine train`: its rows are taken, and the model is compared with the baseline;
    /// default: the rows are those that the options below name.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["recipe", "train_samples", "test_samples", "sample_seed", "validation_split", "text_column", "label_column", "label_map"])]
    pub run: Option<PathBuf>,
    /// Take the rows of a named recipe, as `vitrine train` does; default: none.
    #[arg(long, value_enum)]
    pub recipe: Option<Recipe>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,

    /// Training data, as for `vitrine train`; with --run, where the run's data are now; default: embedded, or what run.json
    /// names.
    #[arg(long, value_name = "NAME|DIR|FILE", help_heading = "Data")]
    pub data: Option<DataName>,
    /// Data to evaluate on, when --data has no test split; default: none; see also --validation-split.
    #[arg(long, value_name = "DIR|FILE", help_heading = "Data")]
    pub test_data: Option<PathBuf>,
    /// Training rows: a number (balanced over the labels, drawn as pandas would) or 'all'; default: all (notebook: 2500).
    #[arg(long, value_name = "N|all", help_heading = "Data")]
    pub train_samples: Option<Samples>,
    /// Test rows: a number or 'all'; default: all (notebook: 500).
    #[arg(long, value_name = "N|all", help_heading = "Data")]
    pub test_samples: Option<Samples>,
    /// Seed of the draw; default: 42.
    #[arg(long, value_name = "S", help_heading = "Data")]
    pub sample_seed: Option<u32>,
    /// Share of each class's training rows that is held back to evaluate on; default: 0.1 where the data have no test rows,
    /// else 0.
    #[arg(long, value_name = "SHARE", value_parser = super::checkpointing::share, help_heading = "Data")]
    pub validation_split: Option<f64>,
    #[command(flatten)]
    pub columns: Columns,

    /// Terms: 1 for words, 2 for words and pairs of neighbouring words.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2), help_heading = "Bag of words")]
    pub ngrams: u8,
    /// Leave out terms that are in fewer training texts than N.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = count, help_heading = "Bag of words")]
    pub min_df: usize,
    /// Keep only the N most frequent terms; default: all.
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Bag of words")]
    pub max_features: Option<usize>,
    /// How a term counts that a text has n times (scikit-learn's `sublinear_tf`).
    #[arg(long, value_enum, default_value = "sublinear", help_heading = "Bag of words")]
    pub tf: TermFrequency,
    /// Inverse strength of the L2 penalty on the weights, as in scikit-learn.
    #[arg(long, value_name = "C", default_value_t = 10.0, value_parser = positive, help_heading = "Bag of words")]
    pub c: f64,
    /// Show the N terms with the largest weights of each class; default: none.
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Bag of words")]
    pub most_telling: Option<usize>,
    /// Threads; default: every core.
    #[arg(long, help_heading = "Compute", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

impl Baseline {
    /// What counts, and how strongly weights are held back.
    pub fn settings(&self) -> BagOfWordsSettings {
        BagOfWordsSettings {
            ngrams: usize::from(self.ngrams),
            min_df: self.min_df,
            max_features: self.max_features,
            sublinear_tf: self.tf == TermFrequency::Sublinear,
            c: self.c,
        }
    }
}
