//! [`Place`]: in which part of a model a parameter is.

use crate::Family;
use serde::{Deserialize, Serialize};
use std::fmt;
use vitrine_nn::ADAPTER_PREFIX;

/// A part of a model, from below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The tables, and the LayerNorm after their sum.
    Embeddings,
    /// A layer of the encoder, from 0.
    Layer(usize),
    /// Everything behind the encoder: pooler and classifier.
    Head,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Embeddings => f.write_str("embeddings"),
            Place::Layer(index) => write!(f, "layer {index}"),
            Place::Head => f.write_str("head"),
        }
    }
}

impl Family {
    /// Where the parameter of this key is; an adapter is where its matrix is.
    pub fn place_of(&self, key: &str) -> Place {
        let key = key.strip_prefix(ADAPTER_PREFIX).unwrap_or(key);
        let Some(inside) = key.strip_prefix(self.names.base).and_then(|rest| rest.strip_prefix('.')) else {
            return Place::Head;
        };
        let layer = inside.strip_prefix(self.layer.stack).and_then(|rest| rest.strip_prefix('.'));
        match layer.and_then(|rest| rest.split('.').next()?.parse().ok()) {
            Some(index) => Place::Layer(index),
            None if inside.starts_with("embeddings.") => Place::Embeddings,
            None => Place::Head,
        }
    }

    /// The projections to queries and values, by the ends of their names: what LoRA's paper adapts.
    pub fn query_value_modules(&self) -> [&'static str; 2] {
        let [query, _, value] = self.layer.query_key_value;
        [query, value].map(|name| name.rsplit('.').next().unwrap_or(name))
    }

    /// The modules of a classifier's head, as `peft` finds them by the ends of their names.
    pub fn head_modules(&self) -> [&'static str; 2] {
        let inside = |name: &'static str| match name.strip_prefix(self.names.base) {
            Some(rest) => rest.trim_start_matches('.'),
            None => name,
        };
        [inside(self.classifier.dense), inside(self.classifier.output)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModelConfig, SequenceClassifier};

    #[test]
    fn every_parameter_of_every_family_has_its_place() {
        for family in Family::all() {
            let config = ModelConfig {
                vocab_size: 10,
                hidden_size: 4,
                num_hidden_layers: 3,
                num_attention_heads: 2,
                intermediate_size: 4,
                max_position_embeddings: 8,
                ..ModelConfig::defaults(family)
            };
            let model = SequenceClassifier::random(config, 0).unwrap();
            let mut counts = std::collections::BTreeMap::new();
            for (_, parameter) in model.parameters().iter() {
                for part in &parameter.parts {
                    *counts.entry(family.place_of(&part.key)).or_insert(0) += 1;
                }
            }
            let tables = model.parameters().iter().filter(|(_, p)| p.name().contains("_embeddings")).count();
            let expected = [
                (Place::Embeddings, tables + 2),
                (Place::Layer(0), 16),
                (Place::Layer(1), 16),
                (Place::Layer(2), 16),
                (Place::Head, 4),
            ];
            assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected, "{}", family.model_type);
        }
    }
}
