//! The options of `vitrine train`.

use super::optimisation::{ScheduleOptions, TechniqueOptions};
use super::{
    Checkpointing, Columns, Compute, ConfigOptions, DistillationOptions, Logging, Samples, SaveDType,
    TokenOptions, Validation, count, examples, not_negative, positive, ratio,
};
use crate::names::{DataName, ModelName, PRETRAINED};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// A set of defaults with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Recipe {
    /// The notebook's set-up, exactly: 2,500 + 500 reviews, 3 epochs, batch 16, lr 2e-5, 500 warmup steps.
    Notebook,
}

/// `vitrine train`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::TRAIN)]
pub struct Train {
    /// Where training starts: `embedded` (a small pretrained BERT), `scratch` (the same with random weights), or a folder with
    /// config.json, model.safetensors and the tokenizer (one that is called embedded: ./embedded), or a model's name on the
    /// Hugging Face hub, `owner/name[@revision]`.
    #[arg(long, value_name = "NAME|DIR", default_value = PRETRAINED)]
    pub model: ModelName,
    /// Training data: `embedded` (generated short reviews), a folder (IMDB parquet, aclImdb) or a file (.parquet, .csv, .tsv,
    /// .jsonl), or a data set's name on the hub; a folder that is called embedded: ./embedded.
    #[arg(long, value_name = "NAME|DIR|FILE", default_value = PRETRAINED)]
    pub data: DataName,
    /// Data to evaluate on at the end, when --data has no test split; default: none; see also --validation-split.
    #[arg(long, value_name = "DIR|FILE")]
    pub test_data: Option<PathBuf>,
    /// Folder for the model and the reports; default: a fresh one under runs/.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Write into a folder that is not empty, replacing files of the same names.
    #[arg(long)]
    pub overwrite: bool,
    /// Precision of the saved weights; the model is measured with weights rounded so. Checkpoints keep f32.
    #[arg(long, value_enum, default_value = "f32", value_name = "DTYPE")]
    pub save_dtype: SaveDType,
    /// Start a new classifier with the data's classes, whatever classifier the checkpoint has.
    #[arg(long)]
    pub new_head: bool,
    /// Start from a named set of defaults, which explicit options override; default: none.
    #[arg(long, value_enum)]
    pub recipe: Option<Recipe>,
    /// Print run.json on standard output at the end.
    #[arg(long)]
    pub json: bool,

    /// Training rows: a number (balanced over the labels, drawn as pandas would) or 'all'; default: all (notebook: 2500).
    #[arg(long, value_name = "N|all", help_heading = "Data")]
    pub train_samples: Option<Samples>,
    /// Test rows: a number or 'all'; default: all (notebook: 500).
    #[arg(long, value_name = "N|all", help_heading = "Data")]
    pub test_samples: Option<Samples>,
    /// Seed of the draw; default: 42.
    #[arg(long, value_name = "S", help_heading = "Data")]
    pub sample_seed: Option<u32>,
    #[command(flatten)]
    pub columns: Columns,
    /// Longest input, in tokens with `[CLS]` and `[SEP]`; longer texts are truncated; default: the model's limit (notebook: 512).
    #[arg(long, value_name = "TOKENS", help_heading = "Data")]
    pub max_length: Option<usize>,
    #[command(flatten)]
    pub tokens: TokenOptions,

    /// Passes over the training rows; default: 3 (embedded model and data: 2; scratch: 8).
    #[arg(long, value_parser = count, value_name = "N", help_heading = "Training")]
    pub epochs: Option<usize>,
    /// Rows in an optimizer step; default: 16 (embedded model, scratch: 32).
    #[arg(long, value_parser = count, value_name = "N", help_heading = "Training")]
    pub batch_size: Option<usize>,
    /// Rows of a step that are computed at once (gradient accumulation): less memory, the same result; default: all.
    #[arg(long, value_parser = count, value_name = "N", help_heading = "Training")]
    pub micro_batch_size: Option<usize>,
    /// Rows in an evaluation batch; default: as many as have 4,096 tokens together.
    #[arg(long, value_parser = count, value_name = "N", help_heading = "Training")]
    pub eval_batch_size: Option<usize>,
    /// Peak learning rate; default: 5e-5 (notebook: 2e-5; embedded model: 2e-4, on embedded data 5e-4; scratch: 3e-4).
    #[arg(long, value_parser = positive, value_name = "LR", help_heading = "Training")]
    pub lr: Option<f64>,
    #[command(flatten)]
    pub schedule: ScheduleOptions,
    /// Steps over which the learning rate rises from 0; default: as --warmup-ratio says (notebook: 500).
    #[arg(long, value_name = "STEPS", conflicts_with = "warmup_ratio", help_heading = "Training")]
    pub warmup_steps: Option<usize>,
    /// The same as a share of all steps; default: 0.1.
    #[arg(long, value_parser = ratio, value_name = "SHARE", help_heading = "Training")]
    pub warmup_ratio: Option<f64>,
    /// Decoupled weight decay (not on biases and LayerNorm); default: 0.01.
    #[arg(long, value_parser = not_negative, value_name = "W", help_heading = "Training")]
    pub weight_decay: Option<f64>,
    /// Largest global norm of the gradient; 0 turns clipping off; default: 1.
    #[arg(long, value_parser = not_negative, value_name = "NORM", help_heading = "Training")]
    pub max_grad_norm: Option<f64>,
    /// Seed of the new head, the order of rows and dropout; default: 42.
    #[arg(long, value_name = "SEED", help_heading = "Training")]
    pub seed: Option<u64>,
    /// Keep the order of the data in every epoch.
    #[arg(long, help_heading = "Training")]
    pub no_shuffle: bool,
    /// Shuffle into batches of texts of like lengths.
    #[arg(long, conflicts_with = "no_shuffle", help_heading = "Training")]
    pub group_by_length: bool,
    /// Compute layers again in backward instead of keeping their activations: less memory, a third more time.
    #[arg(long, help_heading = "Training")]
    pub checkpoint_layers: bool,
    #[command(flatten)]
    pub techniques: TechniqueOptions,
    #[command(flatten)]
    pub distillation: DistillationOptions,
    #[command(flatten)]
    pub validation: Validation,
    #[command(flatten)]
    pub checkpointing: Checkpointing,
    #[command(flatten)]
    pub logging: Logging,
    #[command(flatten)]
    pub compute: Compute,
    #[command(flatten)]
    pub config: ConfigOptions,
}
