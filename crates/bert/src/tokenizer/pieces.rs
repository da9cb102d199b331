//! Long texts: where a text can be cut so that its pieces have, one after the other, the tokens of the whole.
//!
//! The `tokenizers` crate needs about 100 bytes for each byte of a text, although only the first tokens are wanted. So a
//! text is read in pieces of [`PIECE`] bytes, until there are enough tokens. Why the tokens, offsets included, are the same:
//!
//! - The normalizers that are known here ([`Kinds`]) replace character by character, except for the canonical composition and
//!   reordering of marks. Neither reaches across a character `b` whose replacement begins with white space or punctuation
//!   (a *delimiter*): such a character has combining class 0 and is the second of no composition. The pre-tokenizers that
//!   are known here end a word before it. Chinese characters belong here too, since the normalizer puts spaces around them.
//! - Added tokens are found before that in the raw text, or after it in the normalized one. No added token lies across the cut
//!   if none contains the pair of characters around it ([`Cutter::joined`]). Those that take white space with them (`lstrip`,
//!   `rstrip`) or look at their neighbours (`single_word`) forbid the cuts that they could notice.
//!
//! A word may be longer than any piece: 20 MB of "a", or of control characters, which the normalizer deletes. A run of
//! characters without a delimiter is one word. Only its first characters and its last matter, as WordPiece takes no word of
//! more than `max_input_chars_per_word` characters ([`Skeleton`]).

use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use tokenizers::normalizers::NFD;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Tokenizer,
};

/// Bytes of a piece, unless no cut is near.
pub(super) const PIECE: usize = 1 << 14;
/// The most bytes that are tokenized at once where there is no cut.
pub(super) const LIMIT: usize = 1 << 22;

/// A part of a text whose tokens do not depend on the rest.
#[derive(Debug)]
pub(super) enum Piece {
    /// These bytes.
    Text(Range<usize>),
    /// A long word.
    Word(Skeleton),
}

/// What matters of a word: its characters that are not deleted, at most one more than WordPiece takes, and its last.
#[derive(Debug, Default)]
pub(super) struct Skeleton {
    /// The word to tokenize in the place of the long one.
    pub text: String,
    /// For each of its characters its first byte there, and its bytes in the text.
    from: Vec<(usize, Range<usize>)>,
}

impl Skeleton {
    fn push(&mut self, c: char, at: usize) {
        self.from.push((self.text.len(), at..at + c.len_utf8()));
        self.text.push(c);
    }

    /// Where a range of the skeleton's bytes is in the text.
    pub fn in_text(&self, range: &Range<usize>) -> Range<usize> {
        let of = |byte: usize| &self.from[self.from.partition_point(|(first, _)| *first <= byte) - 1].1;
        of(range.start).start..of(range.end.max(range.start + 1) - 1).end
    }
}

/// What the normalizer makes of a character.
#[derive(Clone, Copy)]
struct Class {
    /// The first character of its replacement; none if it is deleted.
    first: Option<char>,
    last: Option<char>,
    /// Characters of the replacement.
    count: usize,
    /// Whether a word ends before it.
    delimits: bool,
    /// Whether it is part of a word, with characters that keep their place (combining class 0), or deleted.
    in_word: bool,
}

/// Which pipelines can be cut.
struct Kinds {
    /// Whether punctuation ends a word.
    punctuation: bool,
    /// Whether a run without delimiters is one word, with as many characters as its characters have one by one.
    words: bool,
}

impl Kinds {
    /// From a `tokenizer.json`. `None` for a pipeline that looks further than a word.
    fn of(description: &Value) -> Option<Self> {
        let composes = composes(&description["normalizer"])?;
        let pre_tokenizer = &description["pre_tokenizer"];
        let punctuation = pre_tokenizer["type"] == "BertPreTokenizer";
        let words = punctuation || pre_tokenizer["type"] == "WhitespaceSplit";
        // A sign may become another with the mark after it, as "<" and U+0338 do; white space does not.
        splits_at_white_space(pre_tokenizer)
            .then_some(Kinds { punctuation: punctuation && !composes, words: words && !composes })
    }
}

/// Whether a normalizer that is known here composes characters.
fn composes(normalizer: &Value) -> Option<bool> {
    match normalizer["type"].as_str() {
        None => normalizer.is_null().then_some(false),
        Some("BertNormalizer" | "Lowercase" | "NFD" | "NFKD" | "StripAccents") => Some(false),
        Some("NFC" | "NFKC") => Some(true),
        Some("Sequence") => normalizer["normalizers"]
            .as_array()?
            .iter()
            .try_fold(false, |any, normalizer| Some(composes(normalizer)? || any)),
        Some(_) => None,
    }
}

/// Whether a pre-tokenizer that is known here drops white space between words.
fn splits_at_white_space(pre_tokenizer: &Value) -> bool {
    match pre_tokenizer["type"].as_str() {
        Some("BertPreTokenizer" | "Whitespace" | "WhitespaceSplit") => true,
        Some("Sequence") => pre_tokenizer["pretokenizers"].as_array().is_some_and(|parts| {
            parts.iter().any(splits_at_white_space)
                && parts.iter().all(|part| {
                    splits_at_white_space(part) || part["type"] == "Punctuation" || part["type"] == "Digits"
                })
        }),
        _ => false,
    }
}

/// Where texts can be cut for one tokenizer.
#[derive(Clone)]
pub(super) struct Cutter {
    normalizer: Option<NormalizerWrapper>,
    punctuation: bool,
    words: bool,
    max_chars: usize,
    ascii: Vec<Class>,
    /// Neighbours within an added token that is found in the raw text.
    raw_pairs: HashSet<(char, char)>,
    /// Neighbours within one that is found in the normalized text, and the first of each two.
    normal_pairs: HashSet<(char, char)>,
    normal_firsts: HashSet<char>,
    /// Whether some added token takes white space with it.
    strips: bool,
    /// Bytes of the longest added token.
    longest: usize,
    /// Whether some added token is only white space.
    has_blank: bool,
    rstrip_ends: HashSet<char>,
    single_starts: HashSet<char>,
    single_ends: HashSet<char>,
}

impl Cutter {
    /// For a tokenizer and its `tokenizer.json`. `None` for a pipeline of which not enough is known.
    pub fn new(tokenizer: &Tokenizer, description: &Value) -> Option<Self> {
        let kinds = Kinds::of(description)?;
        let mut cutter = Cutter {
            normalizer: tokenizer.get_normalizer().cloned(),
            punctuation: kinds.punctuation,
            words: kinds.words,
            max_chars: usize::try_from(description["model"]["max_input_chars_per_word"].as_u64()?).ok()?,
            ascii: Vec::new(),
            raw_pairs: HashSet::new(),
            normal_pairs: HashSet::new(),
            normal_firsts: HashSet::new(),
            strips: tokenizer.get_added_tokens_decoder().values().any(|token| token.lstrip || token.rstrip),
            longest: 0,
            has_blank: false,
            rstrip_ends: HashSet::new(),
            single_starts: HashSet::new(),
            single_ends: HashSet::new(),
        };
        cutter.ascii = (0..128u8).map(|c| cutter.classify(char::from(c))).collect();
        for token in tokenizer.get_added_tokens_decoder().values() {
            let content =
                if token.normalized { cutter.normalize(&token.content) } else { token.content.clone() };
            let chars: Vec<char> = content.chars().collect();
            let pairs = chars.windows(2).map(|pair| (pair[0], pair[1]));
            if token.normalized {
                cutter.normal_firsts.extend(pairs.clone().map(|(first, _)| first));
                cutter.normal_pairs.extend(pairs);
            } else {
                cutter.raw_pairs.extend(pairs);
            }
            let (Some(&first), Some(&last)) = (chars.first(), chars.last()) else { continue };
            if token.rstrip {
                cutter.rstrip_ends.insert(last);
            }
            if token.single_word {
                cutter.single_starts.insert(first);
                cutter.single_ends.insert(last);
            }
            // A long word could hold such a token.
            let within_words = if token.normalized {
                chars.iter().all(|&c| !cutter.is_delimiter(c))
            } else {
                chars.iter().all(|&c| cutter.classify(c).in_word)
            };
            cutter.words &= !within_words;
            cutter.longest = cutter.longest.max(content.len());
            cutter.has_blank |= chars.iter().all(|c| c.is_whitespace());
        }
        Some(cutter)
    }

    /// Whether a piece certainly has no tokens.
    pub fn is_blank(&self, piece: &str) -> bool {
        !self.has_blank && piece.chars().all(char::is_whitespace)
    }

    fn normalize(&self, text: &str) -> String {
        let mut normalized = NormalizedString::from(text);
        match self.normalizer.as_ref().map(|normalizer| normalizer.normalize(&mut normalized)) {
            Some(Err(_)) => text.to_owned(),
            _ => normalized.get().to_owned(),
        }
    }

    /// The crate's own opinion on a character.
    fn classify(&self, c: char) -> Class {
        let normal = self.normalize(c.encode_utf8(&mut [0; 4]));
        let first = normal.chars().next();
        Class {
            first,
            last: normal.chars().next_back(),
            count: normal.chars().count(),
            delimits: first.is_some_and(|first| self.is_delimiter(first)),
            // White space that is deleted is still white space for tokens that take it with them.
            in_word: normal.chars().all(|c| !self.is_delimiter(c) && keeps_its_place(c))
                && !(self.strips && first.is_none() && c.is_whitespace()),
        }
    }

    fn is_delimiter(&self, c: char) -> bool {
        c.is_whitespace() || (self.punctuation && is_punctuation(c))
    }

    /// Whether an added token could notice a cut between two characters of the raw text, where `normal` is the last character
    /// of the normalized text before it, and `first` the first after it.
    fn joined(&self, raw: char, normal: Option<char>, next: char, first: Option<char>) -> bool {
        let in_words = |c: char| !(c.is_whitespace() || (c.is_ascii_punctuation() && c != '_'));
        let ends_single = self.single_ends.contains(&raw)
            || normal.is_some_and(|normal| self.single_ends.contains(&normal));
        let starts_single = self.single_starts.contains(&next)
            || first.is_some_and(|first| self.single_starts.contains(&first));
        self.raw_pairs.contains(&(raw, next))
            || normal.zip(first).is_some_and(|pair| self.normal_pairs.contains(&pair))
            || (first.is_none() && normal.is_some_and(|normal| self.normal_firsts.contains(&normal)))
            || starts_single
            || (ends_single && (in_words(next) || first.is_none_or(in_words)))
    }

    /// Whether an added token that takes white space with it could notice the cut.
    fn stripped(&self, raw: char, normal: Option<char>, next: char, first: Option<char>) -> bool {
        let is_space = |c: Option<char>| c.is_some_and(char::is_whitespace);
        let ends = |c: Option<char>| c.is_some_and(|c| self.rstrip_ends.contains(&c));
        self.strips
            && (is_space(Some(raw))
                || is_space(normal)
                || ((ends(Some(raw)) || ends(normal)) && (is_space(Some(next)) || is_space(first))))
    }
}

/// As `BertPreTokenizer` sees it.
fn is_punctuation(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_punctuation();
    }
    let mut text = PreTokenizedString::from(format!("a{c}a"));
    let split = BertPreTokenizer.pre_tokenize(&mut text);
    split.is_ok() && text.get_splits(OffsetReferential::Original, OffsetType::None).len() > 1
}

/// Whether a character has combining class 0, and so is never reordered: it stays before a mark of the lowest class, and
/// after one of nearly the highest.
fn keeps_its_place(c: char) -> bool {
    const LOW: char = '\u{334}';
    const HIGH: char = '\u{315}';
    let first = |text: String| {
        let mut normalized = NormalizedString::from(text);
        NFD.normalize(&mut normalized).ok().and_then(|()| normalized.get().chars().next())
    };
    c.is_ascii() || (first(format!("{c}{LOW}")) != Some(LOW) && first(format!("{HIGH}{c}")) == Some(HIGH))
}

/// Cuts one text.
pub(super) struct Pieces<'a> {
    cutter: &'a Cutter,
    text: &'a str,
    piece: usize,
    limit: usize,
    at: usize,
    /// The last characters before `at`.
    raw: char,
    normal: Option<char>,
    classes: HashMap<char, Class>,
}

/// More than `limit` bytes without a place to cut.
#[derive(Debug)]
pub(super) struct Uncut;

impl<'a> Pieces<'a> {
    pub fn new(cutter: &'a Cutter, text: &'a str, piece: usize, limit: usize) -> Self {
        Pieces { cutter, text, piece, limit, at: 0, raw: ' ', normal: None, classes: HashMap::new() }
    }

    fn class(&mut self, c: char) -> Class {
        if let Some(class) = self.cutter.ascii.get(c as usize) {
            return *class;
        }
        // A text of every character there is keeps no table of them.
        if self.classes.len() > 1 << 12 {
            self.classes.clear();
        }
        *self.classes.entry(c).or_insert_with(|| self.cutter.classify(c))
    }

    /// The long word that begins at `self.at`, and the state after it; none where its end cannot be cut.
    fn word(&mut self) -> Option<(Skeleton, usize, char, Option<char>)> {
        let (mut skeleton, mut count, mut last) = (Skeleton::default(), 0, None);
        let (mut raw, mut normal, mut end) = (self.raw, self.normal, self.text.len());
        for (offset, c) in self.text[self.at..].char_indices() {
            let (at, class) = (self.at + offset, self.class(c));
            if !class.in_word {
                if !class.delimits || self.cutter.joined(raw, normal, c, class.first) {
                    return None;
                }
                end = at;
                break;
            }
            raw = c;
            normal = class.last.or(normal);
            if class.count > 0 {
                last = None;
                if count <= self.cutter.max_chars {
                    skeleton.push(c, at);
                } else {
                    last = Some((c, at));
                }
                count += class.count;
            }
        }
        if let Some((c, at)) = last {
            skeleton.push(c, at);
        }
        Some((skeleton, end, raw, normal))
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece, Uncut>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        if start == self.text.len() {
            return None;
        }
        let (mut raw, mut normal) = (self.raw, self.normal);
        // Where a run of characters of one word began, with the state before it; none where it cannot be cut off.
        let mut run = Some((start, raw, normal));
        let mut inside = true;
        let mut words = self.cutter.words && self.piece > self.cutter.longest;
        let text = self.text;
        for (offset, c) in text[start..].char_indices() {
            let (at, class) = (start + offset, self.class(c));
            let joined = self.cutter.joined(raw, normal, c, class.first);
            if offset >= self.piece
                && class.delimits
                && !joined
                && !self.cutter.stripped(raw, normal, c, class.first)
            {
                (self.at, self.raw, self.normal) = (at, raw, normal);
                return Some(Ok(Piece::Text(start..at)));
            }
            if !class.in_word {
                run = None;
            } else if !inside && !joined && normal.is_none_or(|normal| self.cutter.is_delimiter(normal)) {
                run = Some((at, raw, normal));
            }
            inside = class.in_word;
            if let Some((begin, raw, normal)) = run
                && words
                && at - begin >= self.piece
            {
                if begin > start {
                    (self.at, self.raw, self.normal) = (begin, raw, normal);
                    return Some(Ok(Piece::Text(start..begin)));
                }
                if let Some((skeleton, end, raw, normal)) = self.word() {
                    (self.at, self.raw, self.normal) = (end, raw, normal);
                    return Some(Ok(Piece::Word(skeleton)));
                }
                words = false;
            }
            if offset > self.limit {
                return Some(Err(Uncut));
            }
            raw = c;
            normal = class.last.or(normal);
        }
        self.at = text.len();
        Some(Ok(Piece::Text(start..text.len())))
    }
}
