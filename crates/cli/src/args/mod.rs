//! The command line, as clap reads it. Names and meanings only; defaults that depend on a recipe are resolved in
//! `commands/train`.

mod baseline;
mod bench;
mod checkpointing;
mod claims;
mod data;
mod distillation;
pub mod examples;
mod explain;
mod explore;
mod fetch;
mod logging;
mod optimisation;
mod pretrain;
mod sweep;
mod taps;
mod trace;
mod train;

pub use baseline::Baseline;
pub use bench::{Bench, BenchKernels, BenchStep, StepMode};
pub use checkpointing::{Checkpointing, Validation};
pub use claims::{Claims, ClaimsList, ClaimsRun};
pub use data::{ConfigOptions, Data, DataInspect, TokenOptions, truncation};
pub use distillation::DistillationOptions;
pub use explain::{
    Ablate, AblatedPart, Attention, Attributions, BaselineName, Drift, EdgeName, Explain, Explained,
    HeadName, Lens, MethodName, Patch, PatchedPart, Probe,
};
pub use explore::{Explore, Look};
pub use fetch::Fetch;
pub use logging::Logging;
pub use optimisation::{ClassWeights, OptimizerName, ScheduleName};
pub use pretrain::{FillMask, Pretrain};
pub use sweep::{Axis, Sweep};
pub use taps::{Extract, Pool, Store, TapList};
pub use trace::Trace;
pub use train::{Recipe, Train};

use crate::names::{CLASSIFIER, DataName, ModelName};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

/// Fine-tune, measure and take apart a BERT.
#[derive(Parser)]
#[command(name = "vitrine", version, about, arg_required_else_help = true, after_help = examples::ALL)]
pub struct Arguments {
    /// Print results, warnings and errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Messages")]
    pub quiet: bool,
    /// Print more of what is done, such as times and the use of caches.
    #[arg(short, long, global = true, help_heading = "Messages")]
    pub verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The whole command line. A sweep has the options of `train`, but for those that mean something else there.
pub fn command() -> clap::Command {
    let mut root = Arguments::command().mut_subcommand("sweep", |sweep| {
        sweep
            .mut_arg("output", |output| {
                output.required(true).help(
                    "Folder of the sweep, with a folder a run in it; one that was stopped goes on there",
                )
            })
            .mut_arg("json", |json| json.help("Print sweep.json on standard output at the end"))
            .mut_arg("seed", |seed| seed.help("The first seed; default: 1"))
            .mut_arg("overwrite", |overwrite| overwrite.hide(true))
            .mut_arg("resume", |resume| resume.hide(true))
            .mut_arg("print_config", |print| print.hide(true))
    });
    // What is extracted is compared with other programs' numbers, so it is exact unless something else is asked for.
    for exact in ["extract", "explore", "look"] {
        root = root
            .mut_subcommand(exact, |command| command.mut_arg("dtype", |dtype| dtype.default_value("f32")));
    }
    root = root.mut_subcommand("explain", |explain| {
        explain.mut_subcommands(|method| method.mut_arg("dtype", |dtype| dtype.default_value("f32")))
    });
    root.build();
    root
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Fine-tune a classifier; without --model and --data, the embedded BERT on the built-in reviews.
    Train(Box<Train>),
    /// Train with several seeds and settings, one run after the other, and compare them.
    Sweep(Box<Sweep>),
    /// Look at data before training on them.
    #[command(subcommand, after_help = examples::DATA)]
    Data(Data),
    /// Pretrain a masked language model on texts without labels.
    Pretrain(Box<Pretrain>),
    /// Guess the words behind `[MASK]` in a text.
    FillMask(FillMask),
    /// Download models and data sets of the Hugging Face hub ahead.
    Fetch(Fetch),
    /// Write a randomly initialised checkpoint: full-size training needs no download.
    Init(Init),
    /// Measure a classifier on labelled data.
    Eval(Eval),
    /// Measure a bag-of-words classifier on the rows of a training run: what a transformer has to beat.
    Baseline(Baseline),
    /// Write a page about one run, or about several side by side.
    Report(Report),
    /// Classify texts.
    Predict(Predict),
    /// Show a model's parameters, FLOPs and activation memory.
    Inspect(Inspect),
    /// Show every operation of one pass: shapes, bytes, FLOPs, milliseconds, numbers, gradients.
    Trace(Box<Trace>),
    /// Explore in the browser what a model does with a text: attention, attributions, blocked heads, the logit lens.
    Explore(Box<Explore>),
    /// Write one page about a text: tokens, prediction, attention maps, attributions.
    Look(Box<Look>),
    /// List the points inside of a model that can be read or changed.
    Tap(TapList),
    /// Write what a model computes at some of its points, for texts or a data set.
    Extract(Box<Extract>),
    /// Explain a prediction: attributions, attention, the logit lens, ablations, patching.
    #[command(subcommand, after_help = examples::EXPLAIN)]
    Explain(Explain),
    /// Test what is said of fine-tuning BERT: hypotheses with methods, intervals and verdicts.
    #[command(subcommand, after_help = examples::CLAIMS)]
    Claims(Claims),
    /// Show what this machine has, what Vitrine chose, and whether it computes correctly.
    Doctor(Doctor),
    /// Compute the step again at which a training run ended with NaN, and say which operation made it.
    Replay(Replay),
    /// Measure speed.
    #[command(subcommand, after_help = examples::BENCH)]
    Bench(Bench),
    /// Print the completions of a shell.
    Completions(Completions),
    /// Print a page of the manual, or write all of them.
    Man(Man),
}

/// `vitrine completions`.
#[derive(Args, Clone, Debug)]
#[command(after_help = examples::COMPLETIONS)]
pub struct Completions {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// `vitrine man`.
#[derive(Args, Clone, Debug)]
#[command(after_help = examples::MAN)]
pub struct Man {
    /// The command; default: the page of all commands.
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    pub command: Vec<String>,
    /// Write every page into this folder; default: one page on standard output.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// What the weights of a model are saved in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SaveDType {
    /// IEEE single precision: the weights as they are.
    F32,
    /// IEEE half precision: half the size; 11 bits of each weight.
    F16,
    /// bfloat16: half the size; 8 bits of each weight.
    Bf16,
}

impl SaveDType {
    /// As tensors have it.
    pub fn dtype(self) -> vitrine_tensor::DType {
        match self {
            SaveDType::F32 => vitrine_tensor::DType::F32,
            SaveDType::F16 => vitrine_tensor::DType::F16,
            SaveDType::Bf16 => vitrine_tensor::DType::BF16,
        }
    }
}

/// The arithmetic of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DTypeChoice {
    /// The fastest that is at least as accurate as needed here; says what and why.
    Auto,
    /// IEEE single precision.
    F32,
    /// bfloat16 compute with f32 master weights.
    Bf16,
}

/// Where and in what precision to compute.
#[derive(Args, Clone, Debug)]
pub struct Compute {
    /// Precision of the arithmetic.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Compute")]
    pub dtype: DTypeChoice,
    /// Device: auto (a CUDA device where there is one), cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto", help_heading = "Compute", value_name = "DEVICE")]
    pub device: String,
    /// Threads; default: every core.
    #[arg(long, help_heading = "Compute", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// Which columns of a table to read.
#[derive(Args, Clone, Debug, Default)]
pub struct Columns {
    /// Column (or JSON field) with the text; default: text, review, sentence or content.
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub text_column: Option<String>,
    /// Column (or JSON field) with the label; default: label, labels, sentiment, class or target.
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub label_column: Option<String>,
    /// Replace labels of the data by others, such as 0=negative,4=positive or ham=negative; default: none.
    #[arg(long, value_name = "OLD=NEW,..", value_delimiter = ',', value_parser = renamed, help_heading = "Data")]
    pub label_map: Vec<(String, String)>,
}

fn renamed(text: &str) -> Result<(String, String), String> {
    match text.split_once('=').map(|(old, new)| (old.trim(), new.trim())) {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.into(), new.into())),
        _ => Err("must be OLD=NEW, the label in the data and the class that it means".into()),
    }
}

impl Columns {
    /// How to read data, with the columns that a model remembers.
    pub fn options(
        &self,
        remembered: Option<&vitrine_bert::DataColumns>,
    ) -> vitrine_train::data::LoadOptions {
        vitrine_train::data::LoadOptions {
            text_column: self.text_column.clone(),
            label_column: self.label_column.clone(),
            remembered_text_column: remembered.and_then(|columns| columns.text.clone()),
            remembered_label_column: remembered.and_then(|columns| columns.label.clone()),
            label_map: self.label_map.iter().cloned().collect(),
        }
    }
}

/// A number of rows, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples {
    /// Every row.
    All,
    /// This many, the labels balanced.
    Count(usize),
}

impl std::str::FromStr for Samples {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Samples::All),
            _ => match text.parse() {
                Ok(0) | Err(_) => Err("must be 'all' or a whole number above 0".into()),
                Ok(count) => Ok(Samples::Count(count)),
            },
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("must be a number above 0".into()),
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("must be a number, 0 or above".into()),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("must be between 0 and 1".into()),
    }
}

/// A text of a person, and no name of a file: what was meant is what the file holds.
fn text(text: &str) -> Result<String, String> {
    let path = Path::new(text);
    let ends_so = path
        .extension()
        .and_then(|end| end.to_str())
        .map(str::to_lowercase)
        .is_some_and(|end| end == "txt" || vitrine_train::data::FORMATS.contains(&end.as_str()));
    let what = match (path.is_file(), ends_so && !text.contains(char::is_whitespace)) {
        (true, _) => "a file has this name",
        (false, true) => "this is a file's name, and it is not there",
        (false, false) => return Ok(text.to_owned()),
    };
    Err(format!(
        "{what}; a text is wanted: predict reads a file with --file, extract with --data, most others its lines with '-'"
    ))
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        // Beyond that it is a slip, and products of two such numbers should not overflow.
        Ok(value) if (1..=1_000_000_000).contains(&value) => Ok(value),
        _ => Err("must be a whole number from 1 to 1,000,000,000".into()),
    }
}

/// `vitrine init`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::INIT)]
pub struct Init {
    /// bert-base, bert-mini, embedded (the sizes of that model), or a config.json.
    #[arg(long, default_value = "bert-base", value_name = "NAME|FILE")]
    pub config: String,
    /// That of a model (its folder, or `embedded`), or a tokenizer.json or vocab.txt; default: the words of the built-in reviews.
    #[arg(long, value_name = "NAME|DIR|FILE")]
    pub tokenizer: Option<ModelName>,
    /// Folder for the model.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Write into a folder that is not empty, replacing files of the same names.
    #[arg(long)]
    pub overwrite: bool,
    /// Seed of the weights.
    #[arg(long, value_name = "SEED", default_value_t = 42)]
    pub seed: u64,
}

/// `vitrine eval`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::EVAL)]
pub struct Eval {
    /// A classifier: its folder, its name on the hub, or `embedded-imdb` (a folder of that name is ./embedded-imdb).
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// Labelled data: a folder (its test split), a file, a data set's name on the hub, or `embedded` (a folder of that name is ./embedded).
    #[arg(long, value_name = "NAME|DIR|FILE")]
    pub data: DataName,
    /// Rows: a number (balanced, drawn as pandas would) or 'all'.
    #[arg(long, value_name = "N|all", default_value = "all", help_heading = "Data")]
    pub samples: Samples,
    /// Seed of the draw.
    #[arg(long, value_name = "S", default_value_t = 42, help_heading = "Data")]
    pub sample_seed: u32,
    #[command(flatten)]
    pub columns: Columns,
    /// Longest input, in tokens; default: the model's limit.
    #[arg(long, value_name = "TOKENS", help_heading = "Data")]
    pub max_length: Option<usize>,
    #[command(flatten)]
    pub tokens: TokenOptions,
    /// Rows in a batch; default: as many as have 4,096 tokens together.
    #[arg(long, value_parser = count, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Write what the model says of every row, a JSON object a line; default: nothing is written.
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
}

/// `vitrine report`.
#[derive(Args, Clone, Debug)]
#[command(after_help = examples::REPORT)]
pub struct Report {
    /// Folders of runs: the --output of `vitrine train`, finished or not.
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// The file to write; default: report.html in the folder of the run, or here for several runs.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `vitrine predict`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::PREDICT)]
pub struct Predict {
    /// A classifier: its folder, its name on the hub, or `embedded-imdb` (a folder of that name is ./embedded-imdb).
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// Texts to classify; '-', or none at all, reads them from standard input, a text a line.
    #[arg(value_name = "TEXT", value_parser = text)]
    pub texts: Vec<String>,
    /// A table (.csv, .tsv, .jsonl, .json, .parquet) with a column of texts, or a file with a text a line; '-' is standard
    /// input; default: TEXT.
    #[arg(long, value_name = "FILE|-", conflicts_with = "texts")]
    pub file: Option<PathBuf>,
    /// Column (or JSON field) with the text; default: that of the model's training, else text, review, sentence or content.
    #[arg(long, value_name = "NAME")]
    pub text_column: Option<String>,
    /// Which part of a longer text is read: head, tail or head-tail; default: as in training.
    #[arg(long, value_parser = truncation, value_name = "PART")]
    pub truncate: Option<vitrine_bert::Truncation>,
    /// How many labels to show for each text, the likeliest first.
    #[arg(long, value_parser = count, default_value_t = 1, value_name = "K")]
    pub top_k: usize,
    /// Print one JSON object a text.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
}

/// `vitrine inspect`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::INSPECT)]
pub struct Inspect {
    /// A model: its folder, its name on the hub, `embedded` or `embedded-imdb` (a folder of that name is ./embedded).
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// Count FLOPs and activations for one sequence of this many tokens; default: the model's limit.
    #[arg(long, value_parser = count, value_name = "T")]
    pub tokens: Option<usize>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `vitrine doctor`.
#[derive(Args, Clone, Debug)]
#[command(after_help = examples::DOCTOR)]
pub struct Doctor {
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests;
/// `vitrine replay`.
#[derive(Args, Clone, Debug)]
#[command(after_help = examples::REPLAY)]
pub struct Replay {
    /// The output folder of the run, its replay folder, or the step.json in it.
    #[arg(value_name = "FILE|DIR")]
    pub step: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
}
