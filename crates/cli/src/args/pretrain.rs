//! The options of `vitrine pretrain` and `vitrine fill-mask`.

use super::{Compute, SaveDType, count, examples, not_negative, positive, ratio};
use crate::names::{ModelName, PRETRAINED};
use clap::Args;
use std::path::PathBuf;
use vitrine_train::schedule::ScheduleKind;

/// A share of words: above 0, below 1.
fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value < 1.0 => Ok(value),
        _ => Err("must be above 0 and below 1".into()),
    }
}

/// A share that may be nothing: 0 or above, below 1.
fn share_or_none(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("must be 0 or above, and below 1".into()),
    }
}

/// `vitrine pretrain`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::PRETRAIN)]
pub struct Pretrain {
    /// Texts, labelled or not: a file (.parquet, .csv, .tsv, .jsonl, or a text a line) or a folder, whose `train` and `unsupervised`
    /// splits are read; may be given several times. Test data are refused.
    #[arg(long, value_name = "DIR|FILE", required = true, num_args = 1)]
    pub data: Vec<PathBuf>,
    /// Folder for the model and the log.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Write into a folder that is not empty, replacing files of the same names.
    #[arg(long, conflicts_with = "resume")]
    pub overwrite: bool,
    /// Go on from the newest whole checkpoint in --output; the run ends as if it had never stopped.
    #[arg(long)]
    pub resume: bool,
    /// Sizes: mini (4 layers, width 256), bert-base, or a config.json; default: mini, or those of --init-from.
    #[arg(long, value_name = "NAME|FILE")]
    pub config: Option<String>,
    /// Start from this model (its folder, or `embedded`): its layers and the rows of its vocabulary, as far as they fit; default:
    /// none.
    #[arg(long, value_name = "NAME|DIR")]
    pub init_from: Option<ModelName>,
    /// Take these layers of --init-from, counted from 0; the new model has as many, unless --config says otherwise; default: all.
    #[arg(long, value_name = "I,J,..", value_delimiter = ',', requires = "init_from")]
    pub init_layers: Option<Vec<usize>>,
    /// Learn the hidden states of this model (its folder or its name on the hub), too: how far those of each token after each layer
    /// point from this model's after the layer in its place. It needs the same width and all tokens of the new model; default: none.
    #[arg(long, value_name = "NAME|DIR")]
    pub distill_from: Option<ModelName>,
    /// Weight of the hidden states beside the loss of hidden words; default: 10.
    #[arg(long, value_parser = positive, value_name = "W", requires = "distill_from")]
    pub distill_hidden: Option<f64>,
    /// Precision of the saved weights; the model is measured with weights rounded so. Checkpoints keep f32.
    #[arg(long, value_enum, default_value = "f32", value_name = "DTYPE")]
    pub save_dtype: SaveDType,
    /// Print run.json on standard output at the end.
    #[arg(long)]
    pub json: bool,

    /// Make a WordPiece vocabulary of so many tokens from the texts; default: 8000, or that of --init-from.
    #[arg(long, value_parser = count, value_name = "N", conflicts_with = "tokenizer", help_heading = "Data")]
    pub vocab_size: Option<usize>,
    /// Keep so many tokens of the vocabulary of --init-from (or --tokenizer): those that the texts need most; default: all.
    #[arg(long, value_parser = count, value_name = "N", conflicts_with = "vocab_size", help_heading = "Data")]
    pub prune_vocab: Option<usize>,
    /// Take this tokenizer: that of a model (its folder, or `embedded`), a tokenizer.json or a vocab.txt; default: one made from the
    /// texts.
    #[arg(long, value_name = "NAME|DIR|FILE", help_heading = "Data")]
    pub tokenizer: Option<ModelName>,
    /// Column (or JSON field) with the text; default: text, review, sentence or content.
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub text_column: Option<String>,
    /// Longest piece of a text, in tokens with `[CLS]` and `[SEP]`; longer texts are cut into several.
    #[arg(long, value_parser = count, default_value_t = 128, value_name = "TOKENS", help_heading = "Data")]
    pub max_length: usize,
    /// Share of the texts that are held out, to measure the model on.
    #[arg(long, value_parser = share_or_none, default_value_t = 0.01, value_name = "SHARE", help_heading = "Data")]
    pub held_out: f64,

    /// Passes over the texts; default: 1.
    #[arg(long, value_parser = count, value_name = "N", conflicts_with_all = ["steps", "minutes"], help_heading = "Training")]
    pub epochs: Option<usize>,
    /// Optimizer steps, instead of epochs; default: as --epochs says.
    #[arg(long, value_parser = count, value_name = "N", conflicts_with = "minutes", help_heading = "Training")]
    pub steps: Option<usize>,
    /// As many steps as take about so long, by the speed of a few steps that are measured first; default: as
    /// --epochs says.
    #[arg(long, value_parser = positive, value_name = "M", help_heading = "Training")]
    pub minutes: Option<f64>,
    /// Most tokens in a step.
    #[arg(long, value_parser = count, default_value_t = 8192, value_name = "TOKENS", help_heading = "Training")]
    pub batch_tokens: usize,
    /// Share of the words to predict.
    #[arg(long, value_parser = share, default_value_t = 0.15, value_name = "SHARE", help_heading = "Training")]
    pub mask_share: f64,
    /// Peak learning rate.
    #[arg(long, value_parser = positive, default_value_t = 1e-3, value_name = "LR", help_heading = "Training")]
    pub lr: f64,
    /// How the learning rate moves after its warmup: linear (to 0), cosine (half a cosine, to 0) or constant.
    #[arg(long, default_value_t, value_name = "NAME", help_heading = "Training")]
    pub schedule: ScheduleKind,
    /// Steps over which the learning rate rises from 0; default: as --warmup-ratio says.
    #[arg(long, value_name = "STEPS", conflicts_with = "warmup_ratio", help_heading = "Training")]
    pub warmup_steps: Option<usize>,
    /// The same as a share of all steps.
    #[arg(long, value_parser = ratio, default_value_t = 0.06, value_name = "SHARE", help_heading = "Training")]
    pub warmup_ratio: f64,
    /// Decoupled weight decay (not on biases and LayerNorm).
    #[arg(long, value_parser = not_negative, default_value_t = 0.01, value_name = "W", help_heading = "Training")]
    pub weight_decay: f64,
    /// Largest global norm of the gradient; 0 turns clipping off.
    #[arg(long, value_parser = not_negative, default_value_t = 1.0, value_name = "NORM", help_heading = "Training")]
    pub max_grad_norm: f64,
    /// Dropout while pretraining; fine-tuning has that of the config all the same.
    #[arg(long, value_parser = share_or_none, default_value_t = 0.0, value_name = "P", help_heading = "Training")]
    pub dropout: f64,
    /// Seed of new weights, masks, the order of pieces and dropout.
    #[arg(long, default_value_t = 42, value_name = "SEED", help_heading = "Training")]
    pub seed: u64,
    /// Compute layers again in backward instead of keeping their activations: less memory, a third more time.
    #[arg(long, help_heading = "Training")]
    pub checkpoint_layers: bool,
    /// Steps between two evaluations on the held-out texts; there is one at the end, too.
    #[arg(long, value_parser = count, default_value_t = 500, value_name = "STEPS", help_heading = "Training")]
    pub eval_every: usize,
    /// Steps between two checkpoints.
    #[arg(long, value_parser = count, default_value_t = 250, value_name = "STEPS", help_heading = "Training")]
    pub save_every: usize,
    #[command(flatten)]
    pub compute: Compute,
}

/// `vitrine fill-mask`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::FILL_MASK)]
pub struct FillMask {
    /// A masked language model: its folder, its name on the hub, or `embedded` (a folder of that name is ./embedded).
    #[arg(long, value_name = "NAME|DIR", default_value = PRETRAINED)]
    pub model: ModelName,
    /// Texts with `[MASK]` (or the model's own mask token) where words are to be guessed; '-', or none at all, reads them from standard
    /// input, a text a line.
    #[arg(value_name = "TEXT", value_parser = super::text)]
    pub texts: Vec<String>,
    /// How many words to show for each mask, the likeliest first.
    #[arg(long, value_parser = count, default_value_t = 5, value_name = "K")]
    pub top_k: usize,
    /// Print one JSON object a text.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
}
