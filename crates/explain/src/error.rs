//! The one error type of the crate.

use vitrine_autograd::AutogradError;
use vitrine_bert::BertError;
use vitrine_nn::NnError;

/// The crate's result.
pub type Result<T> = std::result::Result<T, ExplainError>;

/// What can go wrong between a text and its explanation. Every message is one line.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// A model without a classifier says nothing of a text that could be explained.
    #[error(
        "{model}: no classifier in it, so it has no class to explain; train one: vitrine train --model {model} --data .."
    )]
    NoClassifier {
        /// The model.
        model: String,
    },
    /// A class that the classifier does not have.
    #[error("there is no class {class}; the classifier has {classes}, from 0 on")]
    NoClass {
        /// What was asked for.
        class: usize,
        /// How many there are.
        classes: usize,
    },
    /// A baseline needs a token that the vocabulary lacks.
    #[error("the tokenizer has no {name} token to put in the place of words; use another baseline")]
    NoBaseline {
        /// Its usual name.
        name: &'static str,
    },
    /// A layer or head that the model does not have.
    #[error("there is no {what} {index}; the model has {count}, from 0 on")]
    NoPart {
        /// "layer" or "head".
        what: &'static str,
        /// What was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A token that the text does not have.
    #[error("there is no token {index}; the text has {count}, from 0 on")]
    NoToken {
        /// What was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A query without any edge: its probabilities cannot sum to 1.
    #[error("every edge from token {query} is blocked in layer {layer}, head {head}; leave it one")]
    NoEdge {
        /// The layer.
        layer: usize,
        /// The head.
        head: usize,
        /// The token that attends.
        query: usize,
    },
    /// A head that does not fit onto the model.
    #[error(
        "{model}: its head is for a width of {} and {} words; this model has a width of {} and {} words",
        got[0], got[1], expected[0], expected[1]
    )]
    OtherSizes {
        /// The model that the head is of.
        model: String,
        /// Hidden width and vocabulary of the model that it is for.
        expected: [usize; 2],
        /// Those of the head.
        got: [usize; 2],
    },
    /// Two texts whose tokens do not stand in the same places.
    #[error(
        "the first text has {clean} tokens and the second {corrupted}; values are exchanged token by token, so change words until both have as many"
    )]
    Lengths {
        /// Tokens of the text that values come from.
        clean: usize,
        /// Tokens of the text that is run.
        corrupted: usize,
    },
    /// Two texts with one result.
    #[error("both texts have the same difference of logits, {difference}; there is nothing to recover")]
    SameResult {
        /// That difference.
        difference: f64,
    },
    /// A number that must be something else.
    #[error("{name} must be {expected}, got {got}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// The model computed something that is not a number.
    #[error("{what} is {value}; the model's weights or this precision make numbers that are not finite")]
    NotFinite {
        /// What was computed.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// The caller wanted no more of it.
    #[error("stopped")]
    Stopped,
    /// The model refused.
    #[error(transparent)]
    Bert(#[from] BertError),
    /// A layer or tap refused.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// The tape refused.
    #[error(transparent)]
    Autograd(#[from] AutogradError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] vitrine_tensor::Error),
}

impl ExplainError {
    /// Whether the request makes no sense, rather than that a run failed.
    pub fn is_usage(&self) -> bool {
        match self {
            ExplainError::NoClassifier { .. }
            | ExplainError::NoClass { .. }
            | ExplainError::NoBaseline { .. }
            | ExplainError::NoPart { .. }
            | ExplainError::NoToken { .. }
            | ExplainError::NoEdge { .. }
            | ExplainError::OtherSizes { .. }
            | ExplainError::Lengths { .. }
            | ExplainError::SameResult { .. }
            | ExplainError::Setting { .. } => true,
            ExplainError::NotFinite { .. }
            | ExplainError::Stopped
            | ExplainError::Bert(_)
            | ExplainError::Nn(_)
            | ExplainError::Autograd(_)
            | ExplainError::Tensor(_) => false,
        }
    }

    /// Whether the caller ended the work.
    pub fn is_stopped(&self) -> bool {
        matches!(self, ExplainError::Stopped)
    }
}
