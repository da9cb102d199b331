//! [`Family`]: what distinguishes the models of one `model_type` from those of another.
//!
//! All are encoders of Transformer layers with LayerNorm after each residual, with a classification head and a masked-language
//! head of two layers each. One code computes them ([`Encoder`](crate::encoder::Encoder) and [`heads`](crate::heads)); a family
//! is the data that it reads: names of weights, names and defaults of settings, and where the mathematics have a choice.

mod bert;
mod distilbert;
mod roberta;

use crate::config::require;
use crate::tokenizer::Kind;
use crate::{ModelConfig, Result};
use serde::{Serialize, Serializer};
use vitrine_nn::Names;
use vitrine_tensor::ops::linear::Activation;

/// Every family. A new one is registered here.
static FAMILIES: [&Family; 3] = [&bert::FAMILY, &distilbert::FAMILY, &roberta::FAMILY];

/// A model family of `transformers`.
#[derive(Debug)]
pub struct Family {
    /// The name in config.json.
    pub model_type: &'static str,
    /// What the names of its classes in `transformers` begin with.
    pub class: &'static str,
    /// The names of its weights.
    pub names: Names,
    /// From bert-base's settings to those that `transformers` has where config.json says nothing.
    pub(crate) defaults: fn(ModelConfig) -> ModelConfig,
    /// Fields of config.json that have another name than BERT's: (BERT's, the family's).
    pub(crate) renamed: &'static [(&'static str, &'static str)],
    /// BERT's fields of config.json that the family does not have, and for which the default holds. Without
    /// `type_vocab_size` it has no token types.
    pub(crate) absent: &'static [&'static str],
    /// Fields of its own that change the mathematics and are supported only as `false`.
    pub(crate) must_be_false: &'static [&'static str],
    /// The names of a layer's parts.
    pub(crate) layer: LayerNames,
    /// The classification head.
    pub(crate) classifier: ClassifierNames,
    /// The masked-language head.
    pub(crate) masked_lm: MaskedLmNames,
    /// The class of its tokenizers.
    pub(crate) tokenizer: TokenizerClass,
}

/// The names of a layer's parts, behind `BASE.STACK.INDEX.`.
#[derive(Debug)]
pub(crate) struct LayerNames {
    /// What holds the layers.
    pub stack: &'static str,
    pub query_key_value: [&'static str; 3],
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub feed_forward_norm: &'static str,
}

/// `output(dropout(activation(dense(x))))`, x being the first token's hidden state.
#[derive(Debug)]
pub(crate) struct ClassifierNames {
    pub dense: &'static str,
    pub activation: Activation,
    /// Whether x is dropped out too.
    pub drops_input: bool,
    pub output: &'static str,
}

/// `norm(activation(dense(x)))` by the word embeddings' table, and `bias`.
#[derive(Debug)]
pub(crate) struct MaskedLmNames {
    pub dense: &'static str,
    /// None for the config's.
    pub activation: Option<Activation>,
    pub norm: &'static str,
    pub bias: &'static str,
}

/// A class of `transformers` that makes tokenizers, and what it makes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TokenizerClass {
    /// BERT's, or one that differs in name only.
    WordPiece(&'static str),
    /// RoBERTa's.
    ByteLevel(&'static str),
}

impl TokenizerClass {
    /// What it makes.
    pub fn kind(self) -> Kind {
        match self {
            TokenizerClass::WordPiece(_) => Kind::WordPiece,
            TokenizerClass::ByteLevel(_) => Kind::ByteLevel,
        }
    }

    /// A class that makes this: the family's, if it does.
    pub fn class(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (TokenizerClass::WordPiece(class), Kind::WordPiece)
            | (TokenizerClass::ByteLevel(class), Kind::ByteLevel) => class,
            (_, Kind::WordPiece) => "BertTokenizer",
            (_, Kind::ByteLevel) => "RobertaTokenizer",
        }
    }
}

impl Family {
    /// Every family.
    pub fn all() -> &'static [&'static Family] {
        &FAMILIES
    }

    /// The family of a `model_type`.
    ///
    /// # Errors
    /// `Config` with the names of those that there are.
    pub fn named(model_type: &str) -> Result<&'static Family> {
        let found = FAMILIES.iter().find(|family| family.model_type == model_type);
        let expected = || FAMILIES.map(|family| family.model_type).join(", ");
        require("model_type", found.is_some(), expected, vitrine_nn::printable(model_type))?;
        Ok(found.unwrap_or(&FAMILIES[0]))
    }

    /// BERT, which a config without a `model_type` is.
    pub(crate) fn default() -> &'static Family {
        &bert::FAMILY
    }

    /// The name of a class in `transformers`, such as `BertForMaskedLM`.
    pub fn architecture(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.class)
    }

    /// What the family calls a field of config.json; none if it has no such field.
    pub(crate) fn field(&self, berts: &'static str) -> Option<&'static str> {
        if self.absent.contains(&berts) {
            return None;
        }
        let renamed = self.renamed.iter().find(|(old, _)| *old == berts);
        Some(renamed.map_or(berts, |(_, new)| new))
    }

    /// Whether a key is one of the classification head's.
    pub(crate) fn is_in_classifier(&self, key: &str) -> bool {
        [self.classifier.dense, self.classifier.output]
            .iter()
            .any(|name| key.strip_prefix(name).is_some_and(|rest| matches!(rest, ".weight" | ".bias")))
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.model_type == other.model_type
    }
}

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.model_type)
    }
}
