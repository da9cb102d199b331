//! From the files of a folder to the one `tokenizer.json` that does what they say, by the rules of `transformers` 5:
//!
//! - `tokenizer_class` decides, else the model's family. `BertTokenizer` (the default, and the classes with the same WordPiece)
//!   takes the vocabulary of `tokenizer.json`, else of `vocab.txt`, and builds the rest from `tokenizer_config.json` and its own
//!   defaults. `RobertaTokenizer` does the same with the byte-level BPE of `tokenizer.json`, else of `vocab.json` and `merges.txt`.
//!   `PreTrainedTokenizerFast` takes `tokenizer.json` as it is. Other classes are refused.
//! - Without a `tokenizer_config.json`, a `tokenizer.json` is all that the checkpoint says, and is taken as it is.
//! - Added tokens are `added_tokens_decoder` of `tokenizer_config.json`; without it, those of `added_tokens.json`,
//!   `tokenizer.json` and `special_tokens_map.json`. Then come the special tokens by name, and the additional ones.

use super::added::{AddedTokens, Names, list};
use super::read::{Object, Sources, shorten};
use super::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, Truncation, VOCABULARY_JSON_FILE, byte_level};
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
/// The class of `transformers` that is a byte-level BPE, without the `Fast` at the end.
const BYTE_LEVEL_CLASS: &str = "RobertaTokenizer";
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

/// How words become tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// BERT's.
    WordPiece,
    /// RoBERTa's.
    ByteLevel,
}

impl Kind {
    /// The special tokens by name, with the defaults of the class that builds such a tokenizer.
    pub fn named(self) -> &'static [(&'static str, Option<&'static str>); 7] {
        match self {
            Kind::WordPiece => &NAMED,
            Kind::ByteLevel => &byte_level::NAMED,
        }
    }

    /// `model.type` of a `tokenizer.json`.
    fn in_file(self) -> &'static str {
        match self {
            Kind::WordPiece => "WordPiece",
            Kind::ByteLevel => "BPE",
        }
    }
}

/// The tokens of a tokenizer with their ids.
pub(super) struct Vocabulary {
    pub kind: Kind,
    /// The file that they are from.
    pub origin: String,
    pub tokens: Map<String, Value>,
    /// Of a BPE.
    pub merges: Value,
}

/// The tokenizer that the files describe together.
pub(super) struct Effective {
    pub kind: Kind,
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
    pub unk: Option<String>,
    pub pad: Option<String>,
    pub mask: Option<String>,
    /// The longest text in tokens, if the files say.
    pub max_length: Option<usize>,
    pub truncation: Truncation,
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
        let truncation = Truncation::read(&config)?;
        let class = match config.string("tokenizer_class")? {
            Some(class) => Some((class, &config.origin)),
            None => self.class.as_deref().map(|class| (class, &config.origin)),
        };
        let built = match class {
            None => {
                let of_family = self.family.map_or(Kind::WordPiece, |family| family.tokenizer.kind());
                (self.config.is_some() || self.tokenizer.is_none()).then_some(of_family)
            }
            Some((class, origin)) => self.built(class, origin)?,
        };
        let is_built = built.is_some();
        let mut notes = Vec::new();
        let Vocabulary { kind, origin, tokens: vocabulary, merges } = self.vocabulary(built, &mut notes)?;
        let mut added = AddedTokens::default();
        let mut names = Names::default();
        if let (false, Some(file)) = (is_built, &self.tokenizer) {
            for token in list(file)? {
                added.push(token);
            }
        }
        self.add_tokens(&config, kind, is_built, &vocabulary, &mut added, &mut names)?;
        if is_built && !names.lost.is_empty() {
            let origin = &config.origin;
            notes.push(format!("{origin}: {} not in the vocabulary, read as text", names.lost.join(" and ")));
        }
        let has = |content: &str| vocabulary.contains_key(content) || added.has(content);
        let mut without_ids = is_built;
        let (description, unused) = if is_built {
            let description = match kind {
                Kind::WordPiece => build(&config, &vocabulary, &names, &has, &origin)?,
                Kind::ByteLevel => byte_level::build(&config, &vocabulary, &merges, &names, &has, &origin)?,
            };
            if let Some(file) = &self.tokenizer {
                differences(file, &description, &config, &mut notes);
            }
            // What else the file says has to make sense, as it has to for transformers.
            let unused = self.tokenizer.as_ref().map(|file| {
                let mut unused = Value::Object(file.map.clone());
                unused["model"]["vocab"] = json!({});
                if kind == Kind::ByteLevel {
                    unused["model"]["merges"] = json!([]);
                }
                unused["added_tokens"] = json!([]);
                unused
            });
            (description, unused)
        } else {
            let mut description = Value::Object(self.tokenizer.map(|file| file.map).unwrap_or_default());
            without_ids = as_it_is(&mut description, kind, &config, class.is_some(), &has, &mut notes);
            (description, None)
        };
        let name = |name: &Option<String>, field: &str| {
            let default = kind.named().iter().find(|(name, _)| *name == field).and_then(|(_, token)| *token);
            let default = default.filter(|_| !is_built).map(str::to_owned);
            name.clone().or(default).filter(|token| has(token))
        };
        let (pad, mask) = (name(&names.pad, "pad_token"), name(&names.mask, "mask_token"));
        let unk = match kind {
            Kind::WordPiece => description["model"]["unk_token"].as_str().map(str::to_owned),
            Kind::ByteLevel => name(&names.unk, "unk_token"),
        };
        Ok(Effective {
            kind,
            description,
            added,
            without_ids,
            origin,
            config,
            unk,
            pad,
            mask,
            max_length,
            truncation,
            notes,
            unused,
        })
    }

    /// Which kind of tokenizer a class builds; none if it takes `tokenizer.json` as it is.
    fn built(&self, class: &str, origin: &str) -> Result<Option<Kind>> {
        let refuse = |expected: &str| BertError::TokenizerSetting {
            path: origin.to_owned(),
            field: "tokenizer_class".into(),
            expected: expected.into(),
            got: shorten(class),
        };
        let slow = class.strip_suffix("Fast").unwrap_or(class);
        if BERT_CLASSES.contains(&slow) {
            return Ok(Some(Kind::WordPiece));
        }
        if slow == BYTE_LEVEL_CLASS {
            if self.tokenizer.is_none() && (self.vocabulary_json.is_none() || self.merges.is_none()) {
                return Err(refuse(&byte_level::expected()));
            }
            return Ok(Some(Kind::ByteLevel));
        }
        if !FILE_CLASSES.contains(&class) {
            return Err(refuse("BertTokenizer or another class of the same WordPiece, or RobertaTokenizer"));
        }
        if self.tokenizer.is_none() {
            return Err(refuse("BertTokenizer, as there is no tokenizer.json"));
        }
        Ok(None)
    }

    /// The tokens of the model, and what else their file says of it. A tokenizer that is built is of the kind that builds it.
    fn vocabulary(&self, built: Option<Kind>, notes: &mut Vec<String>) -> Result<Vocabulary> {
        let lines = self.vocabulary.as_ref().map(|(origin, text)| (origin, lines(text)));
        let Some(file) = &self.tokenizer else {
            if built == Some(Kind::ByteLevel)
                && let Some(found) = self.byte_level()?
            {
                return Ok(found);
            }
            let Some((origin, tokens)) = lines else {
                return Err(lacks(VOCABULARY_JSON_FILE, &["[UNK]", "[CLS]", "[SEP]"]));
            };
            let (kind, origin, merges) = (Kind::WordPiece, origin.clone(), Value::Null);
            return Ok(Vocabulary { kind, origin, tokens, merges });
        };
        let model = file.map.get("model").unwrap_or(&Value::Null);
        let refuse = |field: &str, got: &Value, expected: &str| BertError::TokenizerSetting {
            path: file.origin.clone(),
            field: format!("model{field}"),
            expected: expected.into(),
            got: shorten(&got.to_string()),
        };
        let found = match model.get("type").and_then(Value::as_str) {
            Some(name) => [Kind::WordPiece, Kind::ByteLevel].into_iter().find(|kind| kind.in_file() == name),
            // Old files do not name the type. No other has these fields.
            None if model.get("max_input_chars_per_word").is_some() => Some(Kind::WordPiece),
            None => model.get("merges").map(|_| Kind::ByteLevel),
        };
        let Some(kind) = found.filter(|kind| built.is_none_or(|built| built == *kind)) else {
            let got = model.get("type").unwrap_or(&Value::Null);
            let expected = match built {
                None => "WordPiece, as BERT's tokenizer has it, or BPE, as RoBERTa's",
                Some(Kind::WordPiece) => "WordPiece, as BERT's tokenizer has it",
                Some(Kind::ByteLevel) => "BPE, as RobertaTokenizer has it",
            };
            return Err(refuse(".type", got, expected));
        };
        let vocabulary = model.get("vocab").and_then(Value::as_object);
        let vocabulary =
            vocabulary.ok_or_else(|| refuse(".vocab", &Value::Null, "an object of tokens and their ids"))?;
        if let Some((token, id)) =
            vocabulary.iter().find(|(_, id)| id.as_u64().is_none_or(|id| id >= MOST_IDS))
        {
            let field = format!(".vocab[{}]", shorten(&format!("{token:?}")));
            return Err(refuse(&field, id, &format!("an id from 0 to {}", MOST_IDS - 1)));
        }
        if let Some((origin, lines)) = lines.filter(|_| kind == Kind::WordPiece) {
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
        let merges = model.get("merges").cloned().unwrap_or_default();
        Ok(Vocabulary { kind, origin: file.origin.clone(), tokens: vocabulary.clone(), merges })
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
    let source = format!("the vocabulary lacks {tokens}, without which there is no input").into();
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

/// Notes where `tokenizer.json` says something else than what its class builds.
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
    let before = "pre_tokenizer";
    if ours.is_null() {
        let [theirs, ours] = [part(before), &built[before]].map(|part| &part["add_prefix_space"]);
        if theirs != ours {
            let (name, class) = ("add_prefix_space", BYTE_LEVEL_CLASS);
            notes.push(format!(
                "{from} says {name} = {theirs}, but {to} makes it a {class}, whose {ours} counts, as in transformers"
            ));
        }
        return;
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
    kind: Kind,
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
    if !has_class && kind == Kind::ByteLevel {
        let built = byte_level::settings(description);
        let is_default = built.is_some_and(|[(_, add_prefix_space), _]| add_prefix_space == false);
        if !is_default {
            notes.push(format!(
                "no {TOKENIZER_CONFIG_FILE}: {TOKENIZER_FILE} is used as it is; transformers would build a RobertaTokenizer \
                 with its defaults, such as add_prefix_space = false"
            ));
        }
    }
    if !has_class && kind == Kind::WordPiece {
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
