//! [`BertConfig`]: the `config.json` of a BERT, with Hugging Face's field names.
//!
//! Mirrors `transformers/models/bert/configuration_bert.py`. Fields that are not listed here are kept and written back,
//! after a check that none of them changes the mathematics.

use crate::{BertError, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use vitrine_tensor::ops::linear::Activation;

/// The file's name in a model folder.
pub const CONFIG_FILE: &str = "config.json";

/// Sizes and settings of a BERT. Missing fields have the defaults of `transformers`, which are bert-base's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// Always "bert".
    pub model_type: String,
    /// V: rows of the word embedding.
    pub vocab_size: usize,
    /// C: the width of every hidden state.
    pub hidden_size: usize,
    /// L: encoder layers.
    pub num_hidden_layers: usize,
    /// H: attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// The width inside the feed-forward network.
    pub intermediate_size: usize,
    /// Its activation; see [`BertConfig::activation`].
    pub hidden_act: String,
    /// Probability of dropping an element of a hidden state while training.
    pub hidden_dropout_prob: f64,
    /// Probability of dropping an attention weight while training.
    pub attention_probs_dropout_prob: f64,
    /// Rows of the position embedding: no sequence is longer.
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding.
    pub type_vocab_size: usize,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// What LayerNorm adds to the variance.
    pub layer_norm_eps: f64,
    /// The id of `[PAD]`, which this implementation never uses; kept for the files it writes.
    pub pad_token_id: Option<u32>,
    /// Dropout before the classifier; null means `hidden_dropout_prob`.
    pub classifier_dropout: Option<f64>,
    /// Names of the classes by index, 0 to the number of labels - 1.
    pub id2label: BTreeMap<usize, String>,
    /// The whole file as it was read, in its order: what the fields above do not say is written back from here.
    #[serde(skip)]
    pub extra: Map<String, Value>,
}

impl Default for BertConfig {
    fn default() -> Self {
        BertConfig {
            model_type: "bert".into(),
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: Some(0),
            classifier_dropout: None,
            id2label: numbered_labels(2),
            extra: Map::new(),
        }
    }
}

/// `LABEL_0`, `LABEL_1`, ...: the names that `transformers` gives to unnamed classes.
fn numbered_labels(count: usize) -> BTreeMap<usize, String> {
    (0..count).map(|i| (i, format!("LABEL_{i}"))).collect()
}

impl BertConfig {
    /// bert-base: 12 layers, hidden 768, 12 heads, feed-forward 3072.
    pub fn bert_base() -> Self {
        BertConfig::default()
    }

    /// bert-mini: 4 layers, hidden 256, 4 heads, feed-forward 1024 (Turc et al., arXiv:1908.08962).
    pub fn bert_mini() -> Self {
        BertConfig {
            hidden_size: 256,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            intermediate_size: 1024,
            ..BertConfig::default()
        }
    }

    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// `Io`, `Json` with line and column, `Config` as [`BertConfig::check`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| BertError::Io { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads and checks the text of a `config.json`; `origin` is named in errors.
    ///
    /// # Errors
    /// As [`BertConfig::from_file`].
    pub fn parse(text: &str, origin: &Path) -> Result<Self> {
        let json = |source| BertError::Json { path: origin.to_owned(), source };
        let extra: Map<String, Value> = serde_json::from_str(text).map_err(json)?;
        let mut config: BertConfig = serde_json::from_str(text).map_err(json)?;
        // Configs of old give only the number of labels.
        if let (None, Some(count)) = (extra.get("id2label"), extra.get("num_labels").and_then(Value::as_u64))
        {
            config.id2label = numbered_labels(usize::try_from(count).unwrap_or(0).min(MAX_LABELS + 1));
        }
        config.extra = extra;
        match config.check() {
            Ok(()) => Ok(config),
            Err(BertError::Config { field, expected, got, .. }) => {
                Err(BertError::Config { origin: origin.display().to_string(), field, expected, got })
            }
            Err(error) => Err(error),
        }
    }

    /// The file's text: the fields here over whatever else the original file had.
    ///
    /// `architecture` is the class that `transformers` should load, such as `BertForSequenceClassification`.
    pub fn to_json(&self, architecture: &str) -> String {
        let mut map = self.extra.clone();
        map.insert("architectures".into(), vec![Value::from(architecture)].into());
        if let Ok(Value::Object(fields)) = serde_json::to_value(self) {
            map.extend(fields);
        }
        let ids = self.id2label.iter().map(|(&id, label)| (label.clone(), Value::from(id)));
        map.insert("label2id".into(), Value::Object(ids.collect()));
        // Weights are written in F32 whatever they were read from; both spellings of the field are in use.
        map.shift_remove("dtype");
        map.shift_remove("num_labels");
        map.insert("torch_dtype".into(), "float32".into());
        let mut text = format!("{:#}", Value::Object(map));
        text.push('\n');
        text
    }

    /// The number of classes.
    pub fn num_labels(&self) -> usize {
        self.id2label.len()
    }

    /// The classes' names, in order.
    pub fn label_names(&self) -> Vec<String> {
        self.id2label.values().cloned().collect()
    }

    /// The classes' names if somebody chose them, rather than `LABEL_0`, `LABEL_1`, ...
    pub fn named_labels(&self) -> Option<Vec<String>> {
        (self.id2label != numbered_labels(self.num_labels())).then(|| self.label_names())
    }

    /// The same model with these classes.
    pub fn with_labels(mut self, names: &[String]) -> Self {
        self.id2label = names.iter().cloned().enumerate().collect();
        self
    }

    /// D: the width of a head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Dropout before the classifier.
    pub fn classifier_dropout(&self) -> f64 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    /// The feed-forward activation by its name in `transformers.activations.ACT2FN`: "gelu" is the erf form.
    ///
    /// # Errors
    /// `Config` for an unknown name.
    pub fn activation(&self) -> Result<Activation> {
        match self.hidden_act.as_str() {
            "gelu" | "gelu_python" => Ok(Activation::GeluErf),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            "tanh" => Ok(Activation::Tanh),
            other => Err(BertError::Config {
                origin: ORIGIN.into(),
                field: "hidden_act",
                expected: "gelu, gelu_new, gelu_pytorch_tanh, relu or tanh".into(),
                got: other.into(),
            }),
        }
    }

    /// Refuses, by name, sizes that make no sense and settings that change the mathematics.
    ///
    /// # Errors
    /// `Config`.
    pub fn check(&self) -> Result<()> {
        for (field, got, most) in [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 16),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, self.hidden_size),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 16),
            ("type_vocab_size", self.type_vocab_size, 1 << 16),
        ] {
            require(field, (1..=most).contains(&got), || format!("1 to {most}"), got)?;
        }
        let divides = self.hidden_size.is_multiple_of(self.num_attention_heads);
        let expected = || format!("a divisor of hidden_size ({})", self.hidden_size);
        require("num_attention_heads", divides, expected, self.num_attention_heads)?;
        for (field, got) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("classifier_dropout", self.classifier_dropout()),
        ] {
            require(field, (0.0..1.0).contains(&got), || "at least 0 and below 1".into(), got)?;
        }
        for (field, got) in
            [("layer_norm_eps", self.layer_norm_eps), ("initializer_range", self.initializer_range)]
        {
            require(field, (0.0..=1.0).contains(&got), || "0 to 1".into(), got)?;
        }
        let labels = self.num_labels();
        require("num_labels", (2..=MAX_LABELS).contains(&labels), || format!("2 to {MAX_LABELS}"), labels)?;
        let numbered = self.id2label.keys().copied().eq(0..labels);
        require("id2label", numbered, || "keys 0, 1, 2, ...".into(), format!("{:?}", self.id2label))?;
        require("model_type", self.model_type == "bert", || "bert".into(), &self.model_type)?;
        self.activation()?;
        for (field, supported) in [
            ("position_embedding_type", Value::from("absolute")),
            ("is_decoder", false.into()),
            ("add_cross_attention", false.into()),
            ("is_encoder_decoder", false.into()),
            ("problem_type", "single_label_classification".into()),
            ("pruned_heads", Map::new().into()),
            ("quantization_config", Value::Null),
            ("tie_word_embeddings", true.into()),
        ] {
            let got = self.extra.get(field).unwrap_or(&Value::Null);
            let fits = got.is_null() || *got == supported;
            require(field, fits, || supported.to_string(), got)?;
        }
        Ok(())
    }
}

/// The most encoder layers: dropout sites are 16-bit numbers, four to a layer.
const MAX_LAYERS: usize = 4096;
const MAX_LABELS: usize = 1 << 16;
/// What errors call a config that is in no file.
const ORIGIN: &str = "config";

fn require(
    field: &'static str,
    fits: bool,
    expected: impl FnOnce() -> String,
    got: impl std::fmt::Display,
) -> Result<()> {
    if fits {
        return Ok(());
    }
    Err(BertError::Config { origin: ORIGIN.into(), field, expected: expected(), got: got.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BertConfig> {
        BertConfig::parse(text, Path::new(CONFIG_FILE))
    }

    #[test]
    fn unknown_fields_survive_a_round_trip() {
        let text = r#"{"_name_or_path": "x", "model_type": "bert", "hidden_size": 24, "num_attention_heads": 3,
            "gradient_checkpointing": false, "dtype": "bfloat16",
            "id2label": {"0": "neg", "1": "neutral", "2": "pos"}, "task_specific_params": {"a": [1, null]}}"#;
        let config = parse(text).unwrap();
        assert_eq!((config.hidden_size, config.vocab_size, config.num_labels()), (24, 30522, 3));
        let written = config.to_json("BertForSequenceClassification");
        let value: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(value["task_specific_params"], serde_json::json!({"a": [1, null]}));
        assert_eq!(value["id2label"], serde_json::json!({"0": "neg", "1": "neutral", "2": "pos"}));
        assert_eq!(value["label2id"], serde_json::json!({"neg": 0, "neutral": 1, "pos": 2}));
        assert_eq!(value["architectures"], serde_json::json!(["BertForSequenceClassification"]));
        assert_eq!(value["torch_dtype"], "float32");
        assert!(value.get("dtype").is_none());
        let again = parse(&written).unwrap();
        assert_eq!(again.to_json("BertForSequenceClassification"), written);
    }

    #[test]
    fn settings_that_change_the_mathematics_are_refused_by_name() {
        for (field, value) in [
            ("position_embedding_type", r#""relative_key""#),
            ("is_decoder", "true"),
            ("add_cross_attention", "true"),
            ("problem_type", r#""regression""#),
            ("pruned_heads", r#"{"0": [1]}"#),
            ("tie_word_embeddings", "false"),
            ("hidden_act", r#""swish""#),
            ("model_type", r#""roberta""#),
            ("num_attention_heads", "5"),
            ("num_attention_heads", "0"),
            ("hidden_size", "0"),
            ("vocab_size", "99999999999"),
            ("num_hidden_layers", "100000"),
            ("num_labels", "1"),
            ("id2label", r#"{"1": "a", "2": "b"}"#),
            ("hidden_dropout_prob", "1.0"),
            ("classifier_dropout", "-0.5"),
            ("layer_norm_eps", "-1e-12"),
        ] {
            let message = parse(&format!("{{\"{field}\": {value}}}")).unwrap_err().to_string();
            assert!(message.contains(field) && !message.contains('\n'), "{field}: {message}");
            assert!(message.starts_with("config.json: "), "{field}: {message}");
        }
    }

    #[test]
    fn a_field_of_another_type_is_located() {
        let message = parse("{\n  \"hidden_size\": \"wide\"\n}").unwrap_err().to_string();
        assert!(message.contains("config.json") && message.contains("line 2"), "{message}");
    }
}
