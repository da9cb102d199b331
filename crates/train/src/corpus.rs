//! The built-in data set: short film reviews from a small grammar, so that a fresh clone trains offline.
//!
//! The grammar (`corpus/grammar.txt`) writes a review for a given label, and turns words around on the way: negation
//! ("not bad", "never boring", "hardly a masterpiece"), negation that turns nothing ("not only brilliant but also
//! moving"), contrast ("I expected it to be good, but it was not"), comparison, other people's opinions. Praise and blame
//! words therefore occur under both labels, and counting words does not solve it; reading them together does.
//!
//! One in eight pairs of (template, adjective) is held out: no training review contains such a pair and every test review
//! contains at least one. A model has to know "nobody could call it" and "tedious" apart to read them together.

use std::collections::{BTreeSet, HashSet};

use vitrine_tensor::random;

use crate::data::{Dataset, Example, Splits};

const GRAMMAR: &str = include_str!("corpus/grammar.txt");

/// Training reviews of the default data set.
pub const TRAIN_ROWS: usize = 12_000;

/// Test reviews of the default data set.
pub const TEST_ROWS: usize = 500;

/// Names of the classes 0 and 1.
pub const LABEL_NAMES: [&str; 2] = ["negative", "positive"];

/// Reviews that must stay unseen, because the demonstration at the end of a training run classifies them.
pub const UNSEEN: [&str; 3] = [
    "This movie was absolutely fantastic! I loved every minute of it.",
    "I absolutely hated this film. It was a complete waste of time and money.",
    "This film was not bad, but it wasn't great either. Pretty mediocre, actually.",
];

/// The default data set: 12,000 training and 500 test reviews, half of each positive, a function of `seed` only. No text
/// occurs twice.
pub fn splits(seed: u64) -> Splits {
    let grammar = Grammar::parse(GRAMMAR);
    let mut author = Author { draws: Draws { key: random::key(seed), used: 0 }, grammar: &grammar };
    let mut seen: HashSet<String> = UNSEEN.map(str::to_owned).into();
    let mut dataset = |rows: usize, part: &str, held_out: bool| Dataset {
        examples: (0..rows)
            .map(|row| {
                let label = (row % 2) as u32;
                let text = author.review(label == 1, held_out, &mut seen);
                Example { text, label }
            })
            .collect(),
        label_names: LABEL_NAMES.map(str::to_owned).to_vec(),
        source: format!("built-in reviews ({part}, seed {seed})"),
        ..Dataset::default()
    };
    let train = dataset(TRAIN_ROWS, "train", false);
    Splits { train, test: Some(dataset(TEST_ROWS, "test", true)), notes: Vec::new() }
}

/// The content of a WordPiece `vocab.txt`, one entry a line: `[PAD] [UNK] [CLS] [SEP] [MASK]`, the lower-case ASCII
/// characters, the letters and digits as continuations (`##a`), and every word of the grammar. All of the corpus is
/// covered by whole words, and any other English text by its letters.
pub fn vocabulary() -> String {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let characters = ('!'..='~').filter(|c| !c.is_ascii_uppercase());
    let continuations = ('0'..='9').chain('a'..='z');
    // BERT's pre-tokenizer cuts at spaces and punctuation.
    let words: BTreeSet<String> = Grammar::parse(GRAMMAR)
        .rules
        .iter()
        .flat_map(|rule| &rule.body)
        .filter_map(|piece| if let Piece::Text(text) = piece { Some(text) } else { None })
        .flat_map(|text| text.split(|c: char| !c.is_ascii_alphabetic()))
        .filter(|word| word.len() > 1)
        .map(str::to_ascii_lowercase)
        .collect();
    special
        .into_iter()
        .chain(characters.map(|c| c.to_string()))
        .chain(continuations.map(|c| format!("##{c}")))
        .chain(words)
        .map(|entry| entry + "\n")
        .collect()
}

/// A grammar with polarities: see the head of `grammar.txt`.
struct Grammar {
    rules: Vec<Rule>,
}

struct Rule {
    symbol: &'static str,
    /// Praise (true), blame (false), or either.
    polarity: Option<bool>,
    weight: u32,
    body: Vec<Piece>,
}

enum Piece {
    Text(&'static str),
    Symbol(&'static str, Polarity),
}

#[derive(Clone, Copy)]
enum Polarity {
    Same,
    Opposite,
    Fixed(bool),
}

impl Grammar {
    fn parse(text: &'static str) -> Grammar {
        let mut rules = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some((head, words)) = line.split_once(" = ") {
                rules.extend(words.split(" | ").map(|word| Rule::parse(head, word)));
            } else if let Some((head, template)) = line.split_once(": ") {
                rules.push(Rule::parse(head, template));
            }
        }
        Grammar { rules }
    }
}

impl Rule {
    fn parse(head: &'static str, template: &'static str) -> Rule {
        let (symbol, weight) = head.split_once(' ').unwrap_or((head, "1"));
        let polarity = symbol.chars().last().filter(|sign| matches!(sign, '+' | '-')).map(|sign| sign == '+');
        let mut body = Vec::new();
        let mut rest = if template == "_" { "" } else { template };
        while let Some((text, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            let polarity = match name.as_bytes().first() {
                Some(b'!') => Polarity::Opposite,
                Some(b'+') => Polarity::Fixed(true),
                Some(b'-') => Polarity::Fixed(false),
                _ => Polarity::Same,
            };
            body.push(Piece::Text(text));
            body.push(Piece::Symbol(name.trim_start_matches(['!', '+', '-']), polarity));
            rest = after;
        }
        body.push(Piece::Text(rest));
        Rule {
            symbol: symbol.trim_end_matches(['+', '-']),
            polarity,
            weight: weight.parse().unwrap_or(1),
            body,
        }
    }

    /// Whether this is a word of praise or blame, and not a template.
    fn is_opinion(&self) -> bool {
        self.polarity.is_some() && self.body.len() == 1
    }
}

/// Uniform draws from Philox: the counter is the number of draws before.
struct Draws {
    key: [u32; 2],
    used: u64,
}

impl Draws {
    /// A number below `bound`; the bias is under `bound / 2^32`.
    fn below(&mut self, bound: u32) -> u32 {
        let [word, ..] = random::philox([self.used as u32, (self.used >> 32) as u32, 0, 0], self.key);
        self.used += 1;
        ((u64::from(word) * u64::from(bound)) >> 32) as u32
    }
}

/// Writes reviews.
struct Author<'a> {
    draws: Draws,
    grammar: &'a Grammar,
}

impl Author<'_> {
    /// A review that is not in `seen`, with a held-out pair (or with none), and with no opinion word twice.
    fn review(&mut self, praise: bool, held_out: bool, seen: &mut HashSet<String>) -> String {
        loop {
            let (mut text, mut pairs) = (String::new(), Vec::new());
            self.expand("review", praise, 0, &mut text, &mut pairs);
            let text = tidy(&text);
            let words: HashSet<usize> = pairs.iter().map(|&(_, word)| word).collect();
            let fits =
                pairs.iter().any(|&pair| self.is_held_out(pair)) == held_out && words.len() == pairs.len();
            if fits && seen.insert(text.clone()) {
                return text;
            }
        }
    }

    /// One pair in eight whose word is an adjective, the same for every seed.
    fn is_held_out(&self, (template, word): (usize, usize)) -> bool {
        let [hash, ..] = random::philox([template as u32, word as u32, 0, 0], random::key(0));
        self.grammar.rules[word].symbol == "adjective" && hash.is_multiple_of(8)
    }

    /// Appends one way to write `symbol`, and the (template, opinion word) pairs in it. `template` is the rule that asks.
    fn expand(
        &mut self,
        symbol: &str,
        praise: bool,
        template: usize,
        text: &mut String,
        pairs: &mut Vec<(usize, usize)>,
    ) {
        let grammar = self.grammar;
        let fits =
            |rule: &Rule| rule.symbol == symbol && rule.polarity.is_none_or(|polarity| polarity == praise);
        let candidates = || grammar.rules.iter().enumerate().filter(|(_, rule)| fits(rule));
        let mut ticket = self.draws.below(candidates().map(|(_, rule)| rule.weight).sum());
        for (index, rule) in candidates() {
            if ticket >= rule.weight {
                ticket -= rule.weight;
                continue;
            }
            if rule.is_opinion() {
                pairs.push((template, index));
            }
            for piece in &rule.body {
                match *piece {
                    Piece::Text(words) => text.push_str(words),
                    Piece::Symbol(symbol, polarity) => {
                        let praise = match polarity {
                            Polarity::Same => praise,
                            Polarity::Opposite => !praise,
                            Polarity::Fixed(polarity) => polarity,
                        };
                        self.expand(symbol, praise, index, text, pairs);
                    }
                }
            }
            return;
        }
    }
}

/// Single spaces, `an` before vowels, a capital letter at the start of each sentence.
fn tidy(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut tidied = String::with_capacity(text.len());
    for (i, &word) in words.iter().enumerate() {
        let next = words.get(i + 1).copied().unwrap_or_default();
        let word = if word == "a" && next.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { word };
        if i > 0 {
            tidied.push(' ');
        }
        if tidied.is_empty() || tidied.ends_with(". ") || tidied.ends_with("! ") {
            let mut letters = word.chars();
            tidied.extend(letters.next().map(|first| first.to_ascii_uppercase()));
            tidied.push_str(letters.as_str());
        } else {
            tidied.push_str(word);
        }
    }
    tidied
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words and punctuation marks as BERT's pre-tokenizer cuts lower-cased ASCII text.
    fn words(text: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        for c in text.to_ascii_lowercase().chars() {
            if !c.is_ascii_alphabetic() {
                words.push(c.to_string());
                words.push(String::new());
            } else if let Some(word) = words.last_mut() {
                word.push(c);
            }
        }
        words.retain(|word| !word.trim().is_empty());
        words
    }

    fn parts(seed: u64) -> (Dataset, Dataset) {
        let splits = splits(seed);
        (splits.train, splits.test.unwrap())
    }

    #[test]
    fn balanced_distinct_and_a_function_of_the_seed() {
        let (train, test) = parts(42);
        assert_eq!(train.class_counts(), [TRAIN_ROWS / 2; 2]);
        assert_eq!(test.class_counts(), [TEST_ROWS / 2; 2]);
        let texts: HashSet<&str> =
            train.examples.iter().chain(&test.examples).map(|e| e.text.as_str()).collect();
        assert_eq!(texts.len(), TRAIN_ROWS + TEST_ROWS);
        assert!(UNSEEN.iter().all(|text| !texts.contains(text)));
        let (again, _) = parts(42);
        assert_eq!(train.sha256(), again.sha256());
        assert_ne!(train.sha256(), parts(43).0.sha256());
    }

    #[test]
    fn every_symbol_of_the_grammar_is_known_and_used() {
        let grammar = Grammar::parse(GRAMMAR);
        let mut used: BTreeSet<&str> = ["review"].into();
        for rule in &grammar.rules {
            for piece in &rule.body {
                match *piece {
                    Piece::Symbol(name, _) => {
                        for praise in [false, true] {
                            let fits = |r: &&Rule| r.symbol == name && r.polarity.is_none_or(|p| p == praise);
                            assert!(
                                grammar.rules.iter().any(|rule| fits(&rule)),
                                "no `{name}` for praise = {praise}"
                            );
                        }
                        used.insert(name);
                    }
                    Piece::Text(text) => {
                        assert!(text.is_ascii() && !text.contains(['}', '|', '=']), "{text:?}");
                    }
                }
            }
        }
        let defined: BTreeSet<&str> = grammar.rules.iter().map(|rule| rule.symbol).collect();
        assert_eq!(defined, used);
        let lines = GRAMMAR.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        assert!(grammar.rules.len() >= lines.count(), "a line is neither a template nor words");
    }

    #[test]
    fn reviews_read_as_english() {
        let (train, test) = parts(7);
        for Example { text, .. } in train.examples.iter().chain(&test.examples) {
            assert!(text.starts_with(|c: char| c.is_ascii_uppercase()), "{text}");
            assert!(text.ends_with(['.', '!']), "{text}");
            for blemish in ["  ", " .", " ,", "{", "}", "_", "..", " a a", " a e", " a i", " a o", " a u"] {
                assert!(!text.contains(blemish), "{blemish:?} in {text:?}");
            }
            assert!((3..=50).contains(&words(text).len()), "{text}");
        }
    }

    #[test]
    fn turned_words_occur_under_both_labels() {
        let (train, _) = parts(42);
        let labels = |part: &str| -> BTreeSet<u32> {
            train.examples.iter().filter(|e| e.text.contains(part)).map(|e| e.label).collect()
        };
        for part in ["was not only", "I expected ", " hardly ", " never ", "not bad", " good"] {
            assert_eq!(labels(part), [0, 1].into(), "{part:?} should occur under both labels");
        }
        assert_eq!(
            labels("pretty mediocre.").union(&labels("Pretty mediocre.")).copied().collect::<Vec<_>>(),
            [0]
        );
    }

    #[test]
    fn vocabulary_covers_the_corpus_by_whole_words() {
        let vocabulary = vocabulary();
        let entries: Vec<&str> = vocabulary.lines().collect();
        assert_eq!(entries[..5], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
        let known: HashSet<&str> = entries.iter().copied().collect();
        assert_eq!(known.len(), entries.len(), "an entry occurs twice");
        assert!((500..1500).contains(&entries.len()), "{} entries", entries.len());
        let (train, test) = parts(3);
        for Example { text, .. } in train.examples.iter().chain(&test.examples) {
            for word in words(text) {
                assert!(known.contains(word.as_str()), "{word:?} of {text:?}");
            }
        }
        for word in UNSEEN.iter().flat_map(|text| words(text)) {
            assert!(known.contains(word.as_str()), "{word:?}");
        }
        for c in ('a'..='z').chain('0'..='9') {
            assert!(
                known.contains(c.to_string().as_str()) && known.contains(format!("##{c}").as_str()),
                "{c}"
            );
        }
    }

    /// Logistic regression on the presence of words, trained to convergence: (training accuracy, test accuracy).
    fn bag_of_words(train: &Dataset, test: &Dataset) -> (f64, f64) {
        let vocabulary: Vec<String> =
            train.examples.iter().flat_map(|e| words(&e.text)).collect::<BTreeSet<_>>().into_iter().collect();
        let features = |text: &str| -> Vec<usize> {
            let present: BTreeSet<String> = words(text).into_iter().collect();
            present.iter().filter_map(|word| vocabulary.binary_search(word).ok()).collect()
        };
        let rows = |data: &Dataset| -> Vec<(Vec<usize>, f64)> {
            data.examples.iter().map(|e| (features(&e.text), f64::from(e.label))).collect()
        };
        let (train, test) = (rows(train), rows(test));
        let mut weights = vec![0.0; vocabulary.len()];
        let mut squares = vec![1e-8; vocabulary.len()];
        for _ in 0..30 {
            for (row, label) in &train {
                let score: f64 = row.iter().map(|&word| weights[word]).sum();
                let error = label - 1.0 / (1.0 + (-score).exp());
                for &word in row {
                    squares[word] += error * error;
                    weights[word] += 0.1 * error / f64::sqrt(squares[word]);
                }
            }
        }
        let accuracy = |rows: &[(Vec<usize>, f64)]| {
            let right = |(row, label): &&(Vec<usize>, f64)| {
                (row.iter().map(|&word| weights[word]).sum::<f64>() > 0.0) == (*label > 0.5)
            };
            rows.iter().filter(right).count() as f64 / rows.len() as f64
        };
        (accuracy(&train), accuracy(&test))
    }

    #[test]
    fn counting_words_does_not_solve_it() {
        let (train, test) = parts(42);
        let (seen, unseen) = bag_of_words(&train, &test);
        eprintln!("bag of words: {seen:.3} on its training reviews, {unseen:.3} on the test reviews");
        assert!(0.55 < seen && seen < 0.85, "{seen}");
        assert!(0.5 < unseen && unseen < 0.8, "{unseen}");
    }
}
