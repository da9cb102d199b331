//! The options of `vitrine explore` and `vitrine look`.

use super::{Compute, examples};
use crate::names::{CLASSIFIER, ModelName};
use crate::output::{Failure, Outcome};
use clap::Args;
use std::ffi::OsString;
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
    #[arg(long, value_name = "TEXT", value_parser = super::text, allow_hyphen_values = true)]
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
#[command(override_usage = "vitrine look [OPTIONS] [MODEL] <TEXT>", after_help = examples::LOOK)]
pub struct Look {
    /// The text to look at; before it, if wanted, a model, as for --model.
    // Two positional arguments, the first of which may be absent, could not have an option between them.
    #[arg(value_name = "TEXT", required = true)]
    pub words: Vec<OsString>,
    /// A model: its folder, its name on the hub, `embedded` or `embedded-imdb`; default: embedded-imdb.
    #[arg(long, value_name = "NAME|DIR")]
    pub model: Option<ModelName>,
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

impl Look {
    /// The model and the text.
    ///
    /// # Errors
    /// `Usage` for more than a model and a text, for two models, and for a text that is not UTF-8.
    pub fn model_and_text(&self) -> Outcome<(ModelName, String)> {
        let usage = |why: &str| Failure::Usage(why.into());
        let (named, text) = match (self.words.as_slice(), &self.model) {
            ([text], model) => (model.clone(), text),
            ([model, text], None) => (Some(ModelName::from(model.clone())), text),
            ([_, _], Some(_)) => {
                return Err(usage(
                    "two models: name one before the text or with --model, and a second one with --compare",
                ));
            }
            _ => return Err(usage("look takes one text; put it in quotes")),
        };
        let text = text.to_str().ok_or_else(|| usage("the text is not UTF-8"))?;
        let text = super::text(text).map_err(|why| Failure::Usage(format!("'{text}': {why}")))?;
        Ok((named.unwrap_or_else(|| ModelName::from(OsString::from(CLASSIFIER))), text))
    }
}
