//! From labels as they stand in a file to class indices.

use std::path::Path;

use crate::{Result, TrainError, error::shortened};

use super::{
    Dataset, Example,
    table::{RawLabel, RawRow, RawTable},
};

/// A class index above this is no class index: the wrong column was chosen.
const MAX_CLASSES: usize = 1000;

/// The words for sentiment that need no table of names, with the place of each among the classes.
const SENTIMENT: [(&str, usize); 5] =
    [("neg", 0), ("negative", 0), ("neutral", 1), ("pos", 2), ("positive", 2)];

fn sentiment(name: &str) -> Option<usize> {
    SENTIMENT.iter().find(|(word, _)| word.eq_ignore_ascii_case(name)).map(|&(_, class)| class)
}

/// Decides the classes and turns every label into an index: see [`load`](super::load) for the rules.
pub(super) fn resolve(tables: Vec<RawTable>, source: &Path, known: Option<&[String]>) -> Result<Dataset> {
    let names = tables.iter().find_map(|table| table.class_names.clone());
    let rows: Vec<RawRow> = tables.into_iter().flat_map(|table| table.rows).collect();
    let Some(first) = rows.first() else {
        return Err(TrainError::Empty { data: source.display().to_string() });
    };
    let known = known.map(<[String]>::to_vec).or(names);
    let index_of = |label: &RawLabel| match label {
        RawLabel::Missing => None,
        RawLabel::Number(number) => Some(*number),
        RawLabel::Text(text) => text.parse().ok(),
    };
    let classes = match known {
        Some(names) => Classes::Named(names),
        None if index_of(&first.label).is_some() => Classes::Numbered,
        None => {
            let neutral =
                |row: &RawRow| matches!(&row.label, RawLabel::Text(name) if sentiment(name) == Some(1));
            Classes::Sentiment { neutral: rows.iter().any(neutral) }
        }
    };
    let mut examples = Vec::with_capacity(rows.len());
    for RawRow { text, label, place } in rows {
        let Some(label) = classes.index(&label, index_of(&label)) else {
            let label = match label {
                RawLabel::Missing => String::new(),
                RawLabel::Number(number) => number.to_string(),
                RawLabel::Text(name) => shortened(&name),
            };
            return Err(TrainError::Label { place, label, expected: classes.expected() });
        };
        examples.push(Example { text, label: label as u32 });
    }
    let label_names = match classes {
        Classes::Named(names) => names,
        Classes::Numbered => {
            let highest = examples.iter().map(|example| example.label).max().unwrap_or(0);
            (0..=highest).map(|index| index.to_string()).collect()
        }
        Classes::Sentiment { neutral: false } => ["negative", "positive"].map(str::to_owned).to_vec(),
        Classes::Sentiment { neutral: true } => {
            ["negative", "neutral", "positive"].map(str::to_owned).to_vec()
        }
    };
    Ok(Dataset { examples, label_names, source: source.display().to_string() })
}

/// How labels are read in one data set; decided by its first row.
enum Classes {
    /// By these names, or by index.
    Named(Vec<String>),
    /// By index only.
    Numbered,
    /// By the words of [`SENTIMENT`].
    Sentiment { neutral: bool },
}

impl Classes {
    fn index(&self, label: &RawLabel, number: Option<i64>) -> Option<usize> {
        let below = |index: i64, classes: usize| usize::try_from(index).ok().filter(|&index| index < classes);
        match (self, label, number) {
            (Classes::Named(names), _, Some(index)) => below(index, names.len()),
            (Classes::Named(names), RawLabel::Text(name), None) => {
                // `pos` in the file is the model's `positive`.
                let same = |known: &String| {
                    known.eq_ignore_ascii_case(name)
                        || sentiment(known).is_some_and(|s| Some(s) == sentiment(name))
                };
                names.iter().position(same)
            }
            (Classes::Numbered, _, Some(index)) => below(index, MAX_CLASSES),
            (Classes::Sentiment { neutral }, RawLabel::Text(name), None) => {
                sentiment(name).map(|class| if *neutral { class } else { class / 2 })
            }
            _ => None,
        }
    }

    fn expected(&self) -> String {
        match self {
            Classes::Named(names) => {
                let names: Vec<String> = names.iter().take(12).map(|name| shortened(name)).collect();
                format!("a known class ({}) or its index", names.join(", "))
            }
            Classes::Numbered => format!("an integer from 0 to {} like the first row's", MAX_CLASSES - 1),
            Classes::Sentiment { .. } => {
                "an integer or a known name (neg, negative, neutral, pos, positive); write other classes as 0, 1, ..."
                    .to_owned()
            }
        }
    }
}
