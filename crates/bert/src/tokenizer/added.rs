//! Added tokens, which are looked for in a text before words are, and the special tokens by name.

use super::Kind;
use super::read::{Object, Sources, shorten};
use crate::{BertError, Result};
use serde_json::{Map, Value, json};

/// A token that is looked for before words are.
#[derive(Clone)]
pub(super) struct Added {
    pub content: String,
    /// The id that the file gives it, and the file.
    pub declared: Option<(u64, String)>,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

impl Added {
    fn special(content: &str) -> Self {
        Added {
            content: content.to_owned(),
            declared: None,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: true,
        }
    }

    /// A token as a string, or as an object with its `content` and flags.
    fn parse(value: &Value, special: bool, object: &Object, field: &str) -> Result<Self> {
        let refuse = || BertError::TokenizerSetting {
            path: object.origin.clone(),
            field: field.to_owned(),
            expected: "a token: a string, or an object with its content and flags".into(),
            got: shorten(&value.to_string()),
        };
        if let Some(content) = value.as_str() {
            return Ok(Added { special, normalized: !special, ..Added::special(content) });
        }
        let flag = |name: &str| match value.get(name) {
            None => Ok(None),
            Some(value) => value.as_bool().map(Some).ok_or_else(refuse),
        };
        let content = value.get("content").and_then(Value::as_str).ok_or_else(refuse)?;
        let special = flag("special")?.unwrap_or(false) || special;
        Ok(Added {
            content: content.to_owned(),
            declared: None,
            single_word: flag("single_word")?.unwrap_or(false),
            lstrip: flag("lstrip")?.unwrap_or(false),
            rstrip: flag("rstrip")?.unwrap_or(false),
            normalized: flag("normalized")?.unwrap_or(!special),
            special,
        })
    }

    pub fn to_json(&self, id: u32) -> Value {
        json!({
            "id": id, "content": self.content, "single_word": self.single_word, "lstrip": self.lstrip,
            "rstrip": self.rstrip, "normalized": self.normalized, "special": self.special,
        })
    }
}

/// Added tokens in the order in which they get ids.
#[derive(Default)]
pub(super) struct AddedTokens(pub Vec<Added>);

impl AddedTokens {
    pub fn has(&self, content: &str) -> bool {
        self.0.iter().any(|token| token.content == content)
    }

    /// A later definition of a token replaces its flags.
    pub fn push(&mut self, token: Added) {
        match self.0.iter_mut().find(|known| known.content == token.content) {
            Some(known) => {
                let declared = token.declared.clone().or_else(|| known.declared.take());
                *known = Added { declared, ..token };
            }
            None => self.0.push(token),
        }
    }
}

/// The special tokens, by name.
#[derive(Default)]
pub(super) struct Names {
    pub unk: Option<String>,
    pub cls: Option<String>,
    pub sep: Option<String>,
    pub pad: Option<String>,
    pub mask: Option<String>,
    /// Those that the vocabulary lacks.
    pub lost: Vec<String>,
}

impl Names {
    fn set(&mut self, field: &str, content: String) {
        match field {
            "unk_token" => self.unk = Some(content),
            "cls_token" => self.cls = Some(content),
            "sep_token" => self.sep = Some(content),
            "pad_token" => self.pad = Some(content),
            "mask_token" => self.mask = Some(content),
            _ => (),
        }
    }
}

impl Sources {
    /// Appends the added tokens that the files beside `tokenizer.json` define, and finds the special ones by name.
    pub fn add_tokens(
        &self,
        config: &Object,
        kind: Kind,
        is_built: bool,
        vocabulary: &Map<String, Value>,
        added: &mut AddedTokens,
        names: &mut Names,
    ) -> Result<()> {
        let decoder = config.map.get("added_tokens_decoder");
        // As in transformers, the older files count only without this setting.
        let special = self.special.as_ref().filter(|_| decoder.is_none());
        let setting = |field: &str| {
            special
                .and_then(|object| Some((object, object.map.get(field)?)))
                .or_else(|| Some((config, config.map.get(field)?)))
        };
        let mut additional = AddedTokens::default();
        let mut add = |object: &Object, field: &str| -> Result<()> {
            let tokens: Vec<&Value> = match object.map.get(field) {
                None | Some(Value::Null) => return Ok(()),
                Some(Value::Array(tokens)) => tokens.iter().collect(),
                Some(Value::Object(tokens)) if field == "extra_special_tokens" => tokens.values().collect(),
                Some(_) => return Err(object.refuse(field, "a list of tokens")),
            };
            for token in tokens {
                additional.push(Added::parse(token, true, object, field)?);
            }
            Ok(())
        };
        add(config, "extra_special_tokens")?;
        if config.map.get("extra_special_tokens").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            add(config, "additional_special_tokens")?;
        }
        if let Some(special) = special {
            add(special, "extra_special_tokens")?;
            let field = "additional_special_tokens";
            if additional.0.is_empty() {
                let mut of_map = AddedTokens::default();
                if let Some(tokens) = special.map.get(field).filter(|tokens| !tokens.is_null()) {
                    let tokens =
                        tokens.as_array().ok_or_else(|| special.refuse(field, "a list of tokens"))?;
                    for token in tokens {
                        of_map.push(Added::parse(token, true, special, field)?);
                    }
                }
                additional = of_map;
            }
        }
        let mut named = Vec::new();
        for &(field, default) in kind.named() {
            let token = match setting(field) {
                Some((_, Value::Null)) => None,
                Some((object, value)) => Some(Added::parse(value, true, object, field)?),
                None => default.filter(|_| is_built).map(Added::special),
            };
            named.extend(token.map(|token| (field, token)));
        }
        for (field, value) in &config.map {
            let is_named = kind.named().iter().any(|(name, _)| name == field);
            if let (true, false, Some(content)) = (field.ends_with("_token"), is_named, value.as_str()) {
                additional.push(Added::special(content));
            }
        }

        match decoder {
            Some(tokens) => {
                let field = "added_tokens_decoder";
                let tokens =
                    tokens.as_object().ok_or_else(|| config.refuse(field, "an object of ids and tokens"))?;
                let mut sorted = Vec::new();
                for (id, token) in tokens {
                    let field = format!("{field}[{}]", shorten(id));
                    let number = id.parse::<u64>().ok().filter(|_| token.is_object());
                    let number = number.ok_or_else(|| BertError::TokenizerSetting {
                        path: config.origin.clone(),
                        field: field.clone(),
                        expected: "an object with a token's content and flags, by its id".into(),
                        got: shorten(&token.to_string()),
                    })?;
                    let token = Added::parse(token, false, config, &field)?;
                    sorted.push((number, Added { declared: Some((number, config.origin.clone())), ..token }));
                }
                sorted.sort_by_key(|(id, _)| *id);
                sorted.into_iter().for_each(|(_, token)| added.push(token));
            }
            None => {
                let mut sorted = Vec::new();
                if let Some(file) = &self.added {
                    for (content, id) in &file.map {
                        let id = id.as_u64().ok_or_else(|| file.refuse(content, "an id"))?;
                        let special = named.iter().any(|(_, token)| token.content == *content)
                            || additional.has(content);
                        let declared = Some((id, file.origin.clone()));
                        let token =
                            Added { declared, special, normalized: !special, ..Added::special(content) };
                        sorted.push((id, token));
                    }
                }
                if let Some(file) = &self.tokenizer {
                    for token in list(file)? {
                        let id = token.declared.as_ref().map_or(0, |(id, _)| *id);
                        sorted.retain(|(other, _)| *other != id);
                        sorted.push((id, token));
                    }
                }
                sorted.sort_by_key(|(id, _)| *id);
                sorted.into_iter().for_each(|(_, token)| added.push(token));
            }
        }
        for (field, token) in named {
            let content = token.content.clone();
            if let Some(known) = added.0.iter_mut().find(|known| known.content == content) {
                known.special = true;
            } else if vocabulary.contains_key(&content) {
                added.push(token);
            } else {
                names.lost.push(content.clone());
            }
            names.set(field, content);
        }
        for token in additional.0 {
            if !added.has(&token.content) {
                added.push(token);
            }
        }
        added.0.retain(|token| !token.content.is_empty());
        Ok(())
    }
}

/// The added tokens of a `tokenizer.json`.
pub(super) fn list(file: &Object) -> Result<Vec<Added>> {
    let field = "added_tokens";
    let tokens = match file.map.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(tokens) => tokens.as_array().ok_or_else(|| file.refuse(field, "a list of tokens"))?,
    };
    let parse = |token: &Value| {
        let id = token.get("id").and_then(Value::as_u64).filter(|_| token.is_object());
        let id = id.ok_or_else(|| file.refuse(field, "tokens with their ids"))?;
        Ok(Added { declared: Some((id, file.origin.clone())), ..Added::parse(token, false, file, field)? })
    };
    tokens.iter().map(parse).collect()
}
