//! What is odd about a data set: `vitrine data inspect`.
//!
//! `faults` looks at one text, `duplicates` at all of them; here is counted, and examples are kept.

mod duplicates;
mod faults;

use crate::Location;
use crate::data::SourceSplit;
use duplicates::{Occurrence, Texts};
use faults::Faults;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

pub use duplicates::{NEAR, SHINGLE};

/// Examples of each finding that are kept.
const EXAMPLES: usize = 3;
/// Characters of a text that are shown of it.
const SHOWN: usize = 60;

/// A row that shows a finding.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// The split.
    pub split: String,
    /// The row, counted from zero over the split.
    pub row: usize,
    /// Its file and its line or row there.
    pub place: String,
    /// Its label.
    pub label: Option<String>,
    /// The beginning of the text, or the part that shows it.
    pub text: String,
    /// The other row of a pair, and its label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<Other>,
}

/// The other row of a pair.
#[derive(Clone, Debug, Serialize)]
pub struct Other {
    /// Its split.
    pub split: String,
    /// The row, counted from zero over the split.
    pub row: usize,
    /// Its file and its line or row there.
    pub place: String,
    /// Its label.
    pub label: Option<String>,
    /// How much of their shingles two near duplicates share (Jaccard index).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f64>,
}

/// How many rows show something, and the first of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Finding {
    /// Rows that show it.
    pub rows: usize,
    /// The same as a share of the split's rows.
    pub share: f64,
    /// The first of them.
    pub examples: Vec<Example>,
}

impl Finding {
    fn add(&mut self, example: impl FnOnce() -> Example) {
        self.rows += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

/// One bar of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// The shortest length that is counted.
    pub from: usize,
    /// The longest; none for the last bar, which has no end.
    pub to: Option<usize>,
    /// Rows of such lengths.
    pub rows: usize,
}

/// Lengths of a split's texts.
#[derive(Clone, Debug, Serialize)]
pub struct Lengths {
    /// The mean.
    pub mean: f64,
    /// Lengths at or below which lie 0, 5, 25, 50, 75, 90, 95, 99 and 100 % of the rows (nearest rank).
    pub percentiles: BTreeMap<usize, usize>,
    /// At most [`BARS`] bars of one width, the last without an end.
    pub histogram: Vec<Bar>,
    /// Rows that are longer than the maximum, where there is one.
    pub truncated: Option<Truncated>,
}

/// What a maximum length cuts off.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Truncated {
    /// The maximum, in tokens with `[CLS]` and `[SEP]`.
    pub max_length: usize,
    /// Longer rows.
    pub rows: usize,
    /// The same as a share.
    pub share: f64,
    /// Tokens that are cut off, as a share of all.
    pub tokens_share: f64,
}

/// Bars of a histogram, at most.
pub const BARS: usize = 12;

impl Lengths {
    /// Of a split that has rows.
    pub fn of(lengths: &[usize], max_length: Option<usize>) -> Self {
        let mut sorted = lengths.to_vec();
        sorted.sort_unstable();
        let count = sorted.len().max(1);
        let rank = |percent: usize| {
            sorted.get((percent * sorted.len()).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0)
        };
        let all: usize = sorted.iter().sum();
        // The long tail shares one bar.
        let width = (rank(98) / (BARS - 1) + 1).next_power_of_two();
        let mut histogram: Vec<Bar> = (0..BARS)
            .map(|bar| Bar {
                from: bar * width,
                to: (bar + 1 < BARS).then(|| (bar + 1) * width - 1),
                rows: 0,
            })
            .collect();
        for length in &sorted {
            histogram[(length / width).min(BARS - 1)].rows += 1;
        }
        let filled = histogram.iter().rposition(|bar| bar.rows > 0).map_or(1, |last| last + 1);
        histogram.truncate(filled);
        Lengths {
            mean: all as f64 / count as f64,
            percentiles: [0, 5, 25, 50, 75, 90, 95, 99, 100].map(|p| (p, rank(p))).into(),
            histogram,
            truncated: max_length.map(|max_length| {
                let over = |length: &&usize| **length > max_length;
                let rows = sorted.iter().filter(over).count();
                let cut: usize = sorted.iter().filter(over).map(|length| length - max_length).sum();
                let share = rows as f64 / count as f64;
                Truncated { max_length, rows, share, tokens_share: cut as f64 / all.max(1) as f64 }
            }),
        }
    }
}

/// What one split holds.
#[derive(Clone, Debug, Serialize)]
pub struct SplitInspection {
    /// Its name.
    pub split: String,
    /// Where it comes from.
    pub source: String,
    /// The column of the texts.
    pub text_column: Option<String>,
    /// The column of the labels.
    pub label_column: Option<String>,
    /// Its rows.
    pub rows: usize,
    /// Bytes of its texts.
    pub bytes: usize,
    /// Rows of each label.
    pub labels: BTreeMap<String, usize>,
    /// Rows without a label.
    pub unlabelled: usize,
    /// Why it cannot be trained on as it is.
    pub problem: Option<String>,
    /// Lengths of its texts in words; of tokens only where there is a tokenizer.
    pub words: Lengths,
    /// Lengths in tokens, with `[CLS]` and `[SEP]`.
    pub tokens: Option<Lengths>,
    /// Texts of nothing but white space.
    pub empty: Finding,
    /// Texts with HTML tags or entities.
    pub html: Finding,
    /// Rows of each tag or entity.
    pub html_kinds: BTreeMap<String, usize>,
    /// Texts with U+FFFD, which stands where bytes could not be read.
    pub replacement_characters: Finding,
    /// Texts with UTF-8 that was read as Windows-1252 or Latin-1 (`Ã©` for `é`).
    pub mojibake: Finding,
    /// Texts with control characters.
    pub control_characters: Finding,
    /// Rows whose text stands in an earlier row of the split.
    pub duplicates: Finding,
    /// Rows that have a near duplicate in the split, equal ones not counted.
    pub near_duplicates: Finding,
}

/// What two splits share.
#[derive(Clone, Debug, Serialize)]
pub struct SharedRows {
    /// The split that comes first, such as the training rows.
    pub first: String,
    /// The one whose rows are counted, such as the test rows.
    pub second: String,
    /// Its rows whose text stands in the first.
    pub duplicates: Finding,
    /// Its other rows that have a near duplicate in the first.
    pub near_duplicates: Finding,
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Each split.
    pub splits: Vec<SplitInspection>,
    /// Each pair of splits.
    pub shared: Vec<SharedRows>,
    /// Rows whose text stands elsewhere with another label, in any split; its share is that of all rows.
    pub conflicting_labels: Finding,
}

/// Looks at splits whose texts have these lengths in tokens, as many as there are rows; none without a tokenizer.
///
/// Texts are equal if they are but for white space at their ends. Near duplicates share [`NEAR`] of their shingles of
/// [`SHINGLE`] words; they are searched for by MinHash, which misses few (`duplicates` says how few).
pub fn inspect(
    splits: &[SourceSplit],
    tokens: Option<&[Vec<usize>]>,
    max_length: Option<usize>,
) -> Inspection {
    let texts = Texts::new(splits);
    let lengths = |split: usize| tokens.map(|tokens| Lengths::of(&tokens[split], max_length));
    let mut found: Vec<SplitInspection> =
        (0..splits.len()).map(|split| look(splits, split, lengths(split))).collect();
    let mut shared: BTreeMap<(usize, usize), SharedRows> = BTreeMap::new();
    for second in 0..splits.len() {
        for first in 0..second {
            let [first_name, second_name] = [first, second].map(|split| splits[split].name().to_owned());
            let finding = Finding::default();
            let rows = SharedRows {
                first: first_name,
                second: second_name,
                duplicates: finding.clone(),
                near_duplicates: finding,
            };
            shared.insert((first, second), rows);
        }
    }
    let mut conflicting_labels = Finding::default();
    for rows in texts.repeated() {
        let mut seen: BTreeMap<u32, Occurrence> = BTreeMap::new();
        for &row in rows {
            for (&split, &other) in &seen {
                let example = || pair(splits, row, other, None);
                if split == row.split {
                    found[split as usize].duplicates.add(example);
                } else if let Some(shared) = shared.get_mut(&(split as usize, row.split as usize)) {
                    shared.duplicates.add(example);
                }
            }
            seen.entry(row.split).or_insert(row);
        }
        let label = |row: &Occurrence| row.of(splits).label.as_deref();
        let labels: BTreeSet<&str> = rows.iter().filter_map(label).collect();
        if labels.len() > 1 {
            let differs = |row: &Occurrence| {
                rows.iter().find(|other| label(other).is_some() && label(other) != label(row))
            };
            for &row in rows.iter().filter(|row| label(row).is_some()) {
                if let Some(&other) = differs(&row) {
                    conflicting_labels.add(|| pair(splits, row, other, None));
                }
            }
        }
    }
    for (row, other, similarity) in texts.near_duplicates() {
        let example = || pair(splits, row, other, Some(similarity));
        if row.split == other.split {
            found[row.split as usize].near_duplicates.add(example);
        } else if let Some(shared) = shared.get_mut(&(other.split as usize, row.split as usize)) {
            shared.near_duplicates.add(example);
        }
    }
    let share = |finding: &mut Finding, rows: usize| finding.share = finding.rows as f64 / rows.max(1) as f64;
    for split in &mut found {
        let rows = split.rows;
        for finding in [
            &mut split.empty,
            &mut split.html,
            &mut split.replacement_characters,
            &mut split.mojibake,
            &mut split.control_characters,
            &mut split.duplicates,
            &mut split.near_duplicates,
        ] {
            share(finding, rows);
        }
    }
    for ((_, second), shared) in &mut shared {
        for finding in [&mut shared.duplicates, &mut shared.near_duplicates] {
            share(finding, found[*second].rows);
        }
    }
    share(&mut conflicting_labels, splits.iter().map(|split| split.rows.len()).sum());
    Inspection { splits: found, shared: shared.into_values().collect(), conflicting_labels }
}

/// What can be said of one split without the others.
fn look(splits: &[SourceSplit], index: usize, tokens: Option<Lengths>) -> SplitInspection {
    let split = &splits[index];
    let words: Vec<usize> = split.rows.iter().map(|row| row.text.split_whitespace().count()).collect();
    let mut found = SplitInspection {
        split: split.name().to_owned(),
        source: split.source.clone(),
        text_column: split.text_column.clone(),
        label_column: split.label_column.clone(),
        rows: split.rows.len(),
        bytes: split.rows.iter().map(|row| row.text.len()).sum(),
        labels: BTreeMap::new(),
        unlabelled: 0,
        problem: split.problem.clone(),
        words: Lengths::of(&words, None),
        tokens,
        empty: Finding::default(),
        html: Finding::default(),
        html_kinds: BTreeMap::new(),
        replacement_characters: Finding::default(),
        mojibake: Finding::default(),
        control_characters: Finding::default(),
        duplicates: Finding::default(),
        near_duplicates: Finding::default(),
    };
    for (row, source) in split.rows.iter().enumerate() {
        match &source.label {
            Some(label) => *found.labels.entry(label.clone()).or_default() += 1,
            None => found.unlabelled += 1,
        }
        let occurrence = Occurrence { split: index as u32, row: row as u32 };
        let at = |byte: usize| move || example(splits, occurrence, byte);
        if source.text.trim().is_empty() {
            found.empty.add(at(0));
        }
        let Faults { html, kinds, replacement, mojibake, control } = Faults::of(&source.text);
        for (finding, byte) in [
            (&mut found.html, html),
            (&mut found.replacement_characters, replacement),
            (&mut found.mojibake, mojibake),
            (&mut found.control_characters, control),
        ] {
            if let Some(byte) = byte {
                finding.add(at(byte));
            }
        }
        for kind in kinds {
            *found.html_kinds.entry(kind).or_default() += 1;
        }
    }
    found
}

/// A row, and its text from a little before this byte on.
fn example(splits: &[SourceSplit], occurrence: Occurrence, byte: usize) -> Example {
    let row = occurrence.of(splits);
    let before = row.text[..byte].char_indices().rev().nth(SHOWN / 3 - 1).map_or(0, |(start, _)| start);
    let mut text: String = row.text[before..].chars().take(SHOWN).collect();
    if before > 0 {
        text.insert_str(0, "...");
    }
    if row.text[before..].chars().nth(SHOWN).is_some() {
        text.push_str("...");
    }
    Example {
        split: splits[occurrence.split as usize].name().to_owned(),
        row: occurrence.row as usize,
        place: Location::to_string(&row.place),
        label: row.label.clone(),
        text,
        other: None,
    }
}

fn pair(splits: &[SourceSplit], row: Occurrence, other: Occurrence, similarity: Option<f64>) -> Example {
    let source = other.of(splits);
    let other = Other {
        split: splits[other.split as usize].name().to_owned(),
        row: other.row as usize,
        place: Location::to_string(&source.place),
        label: source.label.clone(),
        similarity,
    };
    Example { other: Some(other), ..example(splits, row, 0) }
}

#[cfg(test)]
mod tests;
