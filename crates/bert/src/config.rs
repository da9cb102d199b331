//! [`ModelConfig`]: the `config.json` of a model, with Hugging Face's field names.
//!
//! Mirrors `transformers/models/bert/configuration_bert.py`; a [`Family`] says where its own file differs. Fields that are not listed here are kept and written back,
//! after a check that none of them changes the mathematics. `null` is an absent field. What is not used is not checked: a
//! classifier's settings where there is none, dropout where nothing is trained, and fields that only other programs read.

use crate::labels::{labels, numbered_labels};
use crate::{BertError, Family, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use vitrine_nn::Source;
use vitrine_nn::printable;
use vitrine_nn::read::read_text;
use vitrine_tensor::DType;
use vitrine_tensor::ops::linear::Activation;

/// The file's name in a model folder.
pub const CONFIG_FILE: &str = "config.json";

/// Sizes and settings of a model, under the names that BERT has for them. Missing fields have the family's defaults in
/// `transformers`; BERT's are bert-base's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// The `model_type`.
    #[serde(rename = "model_type")]
    pub family: &'static Family,
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
    /// Its activation; see [`ModelConfig::activation`].
    pub hidden_act: String,
    /// Probability of dropping an element of a hidden state while training.
    pub hidden_dropout_prob: f64,
    /// Probability of dropping an attention weight while training.
    pub attention_probs_dropout_prob: f64,
    /// Rows of the position embedding; see [`ModelConfig::max_length`].
    pub max_position_embeddings: usize,
    /// The padding id, where a family counts positions from it; written by [`ModelConfig::to_json`].
    #[serde(skip)]
    pub position_padding: Option<u32>,
    /// Rows of the token type embedding; 1 where there is none.
    pub type_vocab_size: usize,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// What LayerNorm adds to the variance.
    pub layer_norm_eps: f64,
    /// Dropout before the classifier; null means `hidden_dropout_prob`.
    pub classifier_dropout: Option<f64>,
    /// The type in which weights are written, whatever they were read from: F32, F16 or BF16.
    #[serde(skip)]
    pub dtype: DType,
    /// Names of the classes by index, 0 to the number of labels - 1.
    pub id2label: BTreeMap<usize, String>,
    /// The whole file as it was read, in its order: what the fields above do not say is written back from here.
    #[serde(skip)]
    pub extra: Map<String, Value>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        ModelConfig {
            family: Family::default(),
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            position_padding: None,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            classifier_dropout: None,
            dtype: DType::F32,
            id2label: numbered_labels(2),
            extra: Map::new(),
        }
    }
}

impl ModelConfig {
    /// What `transformers` has for a family where config.json says nothing.
    pub fn defaults(family: &'static Family) -> Self {
        (family.defaults)(ModelConfig { family, ..ModelConfig::default() })
    }

    /// bert-base: 12 layers, hidden 768, 12 heads, feed-forward 3072.
    pub fn bert_base() -> Self {
        ModelConfig::default()
    }

    /// bert-mini: 4 layers, hidden 256, 4 heads, feed-forward 1024 (Turc et al., arXiv:1908.08962).
    pub fn bert_mini() -> Self {
        ModelConfig {
            hidden_size: 256,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            intermediate_size: 1024,
            ..ModelConfig::default()
        }
    }

    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// As [`read_text`]; `Json` with line and column; `Config` as [`ModelConfig::check`].
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::parse(&read_text(path, MAX_BYTES)?, path)
    }

    /// Reads and checks the `config.json` of a model.
    ///
    /// # Errors
    /// As [`ModelConfig::from_file`].
    pub fn from_source(source: &Source) -> Result<Self> {
        Self::parse(&source.text(CONFIG_FILE, MAX_BYTES)?, &source.path_of(CONFIG_FILE))
    }

    /// Reads and checks the text of a `config.json`; `origin` is named in errors.
    ///
    /// # Errors
    /// As [`ModelConfig::from_file`].
    pub fn parse(text: &str, origin: &Path) -> Result<Self> {
        let fields: Map<String, Value> = serde_json::from_str(text)
            .map_err(|source| BertError::Json { path: origin.to_owned(), source })?;
        if let (Some(error), None) = (fields.get("error"), fields.get("hidden_size")) {
            let why = format!("this is the answer of a server whose download failed: {}", shown(error));
            return Err(BertError::Unusable { path: origin.to_owned(), why });
        }
        let read = || {
            let config = ModelConfig::from_fields(fields)?;
            config.check()?;
            Ok(config)
        };
        read().map_err(|error| at(origin, error))
    }

    fn from_fields(fields: Map<String, Value>) -> Result<Self> {
        let family = match present(&fields, "model_type") {
            None => Family::default(),
            Some(_) => Family::named(&used(&fields, Some("model_type"), String::new(), "a text")?)?,
        };
        let default = ModelConfig::defaults(family);
        let size = |field, default| used(&fields, family.field(field), default, "a whole number");
        // What only training uses is checked there; until then a value of another type is no number.
        let training = |field, default| {
            let value = family.field(field).and_then(|field| present(&fields, field));
            value.map_or(default, |value| Some(value.as_f64().unwrap_or(f64::NAN)))
        };
        let probability = |field, default| training(field, Some(default)).unwrap_or(default);
        Ok(ModelConfig {
            family,
            vocab_size: size("vocab_size", default.vocab_size)?,
            hidden_size: size("hidden_size", default.hidden_size)?,
            num_hidden_layers: size("num_hidden_layers", default.num_hidden_layers)?,
            num_attention_heads: size("num_attention_heads", default.num_attention_heads)?,
            intermediate_size: size("intermediate_size", default.intermediate_size)?,
            hidden_act: used(&fields, family.field("hidden_act"), default.hidden_act, "a text")?,
            hidden_dropout_prob: probability("hidden_dropout_prob", default.hidden_dropout_prob),
            attention_probs_dropout_prob: probability(
                "attention_probs_dropout_prob",
                default.attention_probs_dropout_prob,
            ),
            max_position_embeddings: size("max_position_embeddings", default.max_position_embeddings)?,
            position_padding: match default.position_padding {
                None => None,
                Some(default) => Some(used(&fields, Some("pad_token_id"), default, "a token's id")?),
            },
            type_vocab_size: size("type_vocab_size", default.type_vocab_size)?,
            initializer_range: probability("initializer_range", default.initializer_range),
            layer_norm_eps: used(
                &fields,
                family.field("layer_norm_eps"),
                default.layer_norm_eps,
                "a number",
            )?,
            classifier_dropout: training("classifier_dropout", default.classifier_dropout),
            dtype: DType::F32,
            id2label: labels(&fields),
            extra: fields,
        })
    }

    /// The file's text: the fields here over whatever else the original file had.
    ///
    /// `architecture` is the class that `transformers` should load, such as `BertForSequenceClassification`.
    pub fn to_json(&self, architecture: &str) -> String {
        let mut map = self.extra.clone();
        map.insert("architectures".into(), vec![Value::from(architecture)].into());
        if let Ok(Value::Object(fields)) = serde_json::to_value(self) {
            let renamed = |field: String| {
                let renamed = self.family.renamed.iter().find(|(old, _)| *old == field);
                renamed.map_or(field, |(_, new)| (*new).to_owned())
            };
            let has = |field: &String| !self.family.absent.contains(&field.as_str());
            let fields = fields.into_iter().filter(|(field, _)| has(field));
            map.extend(fields.map(|(field, value)| (renamed(field), value)));
        }
        // `transformers` makes its embedding with it.
        match self.position_padding {
            Some(padding) => drop(map.insert("pad_token_id".into(), padding.into())),
            None => drop(map.entry("pad_token_id").or_insert(0.into())),
        }
        let ids = self.id2label.iter().map(|(&id, label)| (label.clone(), Value::from(id)));
        map.insert("label2id".into(), Value::Object(ids.collect()));
        // Both spellings of the field are in use; every version of `transformers` reads the older one.
        map.shift_remove("dtype");
        map.shift_remove("num_labels");
        let dtype = match self.dtype {
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            _ => "float32",
        };
        map.insert("torch_dtype".into(), dtype.into());
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

    /// The same model with these classes, of which each text has one.
    pub fn with_labels(mut self, names: &[String]) -> Self {
        self.id2label = names.iter().cloned().enumerate().collect();
        self.extra.shift_remove("problem_type");
        self
    }

    /// The longest sequence, in tokens.
    pub fn max_length(&self) -> usize {
        // What comes before position `padding + 1` is for no token of a text.
        let unused = self.position_padding.map_or(0, |padding| padding as usize + 1);
        self.max_position_embeddings.saturating_sub(unused)
    }

    /// What the family's file calls a field.
    fn name(&self, field: &'static str) -> &'static str {
        self.family.field(field).unwrap_or(field)
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
                field: self.name("hidden_act"),
                expected: "gelu, gelu_new, gelu_pytorch_tanh, relu or tanh".into(),
                got: printable(other),
            }),
        }
    }

    /// Refuses, by name, sizes that make no sense and settings that change the mathematics of the encoder.
    ///
    /// # Errors
    /// `Config`.
    pub fn check(&self) -> Result<()> {
        if let (None, Some(Value::Array(names))) =
            (present(&self.extra, "model_type"), self.extra.get("architectures"))
        {
            let is_bert = |name: &Value| name.as_str().is_none_or(|name| name.starts_with("Bert"));
            let got = self.extra.get("architectures").map(shown).unwrap_or_default();
            require(
                "architectures",
                names.iter().all(is_bert),
                || "a Bert, as there is no model_type".into(),
                got,
            )?;
        }
        for (field, got, most) in [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 16),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, self.hidden_size),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 16),
            ("type_vocab_size", self.type_vocab_size, 1 << 16),
        ] {
            require(self.name(field), (1..=most).contains(&got), || format!("1 to {most}"), got)?;
        }
        if let Some(padding) = self.position_padding {
            let fits = (padding as usize) < self.vocab_size && self.max_length() > 0;
            let expected = || "an id of the vocabulary, with positions left behind it".into();
            require("pad_token_id", fits, expected, padding)?;
        }
        let divides = self.hidden_size.is_multiple_of(self.num_attention_heads);
        let expected = || format!("a divisor of {} ({})", self.name("hidden_size"), self.hidden_size);
        require(self.name("num_attention_heads"), divides, expected, self.num_attention_heads)?;
        let fits = (0.0..=1.0).contains(&self.layer_norm_eps);
        require("layer_norm_eps", fits, || "0 to 1".into(), self.layer_norm_eps)?;
        self.activation()?;
        for (field, supported) in [
            ("position_embedding_type", Value::from("absolute")),
            ("is_decoder", false.into()),
            ("add_cross_attention", false.into()),
            ("is_encoder_decoder", false.into()),
            ("pruned_heads", Map::new().into()),
            ("quantization_config", Value::Null),
        ] {
            self.require_setting(field, &supported)?;
        }
        self.family.must_be_false.iter().try_for_each(|field| self.require_setting(field, &false.into()))
    }

    /// Refuses, by name, what a trained classifier of texts cannot have.
    ///
    /// # Errors
    /// `Config`.
    pub fn check_classifier(&self) -> Result<()> {
        let labels = self.num_labels();
        require("num_labels", (2..=MAX_LABELS).contains(&labels), || LABELS.into(), labels)?;
        let numbered = self.id2label.keys().copied().eq(0..labels);
        let got = || shown(self.extra.get("id2label").unwrap_or(&Value::Null));
        require("id2label", numbered, || "names under the keys 0, 1, 2, ...".into(), got())?;
        self.require_setting("problem_type", &"single_label_classification".into())
    }

    /// Refuses, by name, what a masked language model cannot have.
    ///
    /// # Errors
    /// `Config`.
    pub(crate) fn check_masked_lm(&self) -> Result<()> {
        self.require_setting("tie_word_embeddings", &true.into())
    }

    /// Refuses, by name, what only training uses: dropout, and the spread of new weights.
    ///
    /// # Errors
    /// `Config`.
    pub fn check_training(&self) -> Result<()> {
        let got = |field: &str, number: f64| match present(&self.extra, field) {
            Some(value) if number.is_nan() => shown(value),
            _ => number.to_string(),
        };
        for (field, number) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("classifier_dropout", self.classifier_dropout()),
        ] {
            let (field, expected) = (self.name(field), || "at least 0 and below 1".into());
            require(field, (0.0..1.0).contains(&number), expected, got(field, number))?;
        }
        let (field, number) = ("initializer_range", self.initializer_range);
        require(field, (0.0..=1.0).contains(&number), || "0 to 1".into(), got(field, number))
    }

    pub(crate) fn require_setting(&self, field: &'static str, supported: &Value) -> Result<()> {
        let Some(got) = present(&self.extra, field) else { return Ok(()) };
        require(field, got == supported, || supported.to_string(), shown(got))
    }
}

/// The most bytes of a `config.json`; one with 65,536 names of classes takes about 4 MiB.
const MAX_BYTES: u64 = 16 << 20;
/// The most encoder layers: dropout sites are 16-bit numbers, four to a layer.
const MAX_LAYERS: usize = 4096;
/// The most classes.
pub(crate) const MAX_LABELS: usize = 1 << 16;
/// What the number of classes must be.
pub(crate) const LABELS: &str = "2 to 65536 (1 is a regression)";
/// Characters of a field's value that are shown.
const MAX_SHOWN: usize = 80;
/// What errors call a config that is in no file.
const ORIGIN: &str = "config";

/// A field that is there and not null.
pub(crate) fn present<'a>(fields: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

/// A field that the computation uses, if the family has it.
fn used<'a, T: Deserialize<'a>>(
    fields: &'a Map<String, Value>,
    field: Option<&'static str>,
    default: T,
    expected: &str,
) -> Result<T> {
    let Some((field, value)) = field.and_then(|field| Some((field, present(fields, field)?))) else {
        return Ok(default);
    };
    match T::deserialize(value) {
        Ok(read) => Ok(read),
        Err(_) => {
            let (origin, expected, got) = (ORIGIN.into(), expected.into(), shown(value));
            Err(BertError::Config { origin, field, expected, got })
        }
    }
}

/// A field's value for a message, not too long.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => printable(&text[..end]) + "..",
        None => printable(&text),
    }
}

/// The same error about a config that is in a file.
pub(crate) fn at(path: &Path, error: BertError) -> BertError {
    match error {
        BertError::Config { field, expected, got, .. } => {
            BertError::Config { origin: path.display().to_string(), field, expected, got }
        }
        other => other,
    }
}

pub(crate) fn require(
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

    fn parse(text: &str) -> Result<ModelConfig> {
        ModelConfig::parse(text, Path::new(CONFIG_FILE))
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
            ("pruned_heads", r#"{"0": [1]}"#),
            ("quantization_config", r#"{"bits": 4}"#),
            ("hidden_act", r#""swish""#),
            ("hidden_act", "7"),
            ("model_type", r#""electra""#),
            ("architectures", r#"["RobertaModel"]"#),
            ("num_attention_heads", "5"),
            ("num_attention_heads", "0"),
            ("hidden_size", "0"),
            ("hidden_size", "64.0"),
            ("hidden_size", "\n\n\"wide\""),
            ("vocab_size", "99999999999"),
            ("vocab_size", "-1"),
            ("num_hidden_layers", "100000"),
            ("layer_norm_eps", "-1e-12"),
            ("layer_norm_eps", r#""small""#),
        ] {
            let message = parse(&format!("{{\"{field}\": {value}}}")).unwrap_err().to_string();
            assert!(message.contains(field) && !message.contains('\n'), "{field}: {message}");
            assert!(message.starts_with("config.json: "), "{field}: {message}");
        }
    }

    /// What a bare encoder, or one that is not trained, has no use for.
    #[test]
    fn what_is_not_used_is_checked_only_where_it_is() {
        for (field, value) in [
            ("problem_type", r#""regression""#),
            ("num_labels", "1"),
            ("num_labels", "99999999999999999999"),
            ("id2label", r#"{"1": "a", "2": "b"}"#),
            ("id2label", r#"{"zero": "a", "one": "b"}"#),
            ("id2label", r#"["a", "b"]"#),
            ("id2label", "{}"),
        ] {
            let config = parse(&format!("{{\"{field}\": {value}}}")).unwrap();
            let message = config.check_classifier().unwrap_err().to_string();
            assert!(message.contains(field) || message.contains("num_labels"), "{field}: {message}");
            config.with_labels(&["a", "b"].map(str::to_owned)).check_classifier().unwrap();
        }
        for (field, value) in [
            ("hidden_dropout_prob", "1.0"),
            ("attention_probs_dropout_prob", r#""low""#),
            ("classifier_dropout", "-0.5"),
            ("classifier_dropout", "[]"),
            ("initializer_range", r#""0.02""#),
        ] {
            let config = parse(&format!("{{\"{field}\": {value}}}")).unwrap();
            config.check_classifier().unwrap();
            let message = config.check_training().unwrap_err().to_string();
            assert!(message.contains(&format!("{field} = {}", value.trim_end_matches(".0"))), "{message}");
        }
        let config = parse(r#"{"tie_word_embeddings": false}"#).unwrap();
        config.check_classifier().unwrap();
        assert!(config.check_masked_lm().is_err());
        for unused in
            ["pad_token_id", "use_cache", "torch_dtype", "bos_token_id", "gradient_checkpointing", "label2id"]
        {
            for value in ["-1", "null", "\"x\"", "[]"] {
                parse(&format!("{{\"{unused}\": {value}}}")).unwrap().check_classifier().unwrap();
            }
        }
    }

    #[test]
    fn null_is_absent() {
        let mut fields = serde_json::to_value(ModelConfig::default()).unwrap();
        for value in fields.as_object_mut().unwrap().values_mut() {
            *value = Value::Null;
        }
        for more in ["problem_type", "architectures", "label2id", "num_labels", "pruned_heads", "is_decoder"]
        {
            fields[more] = Value::Null;
        }
        let mut config = parse(&fields.to_string()).unwrap();
        config.check_classifier().unwrap();
        config.check_training().unwrap();
        config.extra.clear();
        assert_eq!(config, ModelConfig::default());
    }

    #[test]
    fn the_classes_are_those_that_fit_the_weights() {
        for (text, rows, expected) in [
            ("{}", 3, Some(["LABEL_0", "LABEL_2"])),
            (r#"{"num_labels": 3}"#, 3, Some(["LABEL_0", "LABEL_2"])),
            (r#"{"num_labels": 3}"#, 2, None),
            (r#"{"id2label": {"0": "n", "1": "p"}}"#, 2, Some(["n", "p"])),
            (r#"{"id2label": {"1": "p", "0": "n"}}"#, 2, Some(["n", "p"])),
            (r#"{"id2label": {"0": "n", "1": "p"}}"#, 3, None),
            (r#"{"id2label": {"0": "n", "1": "p"}, "num_labels": 3}"#, 2, Some(["n", "p"])),
            (r#"{"id2label": {"0": "n", "1": "p"}, "num_labels": 3}"#, 3, Some(["LABEL_0", "LABEL_2"])),
            (r#"{"id2label": {"0": 1, "1": 2}}"#, 2, Some(["1", "2"])),
            (r#"{"label2id": {"p": 1, "n": 0}}"#, 2, Some(["n", "p"])),
            (r#"{"label2id": {"p": 1, "n": 1}}"#, 2, Some(["LABEL_0", "LABEL_1"])),
            (r#"{"id2label": {"0": "n", "2": "p"}}"#, 2, None),
            (r#"{"problem_type": "regression"}"#, 2, None),
            ("{}", 1, None),
            ("{}", 1 << 40, None),
        ] {
            let classes = parse(text).unwrap().classes(rows);
            let ends =
                classes.as_ref().ok().map(|names| [names[0].as_str(), names[names.len() - 1].as_str()]);
            assert_eq!(ends, expected, "{text} with {rows} rows: {classes:?}");
        }
        let notes = |text: &str| parse(text).unwrap().notes();
        let swapped = r#"{"id2label": {"0": "n", "1": "p"}, "label2id": {"p": 0, "n": 1}}"#;
        assert!(notes(swapped)[0].contains("number \"n\" differently; id2label counts"));
        assert!(
            notes(r#"{"id2label": {"0": "n", "1": "p"}, "num_labels": 3}"#)[0].contains("num_labels is 3")
        );
        assert!(
            notes(r#"{"id2label": {"0": "n", "1": "p"}, "label2id": {"p": 1, "n": 0}, "num_labels": 2}"#)
                .is_empty()
        );
    }

    #[test]
    fn what_is_no_config_is_said() {
        let message = parse(r#"{"error": "Repository not found"}"#).unwrap_err().to_string();
        assert!(message.contains("download failed: \"Repository not found\""), "{message}");
        let long = format!(r#"{{"hidden_size": "{}\u001b[31m"}}"#, "x".repeat(1000));
        let message = parse(&long).unwrap_err().to_string();
        assert!(message.len() < 250 && !message.contains('\u{1b}'), "{message}");
        let message = parse("{\n  \"hidden_size\": 64,\n}").unwrap_err().to_string();
        assert!(message.contains("config.json") && message.contains("line 3"), "{message}");
    }
}
