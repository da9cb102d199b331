//! From the files of a folder to the one `tokenizer.json` that does what they say, by the rules of `transformers` 5:
//!
//! - `tokenizer_class` decides. `BertTokenizer` (the default, and the classes with the same WordPiece) takes the vocabulary of
//!   `tokenizer.json`, else of `vocab.txt`, and builds the rest from `tokenizer_config.json` and its own defaults.
//!   `PreTrainedTokenizerFast` takes `tokenizer.json` as it is. Other classes are refused.
//! - Without a `tokenizer_config.json`, a `tokenizer.json` is all that the checkpoint says, and is taken as it is.
//! - Added tokens are `added_tokens_decoder` of `tokenizer_config.json`; without it, those of `added_tokens.json`,
//!   `tokenizer.json` and `special_tokens_map.json`. Then come the special tokens by name, and the additional ones.

use super::read::{Object, Sources, shorten};
use super::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use crate::{BertError, Result};
use serde_json::{Map, Value, json};

/// Classes of `transformers` that are BERT's WordPiece, without the `Fast` at the end of some.
const BERT_CLASSES: [&str; 7] = [
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
];
/// Classes that are whatever `tokenizer.json` says.
const FILE_CLASSES: [&str; 3] = ["PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"];

/// The special tokens that `transformers` knows by name, with `BertTokenizer`'s defaults.
const NAMED: [(&str, Option<&str>); 7] = [
    ("unk_token", Some("[UNK]")),
    ("cls_token", Some("[CLS]")),
    ("sep_token", Some("[SEP]")),
    ("pad_token", Some("[PAD]")),
    ("mask_token", Some("[MASK]")),
    ("bos_token", None),
    ("eos_token", None),
];

/// A limit that is larger than this is none: `transformers` writes 1e30 where it knows none.
const NO_LIMIT: f64 = 1e9;

/// The most ids: no config has a larger vocabulary.
const MOST_IDS: u64 = 1 << 24;

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
    fn has(&self, content: &str) -> bool {
        self.0.iter().any(|token| token.content == content)
    }

    /// A later definition of a token replaces its flags.
    fn push(&mut self, token: Added) {
        match self.0.iter_mut().find(|known| known.content == token.content) {
            Some(known) => {
                let declared = token.declared.clone().or_else(|| known.declared.take());
                *known = Added { declared, ..token };
            }
            None => self.0.push(token),
        }
    }
}

/// The tokenizer that the files describe together.
pub(super) struct Effective {
    /// A `tokenizer.json` without its added tokens.
    pub description: Value,
    pub added: AddedTokens,
    /// Whether ids have to be filled in where the description names `[CLS]` and `[SEP]`.
    pub without_ids: bool,
    /// The file that is named when the tokenizer cannot be built.
    pub origin: String,
    /// `tokenizer_config.json` as it was read.
    pub config: Object,
    /// Special tokens that Vitrine has no use for, by name; none where the vocabulary lacks it.
    pub pad: Option<String>,
    pub mask: Option<String>,
    /// The longest text in tokens, if the files say.
    pub max_length: Option<usize>,
    pub notes: Vec<String>,
    /// What is parsed by the `tokenizers` crate although nothing is taken from it, as `transformers` does.
    pub unused: Option<Value>,
}

impl Sources {
    /// What the files say together.
    pub fn effective(self) -> Result<Effective> {
        let config = self
            .config
            .clone()
            .unwrap_or_else(|| Object { origin: TOKENIZER_CONFIG_FILE.into(), map: Map::new() });
        let max_length = check(&config)?;
        let class = match config.string("tokenizer_class")? {
            Some(class) => Some((class, &config.origin)),
            None => self.class.as_deref().map(|class| (class, &config.origin)),
        };
        let is_built = match class {
            None => self.config.is_some() || self.tokenizer.is_none(),
            Some((class, origin)) => self.is_built(class, origin)?,
        };
        let mut notes = Vec::new();
        let (origin, vocabulary) = self.vocabulary(&mut notes)?;
        let mut added = AddedTokens::default();
        let mut names = Names::default();
        if let (false, Some(file)) = (is_built, &self.tokenizer) {
            for token in list(file)? {
                added.push(token);
            }
        }
        self.add_tokens(&config, is_built, &vocabulary, &mut added, &mut names)?;
        if is_built && !names.lost.is_empty() {
            let origin = &config.origin;
            notes.push(format!("{origin}: {} not in the vocabulary, read as text", names.lost.join(" and ")));
        }
        let has = |content: &str| vocabulary.contains_key(content) || added.has(content);
        let mut without_ids = is_built;
        let (description, unused) = if is_built {
            let description = build(&config, &vocabulary, &names, &has, &origin)?;
            if let Some(file) = &self.tokenizer {
                differences(file, &description, &config, &mut notes);
            }
            // What else the file says has to make sense, as it has to for transformers.
            let unused = self.tokenizer.as_ref().map(|file| {
                let mut unused = Value::Object(file.map.clone());
                unused["model"]["vocab"] = json!({});
                unused["added_tokens"] = json!([]);
                unused
            });
            (description, unused)
        } else {
            let mut description = Value::Object(self.tokenizer.map(|file| file.map).unwrap_or_default());
            without_ids = as_it_is(&mut description, &config, class.is_some(), &has, &mut notes);
            (description, None)
        };
        let name = |name: &Option<String>, default: &str| {
            name.clone().or_else(|| (!is_built).then(|| default.to_owned())).filter(|token| has(token))
        };
        let (pad, mask) = (name(&names.pad, "[PAD]"), name(&names.mask, "[MASK]"));
        Ok(Effective {
            description,
            added,
            without_ids,
            origin,
            config,
            pad,
            mask,
            max_length,
            notes,
            unused,
        })
    }

    /// Whether a class builds its tokenizer, rather than take `tokenizer.json` as it is.
    fn is_built(&self, class: &str, origin: &str) -> Result<bool> {
        let refuse = |expected: &str| BertError::TokenizerSetting {
            path: origin.to_owned(),
            field: "tokenizer_class".into(),
            expected: expected.into(),
            got: shorten(class),
        };
        if BERT_CLASSES.contains(&class.strip_suffix("Fast").unwrap_or(class)) {
            return Ok(true);
        }
        if !FILE_CLASSES.contains(&class) {
            return Err(refuse("BertTokenizer or another class of the same WordPiece"));
        }
        if self.tokenizer.is_none() {
            return Err(refuse("BertTokenizer, as there is no tokenizer.json"));
        }
        Ok(false)
    }

    /// The tokens of the model with their ids, and the file that they are from.
    fn vocabulary(&self, notes: &mut Vec<String>) -> Result<(String, Map<String, Value>)> {
        let lines = self.vocabulary.as_ref().map(|(origin, text)| (origin, lines(text)));
        let Some(file) = &self.tokenizer else {
            return Ok(lines.map_or_else(Default::default, |(origin, lines)| (origin.clone(), lines)));
        };
        let model = file.map.get("model").unwrap_or(&Value::Null);
        let refuse = |field: &str, got: &Value, expected: &str| BertError::TokenizerSetting {
            path: file.origin.clone(),
            field: format!("model{field}"),
            expected: expected.into(),
            got: shorten(&got.to_string()),
        };
        let named = match model.get("type") {
            Some(name) => name == "WordPiece",
            // Old files do not name the type. No other has this field.
            None => model.get("max_input_chars_per_word").is_some(),
        };
        if !named {
            let got = model.get("type").unwrap_or(&Value::Null);
            return Err(refuse(".type", got, "WordPiece, as BERT's tokenizer has it"));
        }
        let vocabulary = model.get("vocab").and_then(Value::as_object);
        let vocabulary =
            vocabulary.ok_or_else(|| refuse(".vocab", &Value::Null, "an object of tokens and their ids"))?;
        if let Some((token, id)) =
            vocabulary.iter().find(|(_, id)| id.as_u64().is_none_or(|id| id >= MOST_IDS))
        {
            let field = format!(".vocab[{}]", shorten(&format!("{token:?}")));
            return Err(refuse(&field, id, &format!("an id from 0 to {}", MOST_IDS - 1)));
        }
        if let Some((origin, lines)) = lines {
            let added = file.map.get("added_tokens").and_then(Value::as_array);
            let is_added = |token: &str| added.into_iter().flatten().any(|added| added["content"] == token);
            let others = lines
                .iter()
                .filter(|(token, id)| vocabulary.get(*token) != Some(*id) && !is_added(token))
                .chain(
                    vocabulary.iter().filter(|(token, _)| !token.is_empty() && !lines.contains_key(*token)),
                );
            let count = others.count();
            if count > 0 {
                notes.push(format!(
                    "{origin}: {count} tokens differ from {TOKENIZER_FILE}, which counts, as in transformers"
                ));
            }
        }
        Ok((file.origin.clone(), vocabulary.clone()))
    }

    /// Appends the added tokens that the files beside `tokenizer.json` define, and finds the special ones by name.
    fn add_tokens(
        &self,
        config: &Object,
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
        for (field, default) in NAMED {
            let token = match setting(field) {
                Some((_, Value::Null)) => None,
                Some((object, value)) => Some(Added::parse(value, true, object, field)?),
                None => default.filter(|_| is_built).map(Added::special),
            };
            named.extend(token.map(|token| (field, token)));
        }
        for (field, value) in &config.map {
            let is_named = NAMED.iter().any(|(name, _)| name == field);
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

/// The special tokens, by name.
#[derive(Default)]
struct Names {
    unk: Option<String>,
    cls: Option<String>,
    sep: Option<String>,
    pad: Option<String>,
    mask: Option<String>,
    /// Those that the vocabulary lacks.
    lost: Vec<String>,
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

/// Refuses settings of the wrong type, and those that are not followed here. Returns the longest text in tokens, if it is said.
fn check(config: &Object) -> Result<Option<usize>> {
    config.flag("do_lower_case")?;
    config.flag("tokenize_chinese_chars")?;
    if !config.map.get("strip_accents").is_none_or(Value::is_null) {
        config.flag("strip_accents")?;
    }
    if config.flag("split_special_tokens")? == Some(true) {
        return Err(config.refuse("split_special_tokens", "false"));
    }
    if config.string("truncation_side")?.is_some_and(|side| side != "right") {
        return Err(config.refuse("truncation_side", "right, as the end of a long text is cut off"));
    }
    let limit = match config.map.get("model_max_length") {
        None | Some(Value::Null) => return Ok(None),
        Some(limit) => limit.as_f64().filter(|limit| *limit >= super::MIN_LENGTH as f64),
    };
    let limit = limit.filter(|limit| limit.fract() == 0.0).ok_or_else(|| {
        config.refuse("model_max_length", format!("a whole number of tokens, at least {}", super::MIN_LENGTH))
    })?;
    Ok((limit < NO_LIMIT).then_some(limit as usize))
}

/// The tokens of a `vocab.txt`, whose line numbers are ids, from 0. As in the `tokenizers` crate, white space at the end of a
/// line is no part of the token, and of a token that is there twice the last line counts. A blank line has a number and no
/// token.
fn lines(text: &str) -> Map<String, Value> {
    let lines = text.lines().map(str::trim_end).enumerate();
    lines.filter(|(_, token)| !token.is_empty()).map(|(id, token)| (token.to_owned(), id.into())).collect()
}

/// The added tokens of a `tokenizer.json`.
fn list(file: &Object) -> Result<Vec<Added>> {
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

/// What `BertTokenizer` builds.
fn build(
    config: &Object,
    vocabulary: &Map<String, Value>,
    names: &Names,
    has: &dyn Fn(&str) -> bool,
    origin: &str,
) -> Result<Value> {
    let wanted = [("[UNK]", &names.unk), ("[CLS]", &names.cls), ("[SEP]", &names.sep)];
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(_, name)| name.as_ref().is_none_or(|token| !has(token)))
        .map(|(default, name)| name.as_deref().unwrap_or(default))
        .collect();
    let (Some(unk), Some(cls), Some(sep), []) = (&names.unk, &names.cls, &names.sep, &missing[..]) else {
        return Err(lacks(origin, &missing));
    };
    if !vocabulary.contains_key(unk) {
        return Err(lacks(origin, &[unk]));
    }
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": config.flag("tokenize_chinese_chars")?.unwrap_or(true),
            "strip_accents": config.map.get("strip_accents"),
            "lowercase": config.flag("do_lower_case")?.unwrap_or(true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": post_processor(cls, sep),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    }))
}

pub(super) fn lacks(origin: &str, tokens: &[&str]) -> BertError {
    let tokens = tokens.join(", ");
    let source = format!("the vocabulary lacks {tokens}, without which there is no BERT input").into();
    BertError::Tokenizer { path: origin.to_owned(), source }
}

/// `[CLS] text [SEP]`; ids are filled in once they are known.
fn post_processor(cls: &str, sep: &str) -> Value {
    let piece = |id: &str, type_id: u32| json!({"SpecialToken": {"id": id, "type_id": type_id}});
    let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let token = |name: &str| json!({"id": name, "ids": [0], "tokens": [name]});
    json!({
        "type": "TemplateProcessing",
        "single": [piece(cls, 0), sequence("A", 0), piece(sep, 0)],
        "pair": [piece(cls, 0), sequence("A", 0), piece(sep, 0), sequence("B", 1), piece(sep, 1)],
        "special_tokens": {cls: token(cls), sep: token(sep)},
    })
}

/// Strips accents, as the normalizer decides it.
fn strips(normalizer: &Value) -> Value {
    let strip = &normalizer["strip_accents"];
    if strip.is_null() { normalizer["lowercase"].clone() } else { strip.clone() }
}

/// The settings of a `BertNormalizer` in `tokenizer.json`, their names in `tokenizer_config.json`, and their values.
fn normalizer_settings(normalizer: &Value) -> [(&'static str, &'static str, Value); 4] {
    [
        ("lowercase", "do_lower_case", normalizer["lowercase"].clone()),
        ("strip_accents", "strip_accents", strips(normalizer)),
        ("handle_chinese_chars", "tokenize_chinese_chars", normalizer["handle_chinese_chars"].clone()),
        ("clean_text", "clean_text", normalizer["clean_text"].clone()),
    ]
}

/// Notes where `tokenizer.json` says something else than what `BertTokenizer` builds.
fn differences(file: &Object, built: &Value, config: &Object, notes: &mut Vec<String>) {
    let (from, to) = (&file.origin, &config.origin);
    let part = |name: &str| file.map.get(name).unwrap_or(&Value::Null);
    let (theirs, ours) = (part("normalizer"), &built["normalizer"]);
    if theirs["type"] == "BertNormalizer" {
        for ((name, setting, theirs), (_, _, ours)) in
            normalizer_settings(theirs).into_iter().zip(normalizer_settings(ours))
        {
            if theirs != ours {
                let says = if config.map.get(setting).is_some_and(|value| !value.is_null()) {
                    format!("{to} says {setting} = {ours}")
                } else {
                    format!("{to} leaves {setting} at BertTokenizer's {ours}")
                };
                notes.push(format!(
                    "{from} says {name} = {theirs}, but {says}, which counts, as in transformers"
                ));
            }
        }
    }
    let others = [
        ("normalizer", &theirs["type"], &ours["type"]),
        ("pre_tokenizer", &part("pre_tokenizer")["type"], &built["pre_tokenizer"]["type"]),
        ("unk_token", &part("model")["unk_token"], &built["model"]["unk_token"]),
        (
            "continuing_subword_prefix",
            &part("model")["continuing_subword_prefix"],
            &built["model"]["continuing_subword_prefix"],
        ),
        (
            "max_input_chars_per_word",
            &part("model")["max_input_chars_per_word"],
            &built["model"]["max_input_chars_per_word"],
        ),
    ];
    for (name, theirs, ours) in others {
        if theirs != ours {
            notes.push(format!(
                "{from} says {name} = {theirs}, but {to} makes it a BertTokenizer, whose {ours} counts, as in transformers"
            ));
        }
    }
}

/// Makes `tokenizer.json` one that is used as it is. Returns whether `[CLS]` and `[SEP]` have been put around a text, without
/// their ids.
fn as_it_is(
    description: &mut Value,
    config: &Object,
    has_class: bool,
    has: &dyn Fn(&str) -> bool,
    notes: &mut Vec<String>,
) -> bool {
    let mut without_ids = false;
    // What a file says about these was meant for another use: all-MiniLM-L6-v2's cuts at 128.
    description["truncation"] = Value::Null;
    description["padding"] = Value::Null;
    let normalizer = description["normalizer"].clone();
    if has_class && normalizer["type"] == "BertNormalizer" {
        for (name, setting, ours) in normalizer_settings(&normalizer) {
            if let Some(theirs) = config.map.get(setting).filter(|value| !value.is_null() && **value != ours)
            {
                notes.push(format!(
                    "{} says {setting} = {theirs}, but {TOKENIZER_FILE} says {name} = {ours}, which counts for its \
                     tokenizer_class, as in transformers",
                    config.origin
                ));
            }
        }
    }
    if !has_class {
        if description["post_processor"].is_null() && has("[CLS]") && has("[SEP]") {
            description["post_processor"] = post_processor("[CLS]", "[SEP]");
            without_ids = true;
        }
        let is_default = normalizer["lowercase"] == true
            && strips(&normalizer) == true
            && normalizer["handle_chinese_chars"] == true
            && description["pre_tokenizer"]["type"] == "BertPreTokenizer";
        if !is_default {
            notes.push(format!(
                "no {TOKENIZER_CONFIG_FILE}: {TOKENIZER_FILE} is used as it is; transformers would build a BertTokenizer \
                 with its defaults, such as do_lower_case = true"
            ));
        }
    }
    without_ids
}

/// The lines of a `vocab.txt` for these tokens of the model; none where a token cannot be a line, or two have one id.
pub(super) fn to_lines(vocabulary: &Map<String, Value>) -> Option<String> {
    let mut tokens: Vec<(u64, &str)> =
        vocabulary.iter().filter_map(|(token, id)| Some((id.as_u64()?, token.as_str()))).collect();
    tokens.sort_unstable();
    let mut text = String::new();
    let mut next = 0;
    for (id, token) in tokens {
        if token.is_empty() {
            continue;
        }
        if id < next || token.trim_end() != token || token.contains(['\n', '\r', '\u{feff}']) {
            return None;
        }
        // A number without a token is a blank line.
        text.extend(std::iter::repeat_n('\n', usize::try_from(id - next).ok()?));
        text.push_str(token);
        text.push('\n');
        next = id + 1;
    }
    Some(text)
}
