//! BERT (Devlin et al., arXiv 1810.04805). Mirrors `transformers/models/bert`.

use super::{ClassifierNames, Family, LayerNames, MaskedLmNames, TokenizerClass};
use vitrine_nn::Names;
use vitrine_tensor::ops::linear::Activation;

/// The family.
pub static FAMILY: Family = Family {
    model_type: "bert",
    class: "Bert",
    names: Names {
        base: "bert",
        inside: &[
            "embeddings.word_embeddings|position_embeddings|token_type_embeddings|LayerNorm.*",
            "encoder.layer.#.**",
            "pooler.dense.*",
        ],
        heads: &["classifier.weight|bias", "cls.predictions.**"],
        tied: &[
            ("cls.predictions.decoder.weight", None),
            ("cls.predictions.decoder.bias", Some("cls.predictions.bias")),
        ],
    },
    defaults: |bert_base| bert_base,
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
        dense: "bert.pooler.dense",
        activation: Activation::Tanh,
        drops_input: false,
        output: "classifier",
    },
    masked_lm: MaskedLmNames {
        dense: "cls.predictions.transform.dense",
        activation: None,
        norm: "cls.predictions.transform.LayerNorm",
        bias: "cls.predictions.bias",
    },
    tokenizer: TokenizerClass::WordPiece("BertTokenizer"),
};
