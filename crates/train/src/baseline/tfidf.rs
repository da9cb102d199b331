//! [`Tfidf`]: texts as rows of weighted terms. Mirrors `TfidfVectorizer` of scikit-learn
//! (`sklearn/feature_extraction/text.py`) with its defaults `lowercase`, `token_pattern=r"(?u)\b\w\w+\b"`, `smooth_idf` and
//! `norm="l2"`.
//!
//! A text is lower-cased; its words are the runs of two or more letters, digits and underscores. A term is a word, or two
//! neighbours. Of a text with `n > 0` occurrences of term t, the entry is `tf(n) idf(t)`, and each row is divided by its L2 norm:
//!
//! `idf(t) = ln((1 + texts) / (1 + texts with t)) + 1`; `tf(n) = n`, or `1 + ln n` (sublinear).

use super::BagOfWordsSettings;
use super::sparse::SparseRows;
use crate::{Result, TrainError};
use regex::Regex;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Python's `\w` is letters, numbers and the underscore. The `\w` of the regex crate has marks, too, and would split no words where
/// Python does.
static WORD: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[\p{L}\p{N}_]{2,}").expect("internal: the pattern of a word"));

/// In the place of the second word: there is none.
const NONE: u32 = u32::MAX;

/// A term: the numbers of its words. As one number, so that a row of them sorts fast.
type Key = u64;

fn key(first: u32, second: u32) -> Key {
    u64::from(first) << 32 | u64::from(second)
}

/// What was learnt of texts: which terms count, and how much.
#[derive(Clone, Debug)]
pub struct Tfidf {
    ngrams: usize,
    sublinear_tf: bool,
    words: HashMap<String, u32>,
    /// The column of each term.
    columns: HashMap<Key, u32>,
    terms: Vec<String>,
    idf: Vec<f64>,
}

/// How often a term occurs: in so many texts, and so many times.
#[derive(Clone, Copy, Default)]
struct Occurrences {
    texts: usize,
    times: u64,
}

impl Tfidf {
    /// Learns the terms of texts, and returns their rows.
    ///
    /// # Errors
    /// `Technique` where no term is left.
    pub fn fit(texts: &[&str], settings: &BagOfWordsSettings) -> Result<(Self, SparseRows)> {
        let mut words: HashMap<String, u32> = HashMap::new();
        let mut numbers: Vec<Vec<u32>> = Vec::with_capacity(texts.len());
        for text in texts {
            let mut row = Vec::new();
            for_each_word(text, |word| {
                let next = words.len() as u32;
                row.push(match words.get(word) {
                    Some(&number) => number,
                    None => *words.entry(word.to_owned()).or_insert(next),
                });
            });
            numbers.push(row);
        }
        let mut seen: HashMap<Key, Occurrences> = HashMap::new();
        for row in &numbers {
            for (key, times) in counted(row, settings.ngrams) {
                let occurrences = seen.entry(key).or_default();
                occurrences.texts += 1;
                occurrences.times += times;
            }
        }
        let kept = kept(seen, &words, settings)?;
        let idf = |seen: Occurrences| ((1 + texts.len()) as f64 / (1 + seen.texts) as f64).ln() + 1.0;
        let tfidf = Tfidf {
            ngrams: settings.ngrams,
            sublinear_tf: settings.sublinear_tf,
            columns: kept.iter().enumerate().map(|(column, (_, key, _))| (*key, column as u32)).collect(),
            idf: kept.iter().map(|(.., seen)| idf(*seen)).collect(),
            terms: kept.into_iter().map(|(term, ..)| term).collect(),
            words,
        };
        let mut rows = SparseRows::new(tfidf.terms.len());
        numbers.iter().for_each(|row| tfidf.push(row, &mut rows));
        Ok((tfidf, rows))
    }

    /// The rows of texts, and the number of words of each. Terms that were not learnt do not count.
    pub fn transform(&self, texts: &[&str]) -> (SparseRows, Vec<u32>) {
        let (mut rows, mut lengths) = (SparseRows::new(self.terms.len()), Vec::with_capacity(texts.len()));
        let mut numbers = Vec::new();
        for text in texts {
            numbers.clear();
            // An unknown word is no term, and neither are the pairs that it is part of.
            for_each_word(text, |word| numbers.push(self.words.get(word).copied().unwrap_or(NONE)));
            self.push(&numbers, &mut rows);
            lengths.push(numbers.len() as u32);
        }
        (rows, lengths)
    }

    /// The row of a text's words.
    fn push(&self, words: &[u32], rows: &mut SparseRows) {
        let tf = |times: u64| if self.sublinear_tf { 1.0 + (times as f64).ln() } else { times as f64 };
        let mut row: Vec<(u32, f64)> = counted(words, self.ngrams)
            .filter_map(|(key, times)| {
                let &column = self.columns.get(&key)?;
                Some((column, tf(times) * self.idf[column as usize]))
            })
            .collect();
        row.sort_unstable_by_key(|(column, _)| *column);
        let norm = row.iter().map(|(_, value)| value * value).sum::<f64>().sqrt();
        rows.push(row.into_iter().map(|(column, value)| (column, value / norm)));
    }

    /// The terms, in order of their code points: the names of the columns.
    pub fn terms(&self) -> &[String] {
        &self.terms
    }

    /// The inverse document frequency of each term.
    pub fn idf(&self) -> &[f64] {
        &self.idf
    }
}

/// The terms that stay, in order of their code points.
fn kept(
    seen: HashMap<Key, Occurrences>,
    words: &HashMap<String, u32>,
    settings: &BagOfWordsSettings,
) -> Result<Vec<(String, Key, Occurrences)>> {
    let mut by_number = vec![""; words.len()];
    words.iter().for_each(|(word, &number)| by_number[number as usize] = word);
    let name = |key: Key| match ((key >> 32) as usize, key as u32) {
        (first, NONE) => by_number[first].to_owned(),
        (first, second) => format!("{} {}", by_number[first], by_number[second as usize]),
    };
    let mut kept: Vec<(String, Key, Occurrences)> = seen
        .into_iter()
        .filter(|(_, seen)| seen.texts >= settings.min_df)
        .map(|(key, seen)| (name(key), key, seen))
        .collect();
    if kept.is_empty() {
        let why = match settings.min_df {
            0 | 1 => "the texts have no words of two or more letters or digits".to_owned(),
            min_df => format!("no word is in {min_df} texts; --min-df 1 takes every word"),
        };
        return Err(TrainError::Technique { option: "--min-df", why });
    }
    if let Some(most) = settings.max_features {
        kept.sort_by(|a, b| (Reverse(a.2.times), &a.0).cmp(&(Reverse(b.2.times), &b.0)));
        kept.truncate(most);
    }
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(kept)
}

/// The terms of a text's words and how often each occurs, in order of the keys.
fn counted(words: &[u32], ngrams: usize) -> impl Iterator<Item = (Key, u64)> {
    let known = |word: u32| word != NONE;
    let mut keys: Vec<Key> = words.iter().filter(|&&word| known(word)).map(|&word| key(word, NONE)).collect();
    if ngrams > 1 {
        let pairs = words.windows(2).filter(|pair| known(pair[0]) && known(pair[1]));
        keys.extend(pairs.map(|pair| key(pair[0], pair[1])));
    }
    keys.sort_unstable();
    let mut place = 0;
    std::iter::from_fn(move || {
        let &key = keys.get(place)?;
        let times = keys[place..].iter().take_while(|&&other| other == key).count();
        place += times;
        Some((key, times as u64))
    })
}

/// The words of a text, in its order.
fn for_each_word(text: &str, mut word: impl FnMut(&str)) {
    let lower = text.to_lowercase();
    WORD.find_iter(&lower).for_each(|found| word(found.as_str()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_what_python_calls_one() {
        let words = |text: &str| {
            let mut words = Vec::new();
            for_each_word(text, |word| words.push(word.to_owned()));
            words
        };
        // A mark, the vowel sign of हि, is no \w in Python.
        assert_eq!(words("A Good_film, 10/10! É² x हिन्दी ΟΔΟΣ"), ["good_film", "10", "10", "é²", "οδος"]);
        assert_eq!(words("don't"), ["don"]);
        assert_eq!(words(""), Vec::<String>::new());
    }

    #[test]
    fn pairs_do_not_bridge_an_unknown_word() {
        let settings = BagOfWordsSettings { min_df: 1, ..BagOfWordsSettings::default() };
        let (tfidf, _) = Tfidf::fit(&["one two three", "one three"], &settings).unwrap();
        assert_eq!(tfidf.terms(), ["one", "one three", "one two", "three", "two", "two three"]);
        let (rows, lengths) = tfidf.transform(&["one unseen three", "unseen"]);
        assert_eq!((rows.times(&[1.0; 6], 1)[1], lengths), (0.0, vec![3, 1]));
        let only_words = tfidf.transform(&["three", "one"]).0.times(&[1.0; 6], 1);
        assert_eq!(only_words, [1.0, 1.0]);
    }
}
