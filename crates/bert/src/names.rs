//! [`NAMES`]: the names of BERT's weights.

use vitrine_nn::Names;

/// The names of `BertForSequenceClassification` and `BertForMaskedLM` in `transformers`.
pub const NAMES: Names = Names {
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
};
