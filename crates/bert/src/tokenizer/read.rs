//! The files of a tokenizer as they are in a folder, and their settings with the types that they must have.

use super::{
    MERGES_FILE, SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, VOCABULARY_FILE,
    VOCABULARY_JSON_FILE,
};
use crate::{BertError, CONFIG_FILE, Family, Result};
use serde_json::{Map, Value};
use std::io::{Error, ErrorKind};
use std::path::Path;
use vitrine_nn::{Input, NnError, Source};

/// Tokens that were added to a vocabulary, as old versions of `transformers` write them.
pub(super) const ADDED_TOKENS_FILE: &str = "added_tokens.json";

/// The most bytes of a file that is read as a tokenizer's: twenty times the largest vocabulary.
const MOST_BYTES: u64 = 1 << 26;

/// A JSON object, and the file that it came from.
#[derive(Clone, Default)]
pub(super) struct Object {
    pub origin: String,
    pub map: Map<String, Value>,
}

/// What a folder says about its tokenizer.
#[derive(Default)]
pub(super) struct Sources {
    /// `tokenizer.json`.
    pub tokenizer: Option<Object>,
    /// `vocab.txt`.
    pub vocabulary: Option<(String, String)>,
    /// `vocab.json`.
    pub vocabulary_json: Option<Object>,
    /// `merges.txt`.
    pub merges: Option<(String, String)>,
    /// `tokenizer_config.json`.
    pub config: Option<Object>,
    /// `special_tokens_map.json`.
    pub special: Option<Object>,
    /// `added_tokens.json`.
    pub added: Option<Object>,
    /// `tokenizer_class` of `config.json`.
    pub class: Option<String>,
    /// The family of `config.json`.
    pub family: Option<&'static Family>,
}

impl Sources {
    pub fn of_model(source: &Source) -> Result<Self> {
        let read = |name: &str| read(source.open(name));
        let object = |name: &str| read(name)?.map(|text| parse(&text, &source.path_of(name))).transpose();
        let text = |name: &str| -> Result<Option<(String, String)>> {
            Ok(read(name)?.map(|text| (source.path_of(name).display().to_string(), text)))
        };
        // What is wrong with a config.json is said by those who need it.
        let model = object(CONFIG_FILE).ok().flatten();
        let of_model = |field: &str| model.as_ref().and_then(|model| model.map.get(field)?.as_str());
        let sources = Sources {
            tokenizer: object(TOKENIZER_FILE)?,
            vocabulary: text(VOCABULARY_FILE)?,
            vocabulary_json: object(VOCABULARY_JSON_FILE)?,
            merges: text(MERGES_FILE)?,
            config: object(TOKENIZER_CONFIG_FILE)?,
            special: object(SPECIAL_TOKENS_FILE)?,
            added: object(ADDED_TOKENS_FILE)?,
            class: of_model("tokenizer_class").map(str::to_owned),
            family: of_model("model_type").and_then(|name| Family::named(name).ok()),
        };
        let has_bpe = sources.vocabulary_json.is_some() && sources.merges.is_some();
        if sources.tokenizer.is_none() && sources.vocabulary.is_none() && !has_bpe {
            return Err(BertError::NoTokenizer { folder: source.path().to_owned() });
        }
        Ok(sources)
    }

    /// One file, a `tokenizer.json` (told by its extension) or a vocabulary.
    pub fn from_file(path: &Path) -> Result<Self> {
        let missing = || BertError::Io { path: path.to_owned(), source: ErrorKind::NotFound.into() };
        let text = read(Input::open(path))?.ok_or_else(missing)?;
        if path.extension().is_some_and(|extension| extension == "json") {
            return Ok(Sources { tokenizer: Some(parse(&text, path)?), ..Sources::default() });
        }
        Ok(Sources { vocabulary: Some((path.display().to_string(), text)), ..Sources::default() })
    }
}

/// The text of a file; none if there is no such file. Of a vocabulary, `<` may be the beginning.
fn read(opened: vitrine_nn::Result<Input>) -> Result<Option<String>> {
    let input = match opened {
        Ok(input) => input,
        Err(NnError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let path = input.path().to_owned();
    let text = String::from_utf8(input.bytes(MOST_BYTES)?.into_owned()).map_err(|error| {
        let message = format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to());
        BertError::Io { path, source: Error::new(ErrorKind::InvalidData, message) }
    })?;
    // The byte order mark of a Windows editor is no part of the first token.
    Ok(Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)))
}

fn parse(text: &str, path: &Path) -> Result<Object> {
    let map =
        serde_json::from_str(text).map_err(|source| BertError::Json { path: path.to_owned(), source })?;
    Ok(Object { origin: path.display().to_string(), map })
}

impl Object {
    pub fn refuse(&self, field: impl Into<String>, expected: impl Into<String>) -> BertError {
        let field = field.into();
        let got =
            self.map.get(&field).map_or_else(|| "nothing".to_owned(), |value| shorten(&value.to_string()));
        BertError::TokenizerSetting { path: self.origin.clone(), field, expected: expected.into(), got }
    }

    /// A setting that is true or false.
    pub fn flag(&self, field: &str) -> Result<Option<bool>> {
        match self.map.get(field) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.refuse(field, "true or false")),
        }
    }

    /// A setting that is a string, or nothing.
    pub fn string(&self, field: &str) -> Result<Option<&str>> {
        match self.map.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(_) => Err(self.refuse(field, "a string")),
        }
    }
}

/// The beginning of what a file says, for a message.
pub(super) fn shorten(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown: String = text.chars().take(MOST).filter(|c| !c.is_control()).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push_str("..");
    }
    shown
}
