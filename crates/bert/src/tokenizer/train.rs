//! [`Tokenizer::train`]: a WordPiece vocabulary from texts.
//!
//! Merges are those of byte-pair encoding by frequency, as in the `WordPieceTrainer` of the `tokenizers` crate, whose BPE trainer does
//! the work. That trainer numbers the forms `##c` in the order of a hash map that differs from run to run, and breaks ties of
//! frequencies by these numbers. So the forms are given to it in a fixed order, as tokens that come first: the vocabulary is then a
//! function of the texts and the size.

use super::{Tokenizer, stopped};
use crate::panics::caught;
use crate::{BertError, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
use vitrine_tensor::cpu::parallel;

/// The tokens that come first, in BERT's order.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// What stands before a piece that continues a word.
const CONTINUES: &str = "##";
/// A longer word is `[UNK]` to a WordPiece tokenizer.
const MAX_WORD_CHARS: usize = 100;
/// A pair of pieces that occurs only once is no word's part.
const MIN_FREQUENCY: u64 = 2;
/// A character that is rarer than one in so many gets no token; words with it are `[UNK]`.
const RAREST_CHARACTER: u64 = 1_000_000;
/// Texts counted by one piece of parallel work.
const TEXTS: usize = 256;

impl Tokenizer {
    /// A lower-casing WordPiece tokenizer of at most `size` tokens, made for these texts: `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`,
    /// `[MASK]`, the characters, then the merges, the most frequent first. Fewer tokens if the texts have no more that occur twice.
    ///
    /// # Errors
    /// `Tokenizer` for texts without a word, and for a size that has no room for the characters.
    pub fn train<S: AsRef<str> + Sync>(texts: &[S], size: usize) -> Result<Self> {
        Self::from_vocabulary(&vocabulary(texts, size)?)
    }
}

/// The text of a `vocab.txt`.
fn vocabulary<S: AsRef<str> + Sync>(texts: &[S], size: usize) -> Result<String> {
    let fail = |source: tokenizers::Error| BertError::Tokenizer { path: "vocabulary".into(), source };
    let words = count_words(texts).map_err(fail)?;
    let (words, characters) = with_common_characters(words);
    if words.is_empty() {
        return Err(fail("the texts have no words to make it of".into()));
    }
    let continuing: BTreeSet<char> = words.iter().flat_map(|(word, _)| word.chars().skip(1)).collect();
    let least = SPECIAL.len() + characters.len() + continuing.len();
    if size < least {
        let message = format!(
            "{size} tokens are too few: the special tokens and the characters of these texts take {least}"
        );
        return Err(fail(message.into()));
    }
    let first =
        SPECIAL.iter().map(ToString::to_string).chain(continuing.iter().map(|c| format!("{CONTINUES}{c}")));
    let trainer = BpeTrainer::builder()
        .vocab_size(size)
        .min_frequency(MIN_FREQUENCY)
        .show_progress(false)
        .continuing_subword_prefix(CONTINUES.into())
        .special_tokens(first.map(|token| AddedToken::from(token, true)).collect())
        .build();
    // The trainer adds counts of pairs in 32 bits.
    let all: u64 = words.iter().map(|(word, count)| word.len() as u64 * count).sum();
    let scale = all.div_ceil(i32::MAX as u64).max(1);
    let counts =
        words.into_iter().map(|(word, count)| (word.as_str().into(), count.div_ceil(scale))).collect();
    let mut merged = BPE::default();
    caught(|| trainer.do_train(&counts, &mut merged))
        .map_err(|panicked| fail(stopped(&panicked).into()))?
        .map_err(fail)?;
    let tokens: BTreeMap<u32, String> =
        merged.get_vocab().into_iter().map(|(token, id)| (id, token)).collect();
    Ok(tokens.into_values().map(|token| token + "\n").collect())
}

/// How often each word occurs, as the tokenizer will see it: in lower case, without accents, cut at spaces and punctuation.
fn count_words<S: AsRef<str> + Sync>(
    texts: &[S],
) -> std::result::Result<HashMap<String, u64>, tokenizers::Error> {
    let normalizer = BertNormalizer::default();
    let counted = parallel::map(texts.chunks(TEXTS), |_, texts| {
        let mut counts: HashMap<String, u64> = HashMap::new();
        for text in texts {
            let mut text = PreTokenizedString::from(text.as_ref());
            text.normalize(|part| normalizer.normalize(part))?;
            BertPreTokenizer.pre_tokenize(&mut text)?;
            for (word, ..) in text.get_splits(OffsetReferential::Normalized, OffsetType::None) {
                match counts.get_mut(word) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(word.to_owned(), 1)),
                }
            }
        }
        Ok(counts)
    });
    counted
        .into_iter()
        .reduce(|sums, counts| {
            let mut sums = sums?;
            for (word, count) in counts? {
                *sums.entry(word).or_default() += count;
            }
            Ok(sums)
        })
        .unwrap_or_else(|| Ok(HashMap::new()))
}

/// The words that a WordPiece tokenizer can cut and whose characters are all common, in order, and these characters.
fn with_common_characters(words: HashMap<String, u64>) -> (Vec<(String, u64)>, BTreeSet<char>) {
    let mut counts: BTreeMap<char, u64> = BTreeMap::new();
    for (word, count) in &words {
        word.chars().for_each(|c| *counts.entry(c).or_default() += count);
    }
    let all: u64 = counts.values().sum();
    counts.retain(|_, count| *count >= (all / RAREST_CHARACTER).max(MIN_FREQUENCY));
    let fits = |word: &str| {
        word.chars().all(|c| counts.contains_key(&c)) && word.chars().nth(MAX_WORD_CHARS).is_none()
    };
    let mut words: Vec<(String, u64)> = words.into_iter().filter(|(word, _)| fits(word)).collect();
    words.sort_unstable();
    let characters = words.iter().flat_map(|(word, _)| word.chars()).collect();
    (words, characters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<String> {
        let words =
            ["absolutely", "awful", "actors", "acting", "acted", "wonderful", "wonder", "Éclair", "don't"];
        (0..400usize)
            .map(|i| [words[i % 9], words[i * i % 9], words[i / 3 % 9], "the movie!"].join(" "))
            .collect()
    }

    #[test]
    fn a_vocabulary_is_a_function_of_the_texts() {
        let made = vocabulary(&texts(), 80).unwrap();
        for threads in [1, 3] {
            // Hash maps have other seeds in each; ties of frequencies abound.
            for _ in 0..5 {
                assert_eq!(parallel::with_threads(threads, || vocabulary(&texts(), 80).unwrap()), made);
            }
        }
        let tokens: Vec<&str> = made.lines().collect();
        assert_eq!(tokens.len(), 80);
        assert_eq!(tokens[..5], SPECIAL);
        assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), 80);
        for token in ["a", "##a", "the", "movie", "!", "'"] {
            assert!(tokens.contains(&token), "{token} is missing from {tokens:?}");
        }
        // Accents and capitals are no letters of their own; nothing continues with punctuation.
        assert!(!tokens.contains(&"é") && !tokens.contains(&"E") && !tokens.contains(&"##!"));
    }

    #[test]
    fn the_tokenizer_knows_the_words_of_its_texts() {
        let tokenizer = Tokenizer::train(&texts(), 200).unwrap();
        // The texts have no more pairs that occur twice.
        assert!(tokenizer.vocabulary_size() < 200, "{}", tokenizer.vocabulary_size());
        let ids = tokenizer.encode("ABSOLUTELY wonderful Eclair", 20).unwrap().ids;
        let tokens: Vec<String> = ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect();
        assert_eq!(tokens, ["[CLS]", "absolutely", "wonderful", "eclair", "[SEP]"]);
        let ids = tokenizer.encode("a [MASK] ☃", 20).unwrap().ids;
        assert_eq!(ids[2..4], [4, 1]);
    }

    #[test]
    fn what_cannot_be_made_is_said() {
        let said = |texts: &[&str], size| vocabulary(texts, size).unwrap_err().to_string();
        assert!(said(&[], 100).contains("no words"), "{}", said(&[], 100));
        assert!(said(&["", " \n"], 100).contains("no words"));
        assert!(said(&["abc abc", "cab"], 9).contains("too few"), "{}", said(&["abc abc", "cab"], 9));
    }
}
