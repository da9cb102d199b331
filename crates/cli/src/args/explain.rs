//! The options of `vitrine explain`.

use super::{Columns, Compute, Samples, count, examples, positive, truncation};
use crate::names::{CLASSIFIER, DataName, ModelName, PRETRAINED};
use clap::{Args, Subcommand, ValueEnum};
use std::str::FromStr;

/// `vitrine explain`.
#[derive(Subcommand, Clone, Debug)]
pub enum Explain {
    /// Show what each word adds to a class's logit: integrated gradients, gradient x input or occlusion.
    Attributions(Attributions),
    /// Show where heads look: numbers of each layer and head, attention rollout, or one head's map.
    Attention(Attention),
    /// Show what the masked-language-model head would guess from each layer's states.
    Lens(Lens),
    /// Rank heads, or edges between tokens, by how much the prediction changes without them.
    Ablate(Ablate),
    /// Put values of one text into the run of another, point by point and token by token.
    Patch(Patch),
    /// See what each layer's states hold: linear classifiers on them, for three ways of pooling.
    Probe(Probe),
    /// Compare two checkpoints: how far weights have moved, and how alike each layer's states are.
    Drift(Drift),
}

/// What is run: a model, texts, and what is blocked in it.
#[derive(Args, Clone, Debug)]
pub struct Explained {
    /// Heads whose output is zero, as LAYER.HEAD, counted from 0; default: none.
    #[arg(long, value_name = "LAYER.HEAD,..", value_delimiter = ',', help_heading = "Blocked")]
    pub ablate: Vec<HeadName>,
    /// Edges of attention that are not taken, as QUERY:KEY or QUERY:KEY@LAYER.HEAD; each token by its number or, if it occurs once, its
    /// piece, such as bad:not@3; default: none.
    #[arg(long, value_name = "QUERY:KEY[@LAYER[.HEAD]],..", value_delimiter = ',', help_heading = "Blocked")]
    pub block: Vec<EdgeName>,
    /// Longest input, in tokens; default: the model's limit.
    #[arg(long, value_name = "TOKENS", help_heading = "Data")]
    pub max_length: Option<usize>,
    /// Which part of a longer text is read: head, tail or head-tail; default: what the model remembers, else head.
    #[arg(long, value_parser = truncation, value_name = "PART", help_heading = "Data")]
    pub truncate: Option<vitrine_bert::Truncation>,
    /// Print one JSON object a text.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
}

/// A head, `LAYER.HEAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadName {
    pub layer: usize,
    pub head: usize,
}

impl FromStr for HeadName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed =
            text.split_once('.').and_then(|(layer, head)| Some((layer.parse().ok()?, head.parse().ok()?)));
        let (layer, head) = parsed.ok_or("must be LAYER.HEAD, such as 3.7")?;
        Ok(HeadName { layer, head })
    }
}

/// An edge between tokens that are named by number or piece, `QUERY:KEY[@LAYER[.HEAD]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeName {
    pub query: String,
    pub key: String,
    pub layer: Option<usize>,
    pub head: Option<usize>,
}

impl FromStr for EdgeName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "must be QUERY:KEY, QUERY:KEY@LAYER or QUERY:KEY@LAYER.HEAD, such as 4:2 or bad:not@3.7";
        let (tokens, place) = match text.rsplit_once('@') {
            Some((tokens, place)) => (tokens, Some(place)),
            None => (text, None),
        };
        let (query, key) = tokens.split_once(':').ok_or(FORM)?;
        if query.is_empty() || key.is_empty() {
            return Err(FORM.into());
        }
        let number = |text: &str| text.parse().map_err(|_| FORM.to_owned());
        let (layer, head) =
            match place.map(|place| place.split_once('.').map_or((place, None), |(l, h)| (l, Some(h)))) {
                None => (None, None),
                Some((layer, head)) => (Some(number(layer)?), head.map(number).transpose()?),
            };
        Ok(EdgeName { query: query.into(), key: key.into(), layer, head })
    }
}

/// A method of attribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    /// Integrated gradients: the gradient summed over the way from the baseline to the text. The values sum to the logit's change.
    Integrated,
    /// The gradient with respect to a word's embedding, times the embedding: one pass.
    Gradient,
    /// The logit minus that with the word replaced by the baseline: a run a token.
    Occlusion,
}

/// What stands in a token's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BaselineName {
    /// The embedding of `[PAD]`.
    Pad,
    /// The embedding of `[MASK]`.
    Mask,
    /// An embedding of zeros.
    Zero,
}

/// `vitrine explain attributions`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::EXPLAIN_ATTRIBUTIONS)]
pub struct Attributions {
    /// A classifier: its folder, its name on the hub, or `embedded-imdb` (a folder of that name is ./embedded-imdb).
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// Texts; '-', or none at all, reads them from standard input, a text a line.
    #[arg(value_name = "TEXT", value_parser = super::text)]
    pub texts: Vec<String>,
    /// How words are measured.
    #[arg(long, value_enum, default_value = "integrated")]
    pub method: MethodName,
    /// What stands in the place of words that are not there; gradient x input needs none.
    #[arg(long, value_enum, default_value = "pad")]
    pub baseline: BaselineName,
    /// The class whose logit is explained, by name or number; default: the one that is predicted with nothing blocked.
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// Steps of the integral; default: 16, 32, 64, .. until the values' sum misses the logit's change by less than 1 %.
    #[arg(long, value_parser = count, value_name = "N")]
    pub steps: Option<usize>,
    /// The most steps that are taken for that.
    #[arg(long, value_parser = count, default_value_t = 256, value_name = "N", conflicts_with = "steps")]
    pub most_steps: usize,
    /// How many words the table shows, those with the largest values; `--json` has all.
    #[arg(long, value_parser = count, default_value_t = 20, value_name = "N")]
    pub top: usize,
    #[command(flatten)]
    pub explained: Explained,
}

/// `vitrine explain attention`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::EXPLAIN_ATTENTION)]
pub struct Attention {
    /// A model: its folder, its name on the hub, `embedded` or `embedded-imdb` (a folder of that name is ./embedded).
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// Texts; '-', or none at all, reads them from standard input, a text a line.
    #[arg(value_name = "TEXT", value_parser = super::text)]
    pub texts: Vec<String>,
    /// Show the map of one head; default: numbers of all heads, and attention rollout.
    #[arg(long, value_name = "LAYER.HEAD")]
    pub head: Option<HeadName>,
    /// How many heads or words a table shows; `--json` has all.
    #[arg(long, value_parser = count, default_value_t = 12, value_name = "N")]
    pub top: usize,
    #[command(flatten)]
    pub explained: Explained,
}

/// `vitrine explain lens`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::EXPLAIN_LENS)]
pub struct Lens {
    /// A model: its folder, its name on the hub, `embedded` or `embedded-imdb` (a folder of that name is ./embedded); default: embedded,
    /// with --backward embedded-imdb.
    #[arg(long, value_name = "NAME|DIR")]
    pub model: Option<ModelName>,
    /// Look backward: the gradient of a class's logit with respect to each layer's states, and the words along which it rises.
    #[arg(long, conflicts_with = "lens")]
    pub backward: bool,
    /// The class whose logit is differentiated, by name or number; default: the one that is predicted with nothing blocked.
    #[arg(long, value_name = "CLASS", requires = "backward")]
    pub class: Option<String>,
    /// Look through the masked-language-model head of this model, such as that from which the other was fine-tuned; default: the
    /// model's own.
    #[arg(long, value_name = "NAME|DIR")]
    pub lens: Option<ModelName>,
    /// Texts; '-', or none at all, reads them from standard input, a text a line.
    #[arg(value_name = "TEXT", value_parser = super::text)]
    pub texts: Vec<String>,
    /// Which tokens, such as 0-7; default: the first 32.
    #[arg(long, value_name = "FROM-TO")]
    pub tokens: Option<TokenRange>,
    /// How many words are guessed for each.
    #[arg(long, value_parser = count, default_value_t = 1, value_name = "K")]
    pub top_k: usize,
    #[command(flatten)]
    pub explained: Explained,
}

/// Tokens in a row, `FROM-TO`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRange {
    pub from: usize,
    pub to: usize,
}

impl FromStr for TokenRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        match (from.parse(), to.parse()) {
            (Ok(from), Ok(to)) if from <= to => Ok(TokenRange { from, to }),
            _ => Err("must be a token's number, counted from 0, or FROM-TO such as 0-7".into()),
        }
    }
}

/// What is ablated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AblatedPart {
    /// Each head: its output is zero.
    Heads,
    /// Each layer: its attention or its feed-forward network adds nothing, or it returns what it is given.
    Layers,
    /// Each edge from a token to another one, in all layers and heads.
    Edges,
}

/// `vitrine explain ablate`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::EXPLAIN_ABLATE)]
pub struct Ablate {
    /// A classifier: its folder, its name on the hub, or `embedded-imdb` (a folder of that name is ./embedded-imdb).
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// Texts; '-', or none at all, reads them from standard input, a text a line.
    #[arg(value_name = "TEXT", value_parser = super::text)]
    pub texts: Vec<String>,
    /// What is ablated, one at a time.
    #[arg(long, value_enum, default_value = "heads")]
    pub what: AblatedPart,
    /// Edges between these tokens only, such as 1-8; default: all tokens of the text.
    #[arg(long, value_name = "FROM-TO")]
    pub tokens: Option<TokenRange>,
    /// The class whose logit is measured, by name or number; default: the one that is predicted with nothing blocked.
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// How many the table shows, those with the largest changes; `--json` has all.
    #[arg(long, value_parser = count, default_value_t = 20, value_name = "N")]
    pub top: usize,
    #[command(flatten)]
    pub explained: Explained,
}

/// What is patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PatchedPart {
    /// The residual stream: the embeddings, and what each layer returns.
    Stream,
    /// What attention adds to it.
    Attention,
    /// What the feed-forward network adds to it.
    FeedForward,
}

/// `vitrine explain patch`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::EXPLAIN_PATCH)]
pub struct Patch {
    /// A classifier: its folder, its name on the hub, or `embedded-imdb` (a folder of that name is ./embedded-imdb).
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// The text that values come from.
    #[arg(value_name = "CLEAN", value_parser = super::text)]
    pub clean: String,
    /// The text that is run, of as many tokens.
    #[arg(value_name = "CORRUPTED", value_parser = super::text)]
    pub corrupted: String,
    /// What is patched.
    #[arg(long, value_enum, default_value = "stream")]
    pub what: PatchedPart,
    #[command(flatten)]
    pub explained: Explained,
}

/// `vitrine explain probe`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::EXPLAIN_PROBE)]
pub struct Probe {
    /// A model: its folder, its name on the hub, `embedded` or `embedded-imdb` (a folder of that name is ./embedded).
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// Labelled data: a folder, a file, a data set's name on the hub, or `embedded` (a folder of that name is ./embedded). Without a test
    /// split, a quarter of each class's rows is held back.
    #[arg(long, value_name = "NAME|DIR|FILE", default_value = PRETRAINED, help_heading = "Data")]
    pub data: DataName,
    /// Rows that probes are fitted to: a number (balanced, drawn as pandas would) or 'all'.
    #[arg(long, value_name = "N|all", default_value = "1000", help_heading = "Data")]
    pub samples: Samples,
    /// Rows that they are measured on.
    #[arg(long, value_name = "N|all", default_value = "1000", help_heading = "Data")]
    pub test_samples: Samples,
    /// Seed of the draws.
    #[arg(long, value_name = "S", default_value_t = 42, help_heading = "Data")]
    pub sample_seed: u32,
    #[command(flatten)]
    pub columns: Columns,
    /// Penalty on the squares of weights; default: 1 over the number of rows, as scikit-learn has with C = 1.
    #[arg(long, value_parser = positive, value_name = "L2")]
    pub l2: Option<f64>,
    /// Longest input, in tokens; default: the model's limit.
    #[arg(long, value_name = "TOKENS", help_heading = "Data")]
    pub max_length: Option<usize>,
    /// Which part of a longer text is read: head, tail or head-tail; default: what the model remembers, else head.
    #[arg(long, value_parser = truncation, value_name = "PART", help_heading = "Data")]
    pub truncate: Option<vitrine_bert::Truncation>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
}

/// `vitrine explain drift`.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::EXPLAIN_DRIFT)]
pub struct Drift {
    /// The checkpoint from which the other has moved: its folder, its name on the hub, or an embedded model.
    #[arg(long, value_name = "NAME|DIR", default_value = PRETRAINED)]
    pub from: ModelName,
    /// The checkpoint that is compared with it.
    #[arg(long, value_name = "NAME|DIR", default_value = CLASSIFIER)]
    pub model: ModelName,
    /// Texts for the comparison of states: labelled data as for `vitrine eval`.
    #[arg(long, value_name = "NAME|DIR|FILE", default_value = PRETRAINED, help_heading = "Data")]
    pub data: DataName,
    /// How many of its texts: a number (balanced, drawn as pandas would) or 'all'.
    #[arg(long, value_name = "N|all", default_value = "500", help_heading = "Data")]
    pub samples: Samples,
    /// Seed of the draw.
    #[arg(long, value_name = "S", default_value_t = 42, help_heading = "Data")]
    pub sample_seed: u32,
    #[command(flatten)]
    pub columns: Columns,
    /// Longest input, in tokens; default: the smaller limit of the two models.
    #[arg(long, value_name = "TOKENS", help_heading = "Data")]
    pub max_length: Option<usize>,
    /// How many parameters the table shows, those that moved most; `--json` has all.
    #[arg(long, value_parser = count, default_value_t = 20, value_name = "N")]
    pub top: usize,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_and_heads_have_one_spelling() {
        let edge = |text: &str| text.parse::<EdgeName>();
        let made = |query: &str, key: &str, layer, head| {
            Ok(EdgeName { query: query.into(), key: key.into(), layer, head })
        };
        assert_eq!(edge("4:2"), made("4", "2", None, None));
        assert_eq!(edge("bad:not@3"), made("bad", "not", Some(3), None));
        assert_eq!(edge("bad:not@3.7"), made("bad", "not", Some(3), Some(7)));
        assert_eq!(edge("@:not@3"), made("@", "not", Some(3), None));
        for wrong in ["", "4", "4:", ":2", "4:2@", "4:2@a", "4:2@1.", "4:2@1.b", "4:2@1.2.3"] {
            assert!(edge(wrong).is_err(), "{wrong}");
        }
        assert_eq!("3.7".parse(), Ok(HeadName { layer: 3, head: 7 }));
        assert!(
            ["", "3", "3.", ".7", "a.b", "3.7.1", "-1.2"]
                .iter()
                .all(|text| text.parse::<HeadName>().is_err())
        );
        assert_eq!("5".parse(), Ok(TokenRange { from: 5, to: 5 }));
        assert_eq!("0-7".parse(), Ok(TokenRange { from: 0, to: 7 }));
        assert!(["", "7-0", "a", "1-", "-1"].iter().all(|text| text.parse::<TokenRange>().is_err()));
    }
}
