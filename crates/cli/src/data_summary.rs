//! What was read, said before anything is computed: a row a split, and warnings about data that may not be what they seem.

use crate::output::{Align, note, printable, table, thousands};
use serde::Serialize;
use std::collections::HashSet;
use vitrine_train::TokenizedDataset;
use vitrine_train::data::Dataset;

/// A class with fewer rows than these is hardly learnt or measured.
const FEW_ROWS: usize = 10;
/// One class with a larger share of the rows than this leaves little to learn.
const LARGEST_SHARE: f64 = 0.95;
/// Names in one message.
const NAMES: usize = 8;

/// One split as it was read, for `run.json` and `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct SplitSummary {
    split: String,
    source: String,
    text_column: Option<String>,
    label_column: Option<String>,
    rows: usize,
    /// Rows of each class, in the order of the classes.
    classes: serde_json::Map<String, serde_json::Value>,
    tokens: usize,
    truncated: usize,
    truncated_share: f64,
    lengths: Lengths,
}

/// Rows by length in tokens as read: `counts[i]` has `i * width + 1` to `(i + 1) * width` tokens.
#[derive(Clone, Debug, Serialize)]
struct Lengths {
    width: usize,
    counts: Vec<u32>,
}

impl Lengths {
    /// At most 32 bins, of a width that is a power of two.
    fn of(tokens: &TokenizedDataset) -> Self {
        const BINS: usize = 32;
        let longest = tokens.lengths().max().unwrap_or(1).max(1);
        let width = longest.div_ceil(BINS).next_power_of_two();
        let mut counts = vec![0; longest.div_ceil(width)];
        for length in tokens.lengths() {
            counts[length.saturating_sub(1) / width] += 1;
        }
        Lengths { width, counts }
    }
}

impl SplitSummary {
    /// Counts the rows that will be used. `role` is what they are for, where they are no split of a folder.
    pub fn new(role: &str, rows: &Dataset, tokens: &TokenizedDataset) -> Self {
        let counts = rows.class_counts();
        SplitSummary {
            split: rows.split.clone().unwrap_or_else(|| role.to_owned()),
            source: rows.source.clone(),
            text_column: rows.text_column.clone(),
            label_column: rows.label_column.clone(),
            rows: rows.len(),
            classes: rows.label_names.iter().cloned().zip(counts.into_iter().map(Into::into)).collect(),
            tokens: tokens.tokens(),
            truncated: tokens.truncated(),
            truncated_share: tokens.truncated() as f64 / rows.len() as f64,
            lengths: Lengths::of(tokens),
        }
    }

    fn cells(&self) -> Vec<String> {
        let counts = self.classes.iter().map(|(name, count)| format!("{} {count}", printable(name)));
        let columns = match (&self.text_column, &self.label_column) {
            (Some(text), Some(label)) => format!(" ({}, {})", printable(text), printable(label)),
            _ => String::new(),
        };
        vec![
            self.split.clone(),
            thousands(self.rows),
            thousands(self.tokens),
            format!("{:.1} %", 100.0 * self.truncated_share),
            few(counts.collect()),
            format!("{}{columns}", printable(&self.source)),
        ]
    }
}

/// The classes of rows with the rows of each.
pub fn classes(rows: &Dataset) -> String {
    let counts = rows.label_names.iter().zip(rows.class_counts());
    few(counts.map(|(name, count)| format!("{} {count}", printable(name))).collect())
}

/// At most [`NAMES`] of a list.
fn few(mut names: Vec<String>) -> String {
    let all = names.len();
    names.truncate(NAMES);
    let more = if all > NAMES { format!(", ... ({all} in all)") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// Prints the splits on standard error.
pub fn print(splits: &[SplitSummary]) {
    let columns = [
        ("split", Align::Left),
        ("rows", Align::Right),
        ("tokens", Align::Right),
        ("truncated", Align::Right),
        ("classes", Align::Left),
        ("source (text, label)", Align::Left),
    ];
    note(table(&columns, &splits.iter().map(SplitSummary::cells).collect::<Vec<_>>()));
}

/// What a reader should look at before believing a figure.
pub fn warnings(train: Option<&Dataset>, held_out: Option<(&str, &Dataset)>) -> Vec<String> {
    let mut warnings = Vec::new();
    for (split, rows) in train.map(|rows| ("train", rows)).into_iter().chain(held_out) {
        let counts: Vec<(&String, usize)> = rows.label_names.iter().zip(rows.class_counts()).collect();
        let classes = |wanted: &dyn Fn(usize) -> bool, cell: &dyn Fn(&(&String, usize)) -> String| {
            few(counts.iter().filter(|(_, count)| wanted(*count)).map(cell).collect())
        };
        let name = |(name, _): &(&String, usize)| format!("`{}`", printable(name));
        let none = classes(&|count| count == 0, &name);
        if !none.is_empty() {
            warnings.push(format!("{split}: no rows of {none}"));
        }
        let scarce =
            classes(&|count| (1..FEW_ROWS).contains(&count), &|class| format!("{} {}", name(class), class.1));
        if !scarce.is_empty() {
            warnings.push(format!("{split}: fewer than {FEW_ROWS} rows of a class: {scarce}"));
        }
        if let Some(largest) = counts.iter().max_by_key(|(_, count)| *count)
            && largest.1 as f64 > LARGEST_SHARE * rows.len() as f64
            && rows.len() >= FEW_ROWS
        {
            let share = 100.0 * largest.1 as f64 / rows.len() as f64;
            warnings.push(format!(
                "{split}: {share:.1} % of the rows are {}: accuracy says little here",
                name(largest)
            ));
        }
    }
    if let (Some(train), Some((split, test))) = (train, held_out) {
        let texts: HashSet<&str> = train.examples.iter().map(|example| example.text.trim()).collect();
        let shared = test.examples.iter().filter(|example| texts.contains(example.text.trim())).count();
        if shared > 0 {
            let of = thousands(test.len());
            warnings.push(format!(
                "{} of the {of} {split} rows are training rows too: the figures will be too good",
                thousands(shared)
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitrine_train::data::Example;

    fn rows(classes: &[&str], texts: &[(&str, u32)]) -> Dataset {
        Dataset {
            examples: texts.iter().map(|&(text, label)| Example { text: text.to_owned(), label }).collect(),
            label_names: classes.iter().map(|&name| name.to_owned()).collect(),
            ..Dataset::default()
        }
    }

    #[test]
    fn what_is_odd_is_said() {
        let good: Vec<(String, u32)> = (0..40).map(|n| (format!("text {n}"), n % 2)).collect();
        let good: Vec<(&str, u32)> = good.iter().map(|(text, label)| (text.as_str(), *label)).collect();
        let healthy = rows(&["a", "b"], &good);
        assert_eq!(warnings(Some(&healthy), None), Vec::<String>::new());
        let test = rows(&["a", "b"], &[("other", 0), (" text 3\n", 1)]);
        let said = warnings(Some(&healthy), Some(("test", &test))).join("; ");
        assert!(said.contains("1 of the 2 test rows are training rows"), "{said}");
        assert!(said.contains("test: fewer than 10 rows of a class: `a` 1, `b` 1"), "{said}");
        let lopsided: Vec<(&str, u32)> = (0..100).map(|n| ("x", u32::from(n == 0))).collect();
        let said = warnings(Some(&rows(&["a", "b", "\u{1b}[31mc"], &lopsided)), None).join("; ");
        assert!(said.contains("99.0 % of the rows are `a`") && said.contains("no rows of"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
}
