//! DistilBERT (Sanh et al., arXiv 1910.01108): BERT without token types and pooler, under other names. Mirrors
//! `transformers/models/distilbert`.

use super::{ClassifierNames, Family, LayerNames, MaskedLmNames, TokenizerClass};
use crate::ModelConfig;
use vitrine_nn::Names;
use vitrine_tensor::ops::linear::Activation;

/// The family.
pub static FAMILY: Family = Family {
    model_type: "distilbert",
    class: "DistilBert",
    names: Names {
        base: "distilbert",
        inside: &["embeddings.word_embeddings|position_embeddings|LayerNorm.*", "transformer.layer.#.**"],
        heads: &[
            "pre_classifier.weight|bias",
            "classifier.weight|bias",
            "vocab_transform|vocab_layer_norm|vocab_projector.weight|bias",
        ],
        tied: &[("vocab_projector.weight", None)],
    },
    defaults: |bert_base| ModelConfig {
        num_hidden_layers: 6,
        type_vocab_size: 1,
        classifier_dropout: Some(0.2),
        ..bert_base
    },
    renamed: &[
        ("hidden_size", "dim"),
        ("num_hidden_layers", "n_layers"),
        ("num_attention_heads", "n_heads"),
        ("intermediate_size", "hidden_dim"),
        ("hidden_act", "activation"),
        ("hidden_dropout_prob", "dropout"),
        ("attention_probs_dropout_prob", "attention_dropout"),
        ("classifier_dropout", "seq_classif_dropout"),
    ],
    absent: &["type_vocab_size", "layer_norm_eps"],
    must_be_false: &["sinusoidal_pos_embds"],
    layer: LayerNames {
        stack: "transformer.layer",
        query_key_value: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
        attention_output: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        up: "ffn.lin1",
        down: "ffn.lin2",
        feed_forward_norm: "output_layer_norm",
    },
    classifier: ClassifierNames {
        dense: "pre_classifier",
        activation: Activation::Relu,
        drops_input: false,
        output: "classifier",
    },
    masked_lm: MaskedLmNames {
        dense: "vocab_transform",
        activation: None,
        norm: "vocab_layer_norm",
        bias: "vocab_projector.bias",
    },
    tokenizer: TokenizerClass::WordPiece("DistilBertTokenizer"),
};
