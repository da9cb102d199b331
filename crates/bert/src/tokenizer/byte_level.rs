//! Byte-level BPE, as `RobertaTokenizer` of `transformers` builds it: a text's bytes as characters, merged by rank. Nothing is
//! normalised, and no text is unknown. Mirrors `transformers/models/roberta/tokenization_roberta.py`.

use super::added::Names;
use super::describe::{Kind, Vocabulary, lacks};
use super::read::{Object, Sources, shorten};
use super::{MERGES_FILE, VOCABULARY_JSON_FILE};
use crate::{BertError, Result};
use serde_json::{Map, Value, json};

/// The special tokens by name, with `RobertaTokenizer`'s defaults.
pub(super) const NAMED: [(&str, Option<&str>); 7] = [
    ("unk_token", Some("<unk>")),
    ("cls_token", Some("<s>")),
    ("sep_token", Some("</s>")),
    ("pad_token", Some("<pad>")),
    ("mask_token", Some("<mask>")),
    ("bos_token", Some("<s>")),
    ("eos_token", Some("</s>")),
];

/// The most merges that are read: twenty times RoBERTa's.
const MOST_MERGES: usize = 1 << 20;

impl Sources {
    /// The vocabulary and merges of `vocab.json` and `merges.txt`; none where one of them is missing.
    ///
    /// # Errors
    /// `Tokenizer` for a line of `merges.txt` that is not two tokens, and for too many lines.
    pub fn byte_level(&self) -> Result<Option<Vocabulary>> {
        let (Some(vocabulary), Some((origin, text))) = (&self.vocabulary_json, &self.merges) else {
            return Ok(None);
        };
        let mut merges = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.starts_with("#version") || line.is_empty() {
                continue;
            }
            let refuse =
                |message: String| BertError::Tokenizer { path: origin.clone(), source: message.into() };
            let Some((first, second)) = line.split_once(' ').filter(|(_, second)| !second.contains(' '))
            else {
                return Err(refuse(format!("line {}: {:?} is not two tokens", number + 1, shorten(line))));
            };
            if merges.len() == MOST_MERGES {
                return Err(refuse(format!("it has more than {MOST_MERGES} merges, the most that are read")));
            }
            merges.push(json!([first, second]));
        }
        let Object { origin, map: tokens } = vocabulary.clone();
        Ok(Some(Vocabulary { kind: Kind::ByteLevel, origin, tokens, merges: merges.into() }))
    }
}

/// What is lacking where a `RobertaTokenizer` has no vocabulary.
pub(super) fn expected() -> String {
    format!("a class whose files are there: RobertaTokenizer needs {VOCABULARY_JSON_FILE} and {MERGES_FILE}")
}

/// What `RobertaTokenizer` builds.
///
/// # Errors
/// `Tokenizer` where the vocabulary lacks a special token; `TokenizerSetting` for a flag that is none.
pub(super) fn build(
    config: &Object,
    vocabulary: &Map<String, Value>,
    merges: &Value,
    names: &Names,
    has: &dyn Fn(&str) -> bool,
    origin: &str,
) -> Result<Value> {
    let missing: Vec<&str> = [("<s>", &names.cls), ("</s>", &names.sep)]
        .iter()
        .filter(|(_, name)| name.as_ref().is_none_or(|token| !has(token)))
        .map(|(default, name)| name.as_deref().unwrap_or(default))
        .collect();
    let (Some(cls), Some(sep), []) = (&names.cls, &names.sep, &missing[..]) else {
        return Err(lacks(origin, &missing));
    };
    let add_prefix_space = config.flag("add_prefix_space")?.unwrap_or(false);
    let trim_offsets = config.flag("trim_offsets")?.unwrap_or(true);
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": true,
        },
        "post_processor": {
            "type": "RobertaProcessing", "sep": [sep, 0], "cls": [cls, 0], "trim_offsets": trim_offsets,
            "add_prefix_space": add_prefix_space,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    }))
}

/// Whether a `tokenizer.json` is what [`build`] makes for some settings; then these, under their names in
/// `tokenizer_config.json`.
pub(super) fn settings(description: &Value) -> Option<[(&'static str, Value); 2]> {
    let (before, after) = (&description["pre_tokenizer"], &description["post_processor"]);
    let model = &description["model"];
    let empty = |value: &Value| value.is_null() || value == "";
    let is_built = description["normalizer"].is_null()
        && before["type"] == "ByteLevel"
        && before["use_regex"] != false
        && after["type"] == "RobertaProcessing"
        && after["add_prefix_space"] == before["add_prefix_space"]
        && model["type"] == "BPE"
        && ["dropout", "unk_token"].iter().all(|field| model[*field].is_null())
        && ["continuing_subword_prefix", "end_of_word_suffix"].iter().all(|field| empty(&model[*field]))
        && ["fuse_unk", "byte_fallback", "ignore_merges"].iter().all(|field| model[*field] != true);
    is_built.then(|| {
        [
            ("add_prefix_space", before["add_prefix_space"].clone()),
            ("trim_offsets", after["trim_offsets"].clone()),
        ]
    })
}
