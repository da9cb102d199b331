//! RoBERTa (Liu et al., arXiv 1907.11692): BERT's encoder with another tokenizer, positions that count from the padding id, and
//! a classification head of its own. Mirrors `transformers/models/roberta`.

use super::{ClassifierNames, Family, LayerNames, MaskedLmNames, TokenizerClass};
use crate::ModelConfig;
use vitrine_nn::Names;
use vitrine_tensor::ops::linear::Activation;

/// The family.
pub static FAMILY: Family = Family {
    model_type: "roberta",
    class: "Roberta",
    names: Names {
        base: "roberta",
        inside: &[
            "embeddings.word_embeddings|position_embeddings|token_type_embeddings|LayerNorm.*",
            "encoder.layer.#.**",
        ],
        heads: &["classifier.dense|out_proj.weight|bias", "lm_head.**"],
        tied: &[("lm_head.decoder.weight", None), ("lm_head.decoder.bias", Some("lm_head.bias"))],
    },
    defaults: |bert_base| ModelConfig { vocab_size: 50265, position_padding: Some(1), ..bert_base },
    renamed: &[],
    absent: &[],
    must_be_false: &[],
    layer: LayerNames {
        stack: "encoder.layer",
        query_key_value: ["attention.self.query", "attention.self.key", "attention.self.value"],
        attention_output: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        up: "intermediate.dense",
        down: "output.dense",
        feed_forward_norm: "output.LayerNorm",
    },
    classifier: ClassifierNames {
        dense: "classifier.dense",
        activation: Activation::Tanh,
        drops_input: true,
        output: "classifier.out_proj",
    },
    masked_lm: MaskedLmNames {
        dense: "lm_head.dense",
        activation: Some(Activation::GeluErf),
        norm: "lm_head.layer_norm",
        bias: "lm_head.bias",
    },
    tokenizer: TokenizerClass::ByteLevel("RobertaTokenizer"),
};
