//! What is saved: the tokenizer as it is used, said once in each file, so that `AutoTokenizer` and the bare `tokenizers`
//! library read the same from any of them.

use super::describe::{Effective, Kind, lacks, to_lines};
use super::{
    SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, Tokenizer, VOCABULARY_FILE, byte_level,
    truncation,
};
use crate::{BertError, ModelConfig, Result};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use tokenizers::Tokenizer as Inner;

/// Settings of `tokenizer_config.json` that are said elsewhere, or were meant for one run on one machine.
const DROPPED: [&str; 13] = [
    "added_tokens_decoder",
    "additional_special_tokens",
    "extra_special_tokens",
    "max_length",
    "name_or_path",
    "pad_to_multiple_of",
    "special_tokens_map_file",
    "stride",
    "tokenizer_file",
    truncation::SIDE,
    truncation::OWN,
    "truncation_strategy",
    "vocab_file",
];

/// The class that is whatever `tokenizer.json` says.
const FILE_CLASS: &str = "PreTrainedTokenizerFast";

/// The files of a tokenizer.
pub(super) struct Saved {
    /// The kind whose class builds what `tokenizer.json` says; none if only that says it.
    pub built: Option<Kind>,
    /// `tokenizer.json`.
    description: String,
    vocabulary: Option<String>,
    /// The special tokens by the names of their parts, such as `cls_token`.
    pub special: Map<String, Value>,
    /// All of `tokenizer_config.json` but its `model_max_length`.
    pub config: Map<String, Value>,
    pub max_length: Option<usize>,
}

impl Effective {
    /// The ids of the added tokens, in their order.
    ///
    /// # Errors
    /// `Tokenizer` for a token that cannot keep the id that its file gives it.
    pub fn ids(&mut self, inner: &Inner) -> Result<Vec<u32>> {
        let vocabulary = self.description["model"]["vocab"].as_object();
        let own = |content: &str| vocabulary.and_then(|vocabulary| vocabulary.get(content)?.as_u64());
        let (mut ids, mut others) = (Vec::new(), Vec::new());
        for token in &self.added.0 {
            let content = &token.content;
            let id = inner.token_to_id(content).ok_or_else(|| lacks(&self.origin, &[content]))?;
            ids.push(id);
            match (&token.declared, own(content)) {
                (Some((declared, origin)), Some(own)) if *declared != own => {
                    others.push((origin, content, *declared, own));
                }
                (Some((declared, origin)), None) if *declared != u64::from(id) => {
                    let source = format!(
                        "the added token {content:?} has the id {declared} there, but transformers and tokenizers number \
                         added tokens from the end of the vocabulary, and it gets {id}"
                    );
                    return Err(BertError::Tokenizer { path: origin.clone(), source: source.into() });
                }
                _ => (),
            }
            if own(content).is_none()
                && let Some((other, _)) =
                    vocabulary.into_iter().flatten().find(|(_, other)| other.as_u64() == Some(id.into()))
            {
                let source = format!(
                    "the added token {content:?} gets the id {id}, which {other:?} has already: the ids of the vocabulary \
                     have gaps"
                );
                return Err(BertError::Tokenizer { path: self.origin.clone(), source: source.into() });
            }
        }
        if let Some((origin, content, declared, own)) = others.first() {
            self.notes.push(format!(
                "{origin}: {} added tokens have other ids than in the vocabulary ({content}: {declared}, not {own}); the \
                 vocabulary counts, as in transformers",
                others.len()
            ));
        }
        Ok(ids)
    }
}

impl Saved {
    pub fn new(effective: Effective, inner: &Inner, cls: u32, sep: u32) -> Self {
        let Effective { kind, description, config, unk, pad, mask, max_length, .. } = effective;
        let vocabulary = description["model"]["vocab"].as_object().filter(|_| kind == Kind::WordPiece);
        let vocabulary = vocabulary.and_then(to_lines);
        let token = |id| Value::from(inner.id_to_token(id));
        let mut special = Map::new();
        special.insert("cls_token".into(), token(cls));
        special.insert("mask_token".into(), mask.into());
        special.insert("pad_token".into(), pad.into());
        special.insert("sep_token".into(), token(sep));
        special.insert("unk_token".into(), unk.into());

        let mut saved = config.map;
        DROPPED.iter().for_each(|field| drop(saved.shift_remove(*field)));
        saved.extend(special.clone());
        let added = description["added_tokens"].as_array().cloned().unwrap_or_default();
        let named: Vec<&Value> = special.values().collect();
        let additional: Vec<&Value> = added
            .iter()
            .filter(|token| token["special"] == true && !named.contains(&&token["content"]))
            .map(|token| &token["content"])
            .collect();
        if !additional.is_empty() {
            saved.insert("additional_special_tokens".into(), json!(additional));
        }
        let decoder = added.iter().map(|token| {
            let mut token = token.clone();
            let id = token.as_object_mut().and_then(|token| token.shift_remove("id")).unwrap_or_default();
            (id.to_string(), token)
        });
        saved.insert("added_tokens_decoder".into(), Value::Object(decoder.collect()));
        // Without a null, transformers would append a default such as [MASK] to the vocabulary. The old file has no nulls.
        special.retain(|_, token| !token.is_null());

        let normalizer = &description["normalizer"];
        let settings = [
            ("do_lower_case", &normalizer["lowercase"]),
            ("strip_accents", &normalizer["strip_accents"]),
            ("tokenize_chinese_chars", &normalizer["handle_chinese_chars"]),
        ];
        let model = &description["model"];
        let is_bert = normalizer["type"] == "BertNormalizer"
            && normalizer["clean_text"] == true
            && description["pre_tokenizer"]["type"] == "BertPreTokenizer"
            && model["continuing_subword_prefix"] == "##"
            && model["max_input_chars_per_word"] == 100;
        for (setting, value) in settings {
            saved.shift_remove(setting);
            if normalizer["type"] == "BertNormalizer" {
                saved.insert(setting.into(), value.clone());
            }
        }
        let byte_level = byte_level::settings(&description);
        saved.extend(byte_level.clone().into_iter().flatten().map(|(name, value)| (name.to_owned(), value)));
        let built = if is_bert { Some(Kind::WordPiece) } else { byte_level.map(|_| Kind::ByteLevel) };
        saved.insert("tokenizer_class".into(), FILE_CLASS.into());
        saved.shift_remove("auto_map");
        Saved {
            built,
            description: format!("{description:#}\n"),
            vocabulary,
            special,
            config: saved,
            max_length,
        }
    }
}

impl Saved {
    /// `tokenizer.json`.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The token that stands for a hidden one.
    pub fn mask(&self) -> Option<&str> {
        self.special.get("mask_token")?.as_str()
    }
}

impl Tokenizer {
    /// The files that let `AutoTokenizer.from_pretrained` and `tokenizers.Tokenizer.from_file` build this tokenizer, beside a
    /// model of this config. There is no `vocab.txt` where its lines could not hold a token.
    pub fn files(&self, model: &ModelConfig) -> Vec<(&'static str, Cow<'_, str>)> {
        let positions = model.max_length();
        let saved = &self.saved;
        let mut config = saved.config.clone();
        let max_length = saved.max_length.map_or(positions, |length| length.min(positions));
        config.insert("model_max_length".into(), max_length.into());
        self.truncation.write(&mut config);
        if let Some(kind) = saved.built {
            config.insert("tokenizer_class".into(), model.family.tokenizer.class(kind).into());
        }
        let mut files = vec![
            (TOKENIZER_FILE, Cow::from(&saved.description)),
            (TOKENIZER_CONFIG_FILE, format!("{:#}\n", Value::Object(config)).into()),
            (SPECIAL_TOKENS_FILE, format!("{:#}\n", Value::Object(saved.special.clone())).into()),
        ];
        files.extend(saved.vocabulary.as_ref().map(|text| (VOCABULARY_FILE, Cow::from(text))));
        files
    }
}
