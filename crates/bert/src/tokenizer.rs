//! [`Tokenizer`]: text to token ids, as `transformers`' `BertTokenizerFast` does it.
//!
//! The algorithm (BertNormalizer, whitespace and punctuation splitting, WordPiece) is the `tokenizers` crate's. This file
//! decides what it is built from, and how a long text is cut.

use crate::{BertError, Result};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use tokenizers::NormalizerWrapper;
use vitrine_tensor::cpu::parallel;

/// The tokenizer in one file.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Settings that `transformers` reads beside it.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// The vocabulary, a token a line.
pub const VOCABULARY_FILE: &str = "vocab.txt";
/// Names of the special tokens, for older versions of `transformers`.
pub const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";

/// `[CLS]`, one token, `[SEP]`: no shorter limit makes sense.
pub const MIN_LENGTH: usize = 3;

/// Texts tokenized by one piece of parallel work.
const TEXTS: usize = 16;

/// A tokenized text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// `[CLS] text [SEP]`.
    pub ids: Vec<u32>,
    /// For each id the bytes of the text that it stands for; empty for the two added tokens.
    pub offsets: Vec<Range<usize>>,
    /// Whether the text was longer than the limit and its end was cut off.
    pub truncated: bool,
}

/// A BERT tokenizer, and the files that it came from.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    cls: u32,
    sep: u32,
    files: Vec<(&'static str, String)>,
}

impl Tokenizer {
    /// Reads a model folder: `tokenizer.json`, else `vocab.txt`; with `tokenizer_config.json` beside either.
    ///
    /// # Errors
    /// `NoTokenizer`; `Io`; `Json`; `Tokenizer` when a file is there but is not a BERT tokenizer: never a fallback.
    pub fn from_dir(folder: &Path) -> Result<Self> {
        let read = |name: &str| match std::fs::read_to_string(folder.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BertError::Io { path: folder.join(name), source }),
        };
        let config = read(TOKENIZER_CONFIG_FILE)?;
        let settings = match &config {
            Some(text) => serde_json::from_str(text)
                .map_err(|source| BertError::Json { path: folder.join(TOKENIZER_CONFIG_FILE), source })?,
            None => Value::Null,
        };
        let vocabulary = read(VOCABULARY_FILE)?;
        let path = |name| folder.join(name).display().to_string();
        let mut tokenizer = match (read(TOKENIZER_FILE)?, &vocabulary) {
            (Some(text), _) => Self::from_json(text, &settings, &path(TOKENIZER_FILE))?,
            (None, Some(text)) => {
                Self::from_json(describe(text, &settings), &settings, &path(VOCABULARY_FILE))?
            }
            (None, None) => return Err(BertError::NoTokenizer { folder: folder.to_owned() }),
        };
        for (name, text) in [
            (TOKENIZER_CONFIG_FILE, config),
            (VOCABULARY_FILE, vocabulary),
            (SPECIAL_TOKENS_FILE, read(SPECIAL_TOKENS_FILE)?),
        ] {
            if let Some(text) = text {
                tokenizer.keep(name, text);
            }
        }
        Ok(tokenizer)
    }

    /// As [`Tokenizer::from_dir`] for a folder; else one file, a `tokenizer.json` (told by its extension) or a vocabulary.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`].
    pub fn from_path(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::from_dir(path);
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| BertError::Io { path: path.to_owned(), source })?;
        let origin = path.display().to_string();
        if path.extension().is_some_and(|extension| extension == "json") {
            return Self::from_json(text, &Value::Null, &origin);
        }
        let mut tokenizer = Self::from_json(describe(&text, &Value::Null), &Value::Null, &origin)?;
        tokenizer.keep(VOCABULARY_FILE, text);
        Ok(tokenizer)
    }

    /// A lower-casing tokenizer from the text of a `vocab.txt`.
    ///
    /// # Errors
    /// `Tokenizer` when a special token is missing.
    pub fn from_vocabulary(vocabulary: &str) -> Result<Self> {
        let mut tokenizer = Self::from_json(describe(vocabulary, &Value::Null), &Value::Null, "vocabulary")?;
        tokenizer.keep(VOCABULARY_FILE, vocabulary.into());
        Ok(tokenizer)
    }

    fn from_json(text: String, settings: &Value, origin: &str) -> Result<Self> {
        let fail = |source| BertError::Tokenizer { path: origin.into(), source };
        let mut inner = tokenizers::Tokenizer::from_bytes(&text).map_err(fail)?;
        // What a file says about these was meant for another use: all-MiniLM-L6-v2's cuts at 128.
        inner.with_truncation(None).map_err(fail)?.with_padding(None);
        // As in `transformers`, settings beside the file win over the file.
        if let Some(NormalizerWrapper::BertNormalizer(normalizer)) = inner.get_normalizer() {
            let mut normalizer = *normalizer;
            let set = |name: &str, slot: &mut bool| *slot = settings[name].as_bool().unwrap_or(*slot);
            set("do_lower_case", &mut normalizer.lowercase);
            set("tokenize_chinese_chars", &mut normalizer.handle_chinese_chars);
            normalizer.strip_accents = settings["strip_accents"].as_bool().or(normalizer.strip_accents);
            inner.with_normalizer(Some(normalizer)).map_err(fail)?;
        }
        let empty = inner.encode("", true).map_err(fail)?;
        let &[cls, sep] = empty.get_ids() else {
            let got = empty.get_tokens().join(" ");
            return Err(fail(format!("an empty text must give [CLS] [SEP], got \"{got}\"").into()));
        };
        Ok(Tokenizer { inner, cls, sep, files: vec![(TOKENIZER_FILE, text)] })
    }

    fn keep(&mut self, name: &'static str, text: String) {
        self.files.push((name, text));
    }

    /// The number of ids: one more than the largest.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1)
    }

    /// The token of an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Ids of `[CLS] text [SEP]`, the text cut to `max_length - 2` tokens. A literal "`[SEP]`" in the text is that token,
    /// as in `transformers`.
    ///
    /// # Errors
    /// `MaxLength` below [`MIN_LENGTH`]; `Tokenizer` when the tokenizer's own parts do not fit together.
    pub fn encode(&self, text: &str, max_length: usize) -> Result<Encoding> {
        if max_length < MIN_LENGTH {
            return Err(BertError::MaxLength { min: MIN_LENGTH, max: usize::MAX, got: max_length });
        }
        let fail = |source| BertError::Tokenizer { path: "tokenizer".into(), source };
        let content = self.inner.encode(text, false).map_err(fail)?;
        let kept = content.len().min(max_length - 2);
        let ids = content.get_ids()[..kept].iter().copied();
        let offsets = content.get_offsets()[..kept].iter().map(|&(start, end)| start..end);
        Ok(Encoding {
            ids: std::iter::once(self.cls).chain(ids).chain([self.sep]).collect(),
            offsets: std::iter::once(0..0).chain(offsets).chain(std::iter::once(0..0)).collect(),
            truncated: kept < content.len(),
        })
    }

    /// [`Tokenizer::encode`] of many texts, on all threads.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_batch<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        max_length: usize,
    ) -> Result<Vec<Encoding>> {
        let pieces = parallel::map(texts.chunks(TEXTS), |_, piece| {
            piece.iter().map(|text| self.encode(text.as_ref(), max_length)).collect::<Result<Vec<_>>>()
        });
        Ok(pieces.into_iter().collect::<Result<Vec<_>>>()?.concat())
    }

    /// The files that let `AutoTokenizer.from_pretrained` build this tokenizer: those it was read from, unchanged, and
    /// what they lacked. `positions` is the longest input of the model that it is saved with.
    pub fn files(&self, positions: usize) -> Vec<(&'static str, Cow<'_, str>)> {
        let has = |wanted| self.files.iter().any(|&(name, _)| name == wanted);
        let mut files: Vec<_> =
            self.files.iter().map(|(name, text)| (*name, Cow::from(text.as_str()))).collect();
        let special = json!({
            "cls_token": self.token(self.cls), "mask_token": "[MASK]", "pad_token": "[PAD]",
            "sep_token": self.token(self.sep), "unk_token": "[UNK]",
        });
        if !has(SPECIAL_TOKENS_FILE) {
            files.push((SPECIAL_TOKENS_FILE, format!("{special:#}\n").into()));
        }
        if !has(TOKENIZER_CONFIG_FILE) {
            let mut config = special;
            if let Some(NormalizerWrapper::BertNormalizer(normalizer)) = self.inner.get_normalizer() {
                config["do_lower_case"] = normalizer.lowercase.into();
                config["strip_accents"] = normalizer.strip_accents.into();
                config["tokenize_chinese_chars"] = normalizer.handle_chinese_chars.into();
            }
            config["model_max_length"] = positions.into();
            config["tokenizer_class"] = "BertTokenizer".into();
            files.push((TOKENIZER_CONFIG_FILE, format!("{config:#}\n").into()));
        }
        if !has(VOCABULARY_FILE) {
            let mut tokens: Vec<(u32, String)> =
                self.inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
            tokens.sort_unstable();
            // With a hole in the numbering, lines would not stand for ids.
            if tokens.iter().enumerate().all(|(line, (id, _))| line == *id as usize) {
                let text = tokens.into_iter().fold(String::new(), |text, (_, token)| text + &token + "\n");
                files.push((VOCABULARY_FILE, text.into()));
            }
        }
        files
    }
}

/// The `tokenizer.json` that `BertTokenizerFast` makes of a vocabulary and of the settings in `tokenizer_config.json`.
/// Missing special tokens make it unreadable, with a message that names them.
fn describe(vocabulary: &str, settings: &Value) -> String {
    let ids: serde_json::Map<String, Value> =
        vocabulary.lines().enumerate().map(|(id, token)| (token.to_owned(), id.into())).collect();
    // Older files hold a token as an object with its `content`.
    let special = |name: &str, default: &str| {
        let setting = &settings[name];
        setting.as_str().or_else(|| setting["content"].as_str()).unwrap_or(default).to_owned()
    };
    let unk = special("unk_token", "[UNK]");
    let cls = special("cls_token", "[CLS]");
    let sep = special("sep_token", "[SEP]");
    let tokens = [special("pad_token", "[PAD]"), unk.clone(), cls.clone(), sep.clone()];
    let added: Vec<Value> = tokens
        .iter()
        .chain([&special("mask_token", "[MASK]")])
        .filter_map(|token| {
            Some(json!({
                "id": ids.get(token)?, "content": token, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false,
            }))
        })
        .collect();
    let piece = |id: &str, type_id: u32| json!({"SpecialToken": {"id": id, "type_id": type_id}});
    let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let token = |name: &str| json!({"id": name, "ids": [ids.get(name)], "tokens": [name]});
    let text = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": settings["tokenize_chinese_chars"].as_bool().unwrap_or(true),
            "strip_accents": settings["strip_accents"],
            "lowercase": settings["do_lower_case"].as_bool().unwrap_or(true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece(&cls, 0), sequence("A", 0), piece(&sep, 0)],
            "pair": [piece(&cls, 0), sequence("A", 0), piece(&sep, 0), sequence("B", 1), piece(&sep, 1)],
            "special_tokens": {&cls: token(&cls), &sep: token(&sep)},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": ids,
        },
    });
    text.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nnot\nbad\n##ly\n!\ncafe\n猫\n";

    #[test]
    fn a_vocabulary_is_enough() {
        let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
        let encoding = tokenizer.encode("NOT badly!", 16).unwrap();
        assert_eq!(encoding.ids, [2, 5, 6, 7, 8, 3]);
        assert_eq!(encoding.offsets, [0..0, 0..3, 4..7, 7..9, 9..10, 0..0]);
        assert_eq!(tokenizer.encode("Café猫 [SEP] dog", 16).unwrap().ids, [2, 9, 10, 3, 1, 3]);
        assert_eq!(tokenizer.encode("", 16).unwrap().ids, [2, 3]);
        assert_eq!(tokenizer.vocabulary_size(), 11);
    }

    #[test]
    fn long_texts_are_cut_and_say_so() {
        let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
        let cut = tokenizer.encode("not bad not bad", 5).unwrap();
        assert_eq!((cut.ids, cut.truncated), (vec![2, 5, 6, 5, 3], true));
        assert!(!tokenizer.encode("not bad not", 5).unwrap().truncated);
        assert!(matches!(tokenizer.encode("not", 2), Err(BertError::MaxLength { .. })));
    }

    #[test]
    fn batches_equal_single_texts() {
        let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
        let texts: Vec<String> = (0..50).map(|n| "not bad! ".repeat(n)).collect();
        let batch = tokenizer.encode_batch(&texts, 40).unwrap();
        assert_eq!(batch.len(), 50);
        for (text, encoding) in texts.iter().zip(&batch) {
            assert_eq!(*encoding, tokenizer.encode(text, 40).unwrap());
        }
    }

    #[test]
    fn saved_files_build_the_same_tokenizer() {
        let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
        for left_out in ["", TOKENIZER_FILE] {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in tokenizer.files(64) {
                if name != left_out {
                    std::fs::write(folder.path().join(name), text.as_bytes()).unwrap();
                }
            }
            let again = Tokenizer::from_dir(folder.path()).unwrap();
            assert_eq!(again.encode("NOT café", 9).unwrap(), tokenizer.encode("NOT café", 9).unwrap());
            assert_eq!(again.files(64).len(), 4);
        }
    }

    #[test]
    fn settings_beside_the_file_win() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in Tokenizer::from_vocabulary(VOCABULARY).unwrap().files(64) {
            std::fs::write(folder.path().join(name), text.as_bytes()).unwrap();
        }
        std::fs::write(folder.path().join(TOKENIZER_CONFIG_FILE), r#"{"do_lower_case": false}"#).unwrap();
        let cased = Tokenizer::from_dir(folder.path()).unwrap();
        assert_eq!(cased.encode("NOT not", 9).unwrap().ids, [2, 1, 5, 3]);
    }

    #[test]
    fn a_damaged_file_is_an_error_not_a_fallback() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(VOCABULARY_FILE), VOCABULARY).unwrap();
        std::fs::write(folder.path().join(TOKENIZER_FILE), "{\"version\": ").unwrap();
        let message = Tokenizer::from_dir(folder.path()).err().unwrap().to_string();
        assert!(message.contains("tokenizer.json"), "{message}");
        let message = Tokenizer::from_vocabulary("[PAD]\n[UNK]\nword\n").err().unwrap().to_string();
        assert!(!message.contains('\n'), "{message}");
    }
}
