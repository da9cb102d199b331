//! Which rows a model gets wrong: by length, and the ones of which it is surest.

use super::{Predictions, wilson_interval};
use crate::data::Dataset;
use serde::Serialize;

/// Rows that are named as confidently wrong.
const WORST: usize = 10;
/// Characters of a text that are shown.
const EXCERPT: usize = 280;
/// The first bucket holds texts of up to so many tokens; each further one twice as many.
const SHORTEST: u32 = 32;

/// The rows of `from` to `to` tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LengthBucket {
    /// Shortest length, in tokens as read (after truncation).
    pub from: u32,
    /// Longest length.
    pub to: u32,
    /// Rows in the bucket.
    pub rows: u64,
    /// Share of them that is right.
    pub accuracy: f64,
    /// Its 95 % Wilson interval.
    pub interval: (f64, f64),
}

/// Accuracy by length in tokens: buckets up to 32, 64, 128, .. tokens, those without rows left out.
pub fn accuracy_by_length(predictions: &Predictions) -> Vec<LengthBucket> {
    let mut counts: Vec<(u64, u64)> = Vec::new();
    for row in 0..predictions.len() {
        let bucket = predictions.tokens[row].div_ceil(SHORTEST).next_power_of_two().trailing_zeros() as usize;
        counts.resize(counts.len().max(bucket + 1), (0, 0));
        counts[bucket].0 += 1;
        counts[bucket].1 += u64::from(predictions.is_correct(row));
    }
    let filled = counts.into_iter().enumerate().filter(|(_, (rows, _))| *rows > 0);
    filled
        .map(|(bucket, (rows, correct))| {
            let accuracy = correct as f64 / rows as f64;
            LengthBucket {
                from: if bucket == 0 { 1 } else { (SHORTEST << (bucket - 1)) + 1 },
                to: SHORTEST << bucket,
                rows,
                accuracy,
                interval: wilson_interval(accuracy, rows),
            }
        })
        .collect()
}

/// A row that the model got wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WrongRow {
    /// Its index in the evaluated rows, from 0: the `row` of `predictions.jsonl`.
    pub row: usize,
    /// Its true class.
    pub label: String,
    /// What the model said.
    pub predicted: String,
    /// How sure it was: the probability of what it said.
    pub probability: f32,
    /// Tokens read.
    pub tokens: u32,
    /// The beginning of its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

/// The wrong rows of which the model was surest, the surest first, equals in the order of the data.
pub fn confidently_wrong(predictions: &Predictions) -> Vec<WrongRow> {
    let mut rows: Vec<usize> = (0..predictions.len()).filter(|&row| !predictions.is_correct(row)).collect();
    rows.sort_by(|&a, &b| predictions.confidence(b).total_cmp(&predictions.confidence(a)));
    let name = |class: u32| predictions.names[class as usize].clone();
    let wrong = |&row: &usize| WrongRow {
        row,
        label: name(predictions.labels[row]),
        predicted: name(predictions.predicted[row]),
        probability: predictions.confidence(row),
        tokens: predictions.tokens[row],
        excerpt: None,
    };
    rows.iter().take(WORST).map(wrong).collect()
}

impl WrongRow {
    /// Takes the beginning of the row's text from the evaluated rows.
    pub fn quote(&mut self, rows: &Dataset) {
        self.excerpt = rows.examples.get(self.row).map(|example| excerpt(&example.text));
    }
}

/// The first characters of a text on one line, cut at a word.
fn excerpt(text: &str) -> String {
    let mut words = text.split_whitespace();
    let mut out = String::new();
    for word in words.by_ref() {
        let room = EXCERPT.saturating_sub(out.chars().count() + 1);
        if word.chars().count() > room {
            // A text without spaces is cut anywhere.
            if out.is_empty() {
                out.extend(word.chars().take(EXCERPT));
            }
            out.push('…');
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_line_of_whole_words() {
        assert_eq!(excerpt(" good\n\n film\t!"), "good film !");
        let long = "word ".repeat(100);
        let cut = excerpt(&long);
        assert!(cut.ends_with("word…") && cut.chars().count() <= EXCERPT + 1, "{cut}");
        assert_eq!(excerpt(&"好".repeat(500)).chars().count(), EXCERPT + 1);
        assert_eq!(excerpt(""), "");
    }
}
