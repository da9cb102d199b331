//! Requests and answers of the explorer as types. Their JSON is what the page and the server exchange.

use crate::base64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
pub use vitrine_explain::{Baseline, Method};

/// Bytes, in JSON as base64 with padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// Numbers as little-endian f32.
    pub fn of_floats(values: &[f32]) -> Bytes {
        Bytes(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// The largest probabilities of cells as they are drawn: 255 times their square root, rounded.
    pub fn of_probabilities(values: &[f32]) -> Bytes {
        Bytes(values.iter().map(|value| (255.0 * value.clamp(0.0, 1.0).sqrt()).round() as u8).collect())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        base64::decode(&text).map(Bytes).ok_or_else(|| D::Error::custom("not base64"))
    }
}

/// The answer of `GET /api/models`: one model, or two that are compared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Models {
    /// The models; `id` is the place in this list.
    pub models: Vec<Model>,
    /// The methods of attribution that the server has.
    pub methods: Vec<Method>,
}

/// What the page has to know of a model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Model {
    /// What requests name it by.
    pub id: usize,
    /// Its name for people.
    pub name: String,
    /// Number of layers.
    pub layers: usize,
    /// Heads in each layer.
    pub heads: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of words of the vocabulary.
    pub vocabulary: usize,
    /// The most tokens that it reads.
    pub max_tokens: usize,
    /// The names of its classes; none without a classifier.
    pub classes: Option<Vec<String>>,
    /// Whether its file has a masked-LM head.
    pub masked_lm: bool,
    /// The model whose masked-LM head the lens looks through, if it is not this one's.
    pub lens_head_of: Option<String>,
}

/// The body of `POST /api/run`, and a part of all others: a text, and what is blocked in the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The model's id.
    pub model: usize,
    /// The text.
    pub text: String,
    /// Heads whose output is zero: layer and head.
    pub ablate: Vec<(usize, usize)>,
    /// Edges that attention does not take.
    pub edges: Vec<Edge>,
}

/// An edge from a query token to a key token. Its score is minus infinity before the softmax.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The layer; none means all.
    pub layer: Option<usize>,
    /// The head; none means all.
    pub head: Option<usize>,
    /// The token that attends.
    pub query: usize,
    /// The token that it would attend to.
    pub key: usize,
}

/// The answer of `POST /api/run`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The `S` tokens that the model read, special ones included.
    pub tokens: Vec<Token>,
    /// How many tokens of the text were cut off.
    pub truncated: usize,
    /// What the classifier says; none without one.
    pub prediction: Option<Prediction>,
    /// All heads, small.
    pub overview: Overview,
    /// Numbers of each head: `[layers][heads]`.
    pub heads: Vec<Vec<HeadNumbers>>,
    /// How long the forward pass took.
    pub milliseconds: f64,
}

/// A token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Token {
    /// Its piece of the vocabulary (`##ing`).
    pub text: String,
    /// Its number in the vocabulary.
    pub id: u32,
    /// Where it begins in the text, counted in UTF-16 units, as JavaScript counts.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Whether the tokenizer added it (`[CLS]`, `[SEP]`).
    pub special: bool,
    /// Whether it goes on with the word of the token before.
    pub continues: bool,
}

/// What a classifier says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prediction {
    /// A logit for each class.
    pub logits: Vec<f32>,
    /// Their softmax.
    pub probabilities: Vec<f32>,
}

/// The maps of all heads in few cells. With `n = cells`, cell `i` covers tokens `i * S / n` up to `(i + 1) * S / n`, rounded down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overview {
    /// `n`, the smaller of 64 and `S`.
    pub cells: usize,
    /// `[layers, heads, n, n]`, rows being queries: of the largest probability in each cell, [`Bytes::of_probabilities`].
    pub data: Bytes,
}

/// Numbers of a head, each a mean over the query tokens.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HeadNumbers {
    /// The entropy of the probabilities, in nats.
    pub entropy: f64,
    /// The probability on the first token.
    pub cls: f64,
    /// The probability on the last token.
    pub sep: f64,
    /// The probability on the token before; the first token counts as 0.
    pub previous: f64,
    /// The probability on the token after; the last token counts as 0.
    pub next: f64,
    /// The probability on the token itself.
    pub same: f64,
}

/// The body of `POST /api/attention`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttentionRequest {
    /// What is run.
    #[serde(flatten)]
    pub input: Input,
    /// The layer.
    pub layer: usize,
    /// The head.
    pub head: usize,
}

/// The answer of `POST /api/attention`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attention {
    /// `S`.
    pub size: usize,
    /// `[S, S]` little-endian f32; rows are queries and sum to 1.
    pub probabilities: Bytes,
}

/// The body of `POST /api/attributions`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttributionsRequest {
    /// What is run.
    #[serde(flatten)]
    pub input: Input,
    /// The method.
    pub method: Method,
    /// The class whose logit is explained. The page names the one that the model predicts with nothing blocked, or a chosen one.
    pub class: usize,
    /// What stands in a token's place; none for a method that has no baseline.
    pub baseline: Option<Baseline>,
}

/// The answer of `POST /api/attributions`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attributions {
    /// The class whose logit is explained, as requested.
    pub class: usize,
    /// A value for each token; positive speaks for the class.
    pub values: Vec<f32>,
    /// The logit of the text minus that of the baseline, to which the values should sum.
    pub total: Option<f64>,
    /// How much the sum of the values misses `total`, relative to it. None for a method that promises no sum.
    pub gap: Option<f64>,
    /// Steps of the integral.
    pub steps: Option<usize>,
    /// Whether the gap is small enough. True where there is none.
    pub converged: bool,
}

/// The body of `POST /api/lens`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LensRequest {
    /// What is run.
    #[serde(flatten)]
    pub input: Input,
    /// The first token.
    pub from: usize,
    /// How many tokens, at most 32: each costs a product with the vocabulary in every layer.
    pub count: usize,
}

/// The answer of `POST /api/lens`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Lens {
    /// The words.
    Words {
        /// The first token.
        from: usize,
        /// `[layers + 1][count]`: the likeliest words with their probabilities, best first. Layer 0 is the embeddings.
        layers: Vec<Vec<Vec<(String, f32)>>>,
    },
    /// There is none.
    Unavailable {
        /// Why, in one line.
        unavailable: String,
    },
}

/// The body of `POST /api/ablations`: what blocking each head, beside those that are blocked, would change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AblationsRequest {
    /// What is run.
    #[serde(flatten)]
    pub input: Input,
    /// The class whose logit is measured, chosen as for attributions.
    pub class: usize,
}

/// The answer of `POST /api/ablations`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ablations {
    /// The class whose logit was measured.
    pub class: usize,
    /// That logit with nothing more blocked.
    pub logit: f32,
    /// `[layers][heads]`: the logit with this head blocked too, minus `logit`.
    pub changes: Vec<Vec<f32>>,
}

/// The body of an answer with a status of 4xx or 5xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorLine {
    /// What, where, and what to do, in one line.
    pub error: String,
}

/// What a saved page holds: its first state, and answers to requests.
///
/// For each model the page requests, in this order: `/api/models` (null), `/api/run`, and if something is blocked the run without it;
/// `/api/attention` of the chosen head, and of each that is clicked; `/api/attributions` of the method, the class that the first model
/// predicts, and the baseline (`integrated_gradients` and `pad` at first); `/api/lens` when it is opened, 32 tokens at a time from 0, or
/// as many as there are; `/api/ablations` when heads are ordered by it. `/api/run` is the least that a saved page needs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// The state as in the address of the page (`#text=..&head=3.7`); it decides which requests the page makes.
    pub hash: String,
    /// The answers. A request that is not among them is one that the saved page refuses.
    pub answers: Vec<Answer>,
}

/// A recorded answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The path, such as `/api/run`.
    pub path: String,
    /// The body of the request; null for `GET`. The order of names does not matter; a name that is absent is not one that is null.
    pub request: Value,
    /// The body of the answer.
    pub response: Value,
}

impl Snapshot {
    /// A page that opens with this text, head 0.0 and nothing blocked.
    pub fn of_text(text: &str, answers: Vec<Answer>) -> Snapshot {
        use std::fmt::Write;
        let mut hash = "#text=".to_owned();
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() {
                hash.push(char::from(byte));
            } else {
                write!(hash, "%{byte:02X}").expect("internal: a String takes what is written");
            }
        }
        Snapshot { hash, answers }
    }
}

impl Answer {
    /// Records the answer to a request.
    ///
    /// # Errors
    /// When one of the two has no JSON, as a map with keys that are no strings.
    pub fn new(path: &str, request: impl Serialize, response: impl Serialize) -> serde_json::Result<Answer> {
        let (request, response) = (serde_json::to_value(request)?, serde_json::to_value(response)?);
        Ok(Answer { path: path.to_owned(), request, response })
    }
}
