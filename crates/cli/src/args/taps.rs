//! The options of `vitrine tap` and `vitrine extract`.

use super::{Compute, count, examples, truncation};
use crate::names::{CLASSIFIER, ModelName};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `vitrine tap`.
#[derive(Args, Clone, Debug)]
#[command(after_help = examples::TAP)]
pub struct TapList {
    /// Print the points of a model that can be read or changed, with their shapes.
    #[arg(long, required = true)]
    pub list: bool,
    /// A model: its folder, its name on the hub, `embedded` or `embedded-imdb`; default: the points of every model.
    #[arg(long, value_name = "NAME|DIR")]
    pub model: Option<ModelName>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What becomes of the tokens of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pool {
    /// Every token has its row.
    None,
    /// The row of the first token.
    Cls,
    /// The mean over all tokens of the text.
    Mean,
    /// The largest value of each column over all tokens of the text.
    Max,
}

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// IEEE single precision.
    F32,
    /// IEEE half precision, for half the space.
    F16,
}

/// `vitrine extract`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::EXTRACT)]
pub struct Extract {
    /// A model: its folder, its name on the hub, `embedded` or `embedded-imdb` (a folder of that name is ./embedded).
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// Texts to run.
    #[arg(value_name = "TEXT", value_parser = super::text, required_unless_present = "data")]
    pub texts: Vec<String>,
    /// Texts to run: a table (.csv, .tsv, .jsonl, .json, .parquet), a file with a text a line, or a folder of labelled data (its test
    /// split); default: TEXT.
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "texts")]
    pub data: Option<PathBuf>,
    /// Which points to write: names as `vitrine tap --list` prints them, with `*` for any letters of a part, `**` for any parts and
    /// 0-3 for a range of layers; default: the last layer's output.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    pub taps: Vec<String>,
    /// File to write, its format by its name: .safetensors, or .npy for one array.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// What becomes of the tokens of a text.
    #[arg(long, value_enum, default_value = "none")]
    pub pool: Pool,
    /// How numbers are stored.
    #[arg(long, value_enum, default_value = "f32")]
    pub store: Store,
    /// The first N texts only; default: all.
    #[arg(long, value_parser = count, value_name = "N", help_heading = "Data")]
    pub rows: Option<usize>,
    /// Column (or JSON field) with the text; default: that of the model's training, else text, review, sentence or content.
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub text_column: Option<String>,
    /// Longest input, in tokens; default: the model's limit.
    #[arg(long, value_name = "TOKENS", help_heading = "Data")]
    pub max_length: Option<usize>,
    /// Which part of a longer text is read: head, tail or head-tail; default: what the model remembers, else head.
    #[arg(long, value_parser = truncation, value_name = "PART", help_heading = "Data")]
    pub truncate: Option<vitrine_bert::Truncation>,
    /// Replace a file that is there.
    #[arg(long)]
    pub overwrite: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
}
