//! A random model in F64 or F32, small enough for closed forms.

use vitrine_bert::{MaskedLm, ModelConfig, SequenceClassifier, Tokenizer};
use vitrine_explain::{Subject, Text, Watch};
use vitrine_nn::ParameterStore;
use vitrine_tensor::DType;

/// Words that have an id of their own, after the five special tokens.
pub const WORDS: [&str; 12] =
    ["a", "film", "not", "bad", "good", "it", "was", "very", "##ing", "lost", "hours", "."];

pub fn tokenizer() -> Tokenizer {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].iter().chain(&WORDS);
    Tokenizer::from_vocabulary(&words.copied().collect::<Vec<_>>().join("\n")).unwrap()
}

pub fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 17,
        hidden_size: 12,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        intermediate_size: 20,
        max_position_embeddings: 40,
        initializer_range: 0.4,
        ..ModelConfig::default()
    }
}

fn in_dtype(parameters: &mut ParameterStore, dtype: DType) {
    if dtype == DType::F64 {
        *parameters = parameters.to_dtype(DType::F64).unwrap();
    }
}

// Not every test binary uses every helper.
#[allow(dead_code)]
pub fn model(dtype: DType) -> SequenceClassifier {
    let mut model = SequenceClassifier::random(config(), 5).unwrap();
    in_dtype(model.parameters_mut(), dtype);
    model
}

#[allow(dead_code)]
pub fn classifier(dtype: DType) -> Subject {
    Subject::from_classifier(model(dtype), tokenizer())
}

#[allow(dead_code)]
pub fn masked_lm() -> MaskedLm {
    MaskedLm::random(config(), 6).unwrap()
}

#[allow(dead_code)]
pub fn text(subject: &Subject) -> Text {
    subject.read("it was not a bad film .").unwrap()
}

#[allow(dead_code)]
pub const UNWATCHED: Watch<'static> = &|_, _| true;

/// `|a - b| <= tolerance max|b|`; NaN fails.
#[track_caller]
#[allow(dead_code)]
pub fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: number of values");
    let limit = tolerance * expected.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    for (index, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= limit, "{what}[{index}]: got {a}, expected {b}, limit {limit:e}");
    }
}
