//! The options of `vitrine trace`.

use super::examples;
use crate::names::{CLASSIFIER, ModelName};
use clap::Args;
use std::path::PathBuf;
use vitrine_train::optimizer::groups::Freeze;

/// `vitrine trace`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::TRACE)]
pub struct Trace {
    /// A model: its folder, its name on the hub, `embedded` or `embedded-imdb` (a folder of that name is ./embedded).
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// The text to run.
    #[arg(value_parser = super::text)]
    pub text: String,
    /// Go back from the loss to the gradients, too: milliseconds and gradient norm of every operation, gradient norms of the
    /// parameters. Without dropout.
    #[arg(long)]
    pub backward: bool,
    /// What the loss takes for true: a class by name or number, or the word behind the mask of a masked language model; default:
    /// what the model predicts.
    #[arg(long, value_name = "CLASS|WORD")]
    pub label: Option<String>,
    /// Show statistics and the first numbers of every result.
    #[arg(long)]
    pub values: bool,
    /// Stop at a part of the model, such as layer.1.attention, and show its operations with formula, inputs and result; default:
    /// none.
    #[arg(long = "break", value_name = "SCOPE")]
    pub at: Option<String>,
    /// Say which parameters a training step on this text would not change, and why.
    #[arg(long)]
    pub audit: bool,
    /// Parts that are not trained: embeddings, layers (from 0) and ranges of them, or encoder for all of these; default: none.
    #[arg(long, value_name = "PARTS")]
    pub freeze: Option<Freeze>,
    /// Write a page with everything: each operation with formula, shapes, bytes, FLOPs, times, gradient, numbers and its place in
    /// the source; default: none.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}
