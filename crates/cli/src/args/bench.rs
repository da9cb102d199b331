//! The options of `vitrine bench`.

use super::{Compute, count, examples};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `vitrine bench`.
#[derive(Subcommand, Clone, Debug)]
pub enum Bench {
    /// Time training or inference steps of a whole model.
    Step(BenchStep),
    /// Time single operations beside the best copy and the best matrix product of the same run.
    Kernels(BenchKernels),
}

/// `vitrine bench kernels`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::BENCH_KERNELS)]
pub struct BenchKernels {
    /// MiB of the largest array of each memory-bound operation.
    #[arg(long, value_parser = count, value_delimiter = ',', default_value = "64,256", value_name = "MIB,..")]
    pub size: Vec<usize>,
    /// Repetitions of each; the median is reported.
    #[arg(long, value_parser = count, default_value_t = 7, value_name = "N")]
    pub repeats: usize,
    /// Only operations whose name contains this; default: all.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "OP")]
    pub only: String,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
}

/// What a benched step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StepMode {
    /// Forward, backward, clipping and AdamW, with dropout.
    Train,
    /// Forward only.
    Infer,
    /// The same as train for a masked language model, which predicts 15 % of the tokens; without dropout.
    Pretrain,
}

/// `vitrine bench step`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::BENCH_STEP)]
pub struct BenchStep {
    /// bert-base, mini, embedded, or the folder of a model; weights are random.
    #[arg(long, default_value = "bert-base", value_name = "NAME|DIR")]
    pub config: String,
    /// Sequences in a step.
    #[arg(long, value_parser = count, default_value_t = 16, value_name = "B")]
    pub batch: usize,
    /// Tokens in a sequence.
    #[arg(long, value_parser = count, default_value_t = 512, value_name = "S")]
    pub seq: usize,
    /// Lengths of real texts instead, one a line: a step for every --batch of them, once through the file;
    /// default: --seq.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seq", "steps"])]
    pub lengths: Option<PathBuf>,
    /// train, infer or pretrain.
    #[arg(long, value_enum, default_value = "train")]
    pub mode: StepMode,
    /// Steps to time; the median is reported.
    #[arg(long, value_parser = count, default_value_t = 3, value_name = "N")]
    pub steps: usize,
    /// Steps before them that are not timed.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub warmup: usize,
    /// Compute layers again in backward instead of keeping their activations.
    #[arg(long)]
    pub checkpoint_layers: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
}
