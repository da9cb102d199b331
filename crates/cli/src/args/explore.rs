//! The options of `vitrine explore` and `vitrine look`.

use super::{Compute, examples};
use crate::names::{CLASSIFIER, ModelName};
use clap::Args;
use std::net::IpAddr;
use std::path::PathBuf;

/// `vitrine explore`.
#[derive(Args, Clone, Debug)]
#[command(after_help = examples::EXPLORE)]
pub struct Explore {
    /// A model: its folder, its name on the hub, `embedded` or `embedded-imdb` (a folder of that name is ./embedded).
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// A second model, shown beside the first, such as the one before fine-tuning; default: none.
    #[arg(long, value_name = "NAME|DIR")]
    pub compare: Option<ModelName>,
    /// A masked language model whose head the logit lens looks through where a model has none; default: for embedded-imdb, embedded.
    #[arg(long, value_name = "NAME|DIR")]
    pub lens: Option<ModelName>,
    /// The text that the page opens with; default: an example.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// Write the page with everything of TEXT into this one file, instead of serving it; default: serve.
    #[arg(long, value_name = "FILE", requires = "text", conflicts_with_all = ["port", "host", "open"])]
    pub html: Option<PathBuf>,
    /// Port to listen at; 0 takes one that is free.
    #[arg(long, value_name = "PORT", default_value_t = 7654, help_heading = "Server")]
    pub port: u16,
    /// Address to listen at. Any but a loopback address lets others connect.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", help_heading = "Server")]
    pub host: IpAddr,
    /// Open the page in the browser.
    #[arg(long, help_heading = "Server")]
    pub open: bool,
    #[command(flatten)]
    pub compute: Compute,
}

/// `vitrine look`.
#[derive(Args, Clone, Debug)]
#[command(allow_missing_positional = true, after_help = examples::LOOK)]
pub struct Look {
    /// A model: its folder, its name on the hub, `embedded` or `embedded-imdb`; default: embedded-imdb.
    #[arg(value_name = "MODEL")]
    pub named: Option<ModelName>,
    /// The text to look at.
    #[arg(value_name = "TEXT", required = true)]
    pub text: String,
    /// The same as MODEL, as other commands take it.
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER, conflicts_with = "named")]
    pub model: ModelName,
    /// A second model, shown beside the first; default: none.
    #[arg(long, value_name = "NAME|DIR")]
    pub compare: Option<ModelName>,
    /// A masked language model whose head the logit lens looks through where a model has none; default: for embedded-imdb, embedded.
    #[arg(long, value_name = "NAME|DIR")]
    pub lens: Option<ModelName>,
    /// The file to write. One that `look` or `explore` wrote is replaced.
    #[arg(long, value_name = "FILE", default_value = "look.html")]
    pub output: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
}
