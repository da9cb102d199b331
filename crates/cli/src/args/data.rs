//! The options of `vitrine data`, and those that `train` and `eval` share about tokens and config files.

use super::{Columns, examples};
use crate::names::ModelName;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use vitrine_bert::Truncation;
use vitrine_train::TokenCache;

/// `vitrine data`.
#[derive(Subcommand, Clone, Debug)]
pub enum Data {
    /// Show rows, labels, lengths, duplicates and faults of a data set.
    Inspect(DataInspect),
}

/// How texts become tokens.
#[derive(Args, Clone, Debug, Default)]
pub struct TokenOptions {
    /// Which part of a longer text stays: head, tail, or head-tail (a quarter from the beginning, the rest from the end); the
    /// model remembers it; default: what the model remembers, else head.
    #[arg(long, value_parser = truncation, value_name = "PART", help_heading = "Data")]
    pub truncate: Option<Truncation>,
    /// Tokenize again, whatever is in the cache (vitrine/ in $XDG_CACHE_HOME or ~/.cache), and keep nothing there.
    #[arg(long, help_heading = "Data")]
    pub no_cache: bool,
}

impl TokenOptions {
    /// The user's cache of tokens, unless it is off or there is no place for it.
    pub fn cache(&self) -> Option<TokenCache> {
        if self.no_cache { None } else { TokenCache::of_user() }
    }
}

/// A name of a [`Truncation`].
pub fn truncation(name: &str) -> Result<Truncation, String> {
    name.parse()
}

/// Where options come from, besides the command line.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigOptions {
    /// A TOML file with options, such as `batch-size = 16`; those of the command line override it; default: none.
    #[arg(long = "config", value_name = "FILE", help_heading = "Config file")]
    pub config_file: Option<PathBuf>,
    /// Print the options that a run would use as such a file, and do nothing else.
    #[arg(long, help_heading = "Config file")]
    pub print_config: bool,
    /// Every option with its value, in TOML: filled in when the command line has been read.
    #[arg(skip)]
    pub resolved: Vec<(String, String)>,
}

/// `vitrine data inspect`.
#[derive(Args, Clone, Debug)]
#[command(after_help = examples::DATA_INSPECT)]
pub struct DataInspect {
    /// A folder (IMDB parquet, aclImdb), a file (.parquet, .csv, .tsv, .jsonl), or a data set's name on the hub.
    #[arg(value_name = "DATA")]
    pub path: PathBuf,
    /// A model (its folder, or `embedded`), a tokenizer.json or a vocab.txt, for lengths in tokens; default: lengths are in words.
    #[arg(long, value_name = "NAME|DIR|FILE")]
    pub model: Option<ModelName>,
    /// The longest input of a run, for the share of truncated texts; needs --model; default: 512.
    #[arg(long, value_name = "TOKENS", value_parser = super::count, requires = "model")]
    pub max_length: Option<usize>,
    #[command(flatten)]
    pub columns: Columns,
    /// Tokenize again, whatever is in the cache.
    #[arg(long)]
    pub no_cache: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}
