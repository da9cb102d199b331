//! [`Tokenizer`]: text to token ids, as `transformers`' `BertTokenizer` and `RobertaTokenizer` do it.
//!
//! The algorithm (BertNormalizer, whitespace and punctuation splitting, WordPiece; or byte-level BPE) is the `tokenizers` crate's.
//! Here is decided what it is built from: `read` finds the files of a folder, `describe` makes of them the one `tokenizer.json` that does what
//! they say together, `save` writes that. `pieces` cuts long texts. `train` makes a vocabulary, and `prune` a smaller
//! one.

mod added;
mod byte_level;
mod describe;
mod pieces;
mod prune;
mod read;
mod save;
mod train;
mod truncation;

use crate::panics::caught;
use crate::{BertError, Result};
use describe::Effective;
pub(crate) use describe::Kind;
use pieces::{Cutter, Piece, Pieces};
use read::Sources;
use serde_json::Value;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tokenizers::ModelWrapper;
pub use truncation::Truncation;
use vitrine_nn::Source;
use vitrine_tensor::cpu::parallel;

/// The tokenizer in one file.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Settings that `transformers` reads beside it.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// The vocabulary, a token a line.
pub const VOCABULARY_FILE: &str = "vocab.txt";
/// The vocabulary of a BPE: tokens and their ids.
pub const VOCABULARY_JSON_FILE: &str = "vocab.json";
/// The merges of a BPE, a pair a line, the first ones first.
pub const MERGES_FILE: &str = "merges.txt";
/// Names of the special tokens, for older versions of `transformers`.
pub const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
/// Every file that says something of a tokenizer, besides `config.json`.
pub(crate) const FILES: [&str; 7] = [
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    VOCABULARY_JSON_FILE,
    MERGES_FILE,
    SPECIAL_TOKENS_FILE,
    read::ADDED_TOKENS_FILE,
];

/// `[CLS]`, one token, `[SEP]`: no shorter limit makes sense.
pub const MIN_LENGTH: usize = 3;

/// Texts tokenized by one piece of parallel work.
const TEXTS: usize = 16;

/// A tokenized text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// `[CLS] text [SEP]`.
    pub ids: Vec<u32>,
    /// For each id the bytes of the text that it stands for; empty for the two added tokens.
    pub offsets: Vec<Range<usize>>,
    /// Whether the text was longer than the limit and a part of it was cut out, as [`Truncation`] says.
    pub truncated: bool,
}

impl Encoding {
    fn extend(
        &mut self,
        ids: &[u32],
        offsets: &[(usize, usize)],
        place: &dyn Fn(Range<usize>) -> Range<usize>,
    ) {
        self.ids.extend_from_slice(ids);
        self.offsets.extend(offsets.iter().map(|&(start, end)| place(start..end)));
    }

    /// Removes all but the last `most` tokens.
    fn keep_last(&mut self, most: usize) {
        if let Some(over) = self.ids.len().checked_sub(most).filter(|&over| over > 0) {
            self.ids.drain(..over);
            self.offsets.drain(..over);
            self.truncated = true;
        }
    }
}

/// A BERT tokenizer, and the files that describe it.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    cls: u32,
    sep: u32,
    cutter: Option<Cutter>,
    /// The longest text in tokens, if the checkpoint has a limit below the model's.
    limit: Option<usize>,
    truncation: Truncation,
    saved: Arc<save::Saved>,
    notes: Vec<String>,
}

impl Tokenizer {
    /// Reads the tokenizer of a model: `tokenizer.json`, `vocab.txt`, or `vocab.json` and `merges.txt`; `tokenizer_config.json`, `special_tokens_map.json` and
    /// `added_tokens.json`, and of `config.json` the `tokenizer_class` and the `model_type`. They count as in `transformers`.
    ///
    /// # Errors
    /// `NoTokenizer`; `Io`; `Json`; `LfsPointer`; `TokenizerSetting` for a setting that has another type or is not followed
    /// here; `Tokenizer` when a file is there but is not such a tokenizer: never a fallback.
    pub fn from_dir(source: impl Into<Source>) -> Result<Self> {
        Self::new(Sources::of_model(&source.into())?.effective()?)
    }

    /// As [`Tokenizer::from_dir`] for a folder; else one file, a `tokenizer.json` (told by its extension) or a vocabulary.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`].
    pub fn from_path(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::from_dir(path);
        }
        Self::new(Sources::from_file(path)?.effective()?)
    }

    /// A lower-casing tokenizer from the text of a `vocab.txt`.
    ///
    /// # Errors
    /// `Tokenizer` when a special token is missing.
    pub fn from_vocabulary(vocabulary: &str) -> Result<Self> {
        let vocabulary = Some(("vocabulary".to_owned(), vocabulary.to_owned()));
        Self::new(Sources { vocabulary, ..Sources::default() }.effective()?)
    }

    fn new(mut effective: Effective) -> Result<Self> {
        let origin = effective.origin.clone();
        let fail = |message: String| BertError::Tokenizer { path: origin.clone(), source: message.into() };
        let build = |description: &Value| {
            let text = description.to_string();
            let built = caught(|| tokenizers::Tokenizer::from_bytes(&text))
                .map_err(|panicked| fail(stopped(&panicked)))?;
            built.map_err(|error| fail(without_place(&error.to_string())))
        };
        if let Some(unused) = &effective.unused {
            build(unused)?;
        }
        effective.description["added_tokens"] =
            effective.added.0.iter().map(|token| token.to_json(0)).collect();
        let mut inner = build(&effective.description)?;
        let ids = effective.ids(&inner)?;
        let mut added: Vec<Value> =
            effective.added.0.iter().zip(&ids).map(|(token, id)| token.to_json(*id)).collect();
        added.sort_by_key(|token| token["id"].as_u64());
        effective.description["added_tokens"] = added.into();
        if effective.without_ids
            && let Some(tokens) = effective.description["post_processor"]["special_tokens"].as_object_mut()
        {
            for (name, token) in tokens {
                token["ids"] = serde_json::json!([inner.token_to_id(name)]);
            }
            inner = build(&effective.description)?;
        } else if effective.without_ids {
            for end in ["sep", "cls"] {
                let token = &mut effective.description["post_processor"][end];
                token[1] = inner.token_to_id(token[0].as_str().unwrap_or_default()).into();
            }
            inner = build(&effective.description)?;
        }
        let unk = &effective.description["model"]["unk_token"];
        let knows_all = effective.kind == Kind::ByteLevel;
        if !knows_all
            && unk.as_str().is_none_or(|unk| effective.description["model"]["vocab"].get(unk).is_none())
        {
            return Err(describe::lacks(&origin, &[unk.as_str().unwrap_or("[UNK]")]));
        }
        let (cls, sep) =
            caught(|| ends(&inner)).map_err(|panicked| fail(stopped(&panicked)))?.map_err(fail)?;
        let cutter = caught(|| Cutter::new(&inner, &effective.description))
            .map_err(|panicked| fail(stopped(&panicked)))?;
        let notes = std::mem::take(&mut effective.notes);
        let truncation = effective.truncation;
        let saved = Arc::new(save::Saved::new(effective, &inner, cls, sep));
        Ok(Tokenizer { inner, cls, sep, cutter, limit: None, truncation, saved, notes })
    }

    /// What a user should know about how the files were read, a line each; usually nothing.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The same tokenizer for a model of so many positions. If the checkpoint has a lower limit (`model_max_length`), texts are
    /// cut there, as by `transformers` where it cuts texts at all, and a note says so.
    #[must_use]
    pub fn for_positions(mut self, positions: usize) -> Self {
        if let Some(limit) = self.saved.max_length.filter(|&limit| limit < positions) {
            self.limit = Some(limit);
            self.notes.push(format!(
                "{TOKENIZER_CONFIG_FILE}: texts are cut at model_max_length, {limit} tokens; the model has {positions} positions"
            ));
        }
        self
    }

    /// Which part of a long text stays: what the folder says (`truncation_side` of `tokenizer_config.json`), or was set here.
    pub fn truncation(&self) -> Truncation {
        self.truncation
    }

    /// The same tokenizer that cuts long texts so. A model folder that is written with it remembers that.
    #[must_use]
    pub fn with_truncation(mut self, truncation: Truncation) -> Self {
        self.truncation = truncation;
        self
    }

    /// All that ids depend on, besides the text and the maximum length: two tokenizers of the same identity give the same ids.
    pub fn identity(&self) -> String {
        let Tokenizer { cls, sep, limit, truncation, saved, .. } = self;
        format!("{cls} {sep} {limit:?} {truncation}\n{}", saved.description())
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

    /// The ids of the special tokens, `[CLS]` and its like, in order: they stand for no text.
    pub fn special_ids(&self) -> Vec<u32> {
        let added = self.inner.get_added_tokens_decoder().into_iter();
        let mut ids: Vec<u32> = added.filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        ids.extend([self.cls, self.sep]);
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The token that stands for a hidden one, and its id: `[MASK]`, or `<mask>` of a byte-level BPE.
    pub fn mask(&self) -> Option<(&str, u32)> {
        let token = self.saved.mask()?;
        Some((token, self.id(token)?))
    }

    /// `[CLS]` and `[SEP]`, which stand around a text.
    pub fn ends(&self) -> (u32, u32) {
        (self.cls, self.sep)
    }

    /// Whether a token continues a word: in WordPiece it begins with `##`, in a byte-level BPE it is one without a space in front
    /// (the first word of a text has none either).
    pub fn continues_word(&self, id: u32) -> bool {
        let Some(token) = self.inner.id_to_token(id) else { return false };
        match self.inner.get_model() {
            ModelWrapper::WordPiece(model) => token.starts_with(&model.continuing_subword_prefix),
            _ => !token.starts_with('\u{120}') && !self.special_ids().contains(&id),
        }
    }

    /// Ids of `[CLS] text [SEP]`, the text cut to `max_length - 2` tokens, of which [`Truncation`] says which. A literal
    /// "`[SEP]`" in the text is that token, as in `transformers`. Of a long text no more is read than these tokens need.
    ///
    /// # Errors
    /// `MaxLength` below [`MIN_LENGTH`]; `TextTooLong` for a text of megabytes without a word boundary whose words are
    /// looked through for added tokens, or under a tokenizer that has to see all of a text; `Tokenizer` when the tokenizer's
    /// own parts do not fit together.
    pub fn encode(&self, text: &str, max_length: usize) -> Result<Encoding> {
        self.encode_in_pieces(text, max_length, pieces::PIECE, pieces::LIMIT)
    }

    fn encode_in_pieces(
        &self,
        text: &str,
        max_length: usize,
        piece: usize,
        limit: usize,
    ) -> Result<Encoding> {
        if max_length < MIN_LENGTH {
            return Err(BertError::MaxLength { min: MIN_LENGTH, max: usize::MAX, got: max_length });
        }
        let wanted = self.limit.map_or(max_length, |limit| limit.min(max_length)) - 2;
        self.encode_within(text, wanted, piece, limit)
    }

    /// How many tokens the whole text has, `[CLS]` and `[SEP]` included, whatever the limit.
    ///
    /// # Errors
    /// `TextTooLong` and `Tokenizer`, as [`Tokenizer::encode`].
    pub fn count_tokens(&self, text: &str) -> Result<usize> {
        Ok(self.encode_within(text, usize::MAX - 2, pieces::PIECE, pieces::LIMIT)?.ids.len())
    }

    /// `[CLS]`, at most `wanted` tokens of the text, `[SEP]`.
    fn encode_within(&self, text: &str, wanted: usize, piece: usize, limit: usize) -> Result<Encoding> {
        let fail = |source| BertError::Tokenizer { path: "tokenizer".into(), source };
        let head = self.truncation.head(wanted);
        let tail = wanted - head;
        let mut kept =
            Encoding { ids: vec![self.cls], offsets: Vec::from([const { 0..0 }]), truncated: false };
        // The last tokens, once there is no room at the beginning.
        let mut last = Encoding::default();
        let mut read = || -> Result<()> {
            let mut append = |text: &str, place: &dyn Fn(Range<usize>) -> Range<usize>| -> Result<bool> {
                let content = self.inner.encode(text, false).map_err(fail)?;
                let (ids, offsets) = (content.get_ids(), content.get_offsets());
                let first = ids.len().min(head + 1 - kept.ids.len());
                kept.extend(&ids[..first], &offsets[..first], place);
                last.extend(&ids[first..], &offsets[first..], place);
                last.keep_last(tail);
                Ok(last.truncated && tail == 0)
            };
            match &self.cutter {
                Some(cutter) if text.len() > piece => {
                    for part in Pieces::new(cutter, text, piece, limit) {
                        let part = part.map_err(|_| BertError::TextTooLong { bytes: text.len(), limit })?;
                        let is_enough = match part {
                            Piece::Text(range) if cutter.is_blank(&text[range.clone()]) => false,
                            Piece::Text(range) => {
                                let first = range.start;
                                append(&text[range], &|range| range.start + first..range.end + first)?
                            }
                            Piece::Word(word) => append(&word.text, &|range| word.in_text(&range))?,
                        };
                        if is_enough {
                            break;
                        }
                    }
                }
                None if text.len() > limit => {
                    return Err(BertError::TextTooLong { bytes: text.len(), limit });
                }
                _ => {
                    append(text, &|range| range)?;
                }
            }
            Ok(())
        };
        caught(&mut read).map_err(|panicked| fail(stopped(&panicked).into()))??;
        kept.ids.append(&mut last.ids);
        kept.offsets.append(&mut last.offsets);
        kept.ids.push(self.sep);
        kept.offsets.push(0..0);
        Ok(Encoding { truncated: last.truncated, ..kept })
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
}

/// What is said of a panic inside the `tokenizers` crate.
fn stopped(panicked: &crate::panics::Panicked) -> String {
    format!("the tokenizers library stopped on it ({})", read::shorten(&panicked.0))
}

/// A message of the `tokenizers` crate. Where in the JSON something was means nothing: it is not the file's.
fn without_place(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

/// The ids around a text, `[CLS]` and `[SEP]`; what is wrong if other things are done to a text.
fn ends(inner: &tokenizers::Tokenizer) -> std::result::Result<(u32, u32), String> {
    let encode = |text: &str, special| inner.encode(text, special).map_err(|error| error.to_string());
    let empty = encode("", true)?;
    let &[cls, sep] = empty.get_ids() else {
        let got = empty.get_tokens().join(" ");
        return Err(format!("post_processor: an empty text must give [CLS] [SEP], got \"{got}\""));
    };
    for (token, id) in empty.get_tokens().iter().zip([cls, sep]) {
        if inner.token_to_id(token) != Some(id) {
            let own = inner.token_to_id(token).map_or("none".to_owned(), |id| id.to_string());
            return Err(format!(
                "post_processor: {token} has the id {id} there, and {own} in the vocabulary"
            ));
        }
    }
    let (bare, whole) = (encode("a", false)?, encode("a", true)?);
    let expected: Vec<u32> = [&[cls], bare.get_ids(), &[sep]].concat();
    if whole.get_ids() != expected || whole.get_type_ids().iter().any(|&id| id != 0) {
        return Err("post_processor: a text must become [CLS] text [SEP], of token type 0".into());
    }
    Ok((cls, sep))
}

#[cfg(test)]
mod tests;
