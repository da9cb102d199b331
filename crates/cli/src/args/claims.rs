//! The options of `vitrine claims`.

use super::examples;
use crate::names::{CLASSIFIER, DataName, ModelName, PRETRAINED};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `vitrine claims`.
#[derive(Subcommand)]
pub enum Claims {
    /// List the claims: what is said, how it is tested, and when it counts as supported.
    List(ClaimsList),
    /// Test claims, and say which are supported.
    Run(ClaimsRun),
}

/// `vitrine claims list`.
#[derive(Args, Clone, Debug)]
#[command(after_help = examples::CLAIMS_LIST)]
pub struct ClaimsList {
    /// Print one JSON object a claim.
    #[arg(long)]
    pub json: bool,
}

/// `vitrine claims run`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::CLAIMS_RUN)]
pub struct ClaimsRun {
    /// Which claims, such as C3; `all` for every one.
    #[arg(value_name = "ID|all", required = true)]
    pub ids: Vec<String>,
    /// Use tiny sizes: seconds instead of minutes, and verdicts that are mostly inconclusive.
    #[arg(long)]
    pub quick: bool,
    /// Labelled reviews of two classes with a test split, such as IMDB; `embedded` for the built-in ones; default: data/imdb if it
    /// is there, else embedded.
    #[arg(long, value_name = "NAME|DIR|FILE")]
    pub data: Option<DataName>,
    /// A classifier of reviews, negative and positive: its folder, its name on the hub, or `embedded-imdb`.
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// A pretrained masked language model, which claims about training fine-tune: its folder, its name on the hub, or `embedded`.
    #[arg(long, value_name = "NAME|DIR", default_value = PRETRAINED)]
    pub pretrained: ModelName,
    /// Write a page with plots; default: none.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write each plot as an image, such as C3-0.svg, into this folder; default: none.
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,
    /// Print one JSON object a claim.
    #[arg(long)]
    pub json: bool,
    /// Threads; default: every core.
    #[arg(long, help_heading = "Compute", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}
