//! The options of `vitrine fetch`.

use super::examples;
use clap::Args;

/// `vitrine fetch`.
#[derive(Args, Clone, Debug)]
#[command(after_help = examples::FETCH)]
pub struct Fetch {
    /// Repositories on the hub: name or owner/name, with @REVISION (a branch, a tag or a commit) behind it; they are kept in the cache
    /// that Python's huggingface_hub uses (HF_HOME).
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// They are data sets.
    #[arg(long)]
    pub dataset: bool,
    /// The subset (configuration) of the data set; default: its own or only one.
    #[arg(long, value_name = "SUBSET", requires = "dataset")]
    pub subset: Option<String>,
    /// Print one JSON object a repository.
    #[arg(long)]
    pub json: bool,
}
