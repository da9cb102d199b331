//! From labels as they stand in a file to class indices.

use std::path::PathBuf;

use crate::{Place, Result, TrainError, error::shortened};

use super::{Dataset, Example};

/// A label as it stands in a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RawLabel {
    Index(i64),
    Name(String),
}

impl RawLabel {
    /// A field of a text file: a whole number is an index.
    pub(super) fn parse(field: &str) -> RawLabel {
        match field.trim().parse() {
            Ok(index) => RawLabel::Index(index),
            Err(_) => RawLabel::Name(field.trim().to_owned()),
        }
    }
}

/// A row as it stands in a file.
#[derive(Clone, Debug)]
pub(super) struct RawRow {
    pub text: String,
    pub label: RawLabel,
    pub place: Place,
}

/// What the readers fill.
#[derive(Debug)]
pub(super) struct RawTable {
    pub rows: Vec<RawRow>,
    /// The classes' names, where the source stores them.
    pub names: Option<Vec<String>>,
    pub source: PathBuf,
}

/// A class index above this is no class index: the wrong column was chosen.
const MAX_CLASSES: usize = 1000;

/// The words for sentiment that need no table of names, with the place of each among the classes.
const SENTIMENT: [(&str, usize); 5] =
    [("neg", 0), ("negative", 0), ("neutral", 1), ("pos", 2), ("positive", 2)];

fn sentiment(name: &str) -> Option<usize> {
    SENTIMENT.iter().find(|(word, _)| word.eq_ignore_ascii_case(name)).map(|&(_, class)| class)
}

/// Decides the classes and turns every label into an index: see [`load`](super::load) for the rules.
pub(super) fn resolve(table: RawTable, known: Option<&[String]>) -> Result<Dataset> {
    let RawTable { rows, names, source } = table;
    let Some(first) = rows.first() else {
        return Err(TrainError::Empty { data: source.display().to_string() });
    };
    let known = known.map(<[String]>::to_vec).or(names);
    let classes = match (known, &first.label) {
        (Some(names), _) => Classes::Named(names),
        (None, RawLabel::Index(_)) => Classes::Numbered,
        (None, RawLabel::Name(_)) => {
            let neutral =
                |row: &RawRow| matches!(&row.label, RawLabel::Name(name) if sentiment(name) == Some(1));
            Classes::Sentiment { neutral: rows.iter().any(neutral) }
        }
    };
    let mut examples = Vec::with_capacity(rows.len());
    for RawRow { text, label, place } in rows {
        let Some(label) = classes.index(&label) else {
            let label = match label {
                RawLabel::Index(index) => index.to_string(),
                RawLabel::Name(name) => shortened(&name),
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
    fn index(&self, label: &RawLabel) -> Option<usize> {
        let below = |index: i64, classes: usize| usize::try_from(index).ok().filter(|&index| index < classes);
        match (self, label) {
            (Classes::Named(names), RawLabel::Index(index)) => below(*index, names.len()),
            (Classes::Named(names), RawLabel::Name(name)) => {
                // `pos` in the file is the model's `positive`.
                let same = |known: &String| {
                    known.eq_ignore_ascii_case(name)
                        || sentiment(known).is_some_and(|s| Some(s) == sentiment(name))
                };
                names.iter().position(same)
            }
            (Classes::Numbered, RawLabel::Index(index)) => below(*index, MAX_CLASSES),
            (Classes::Sentiment { neutral }, RawLabel::Name(name)) => {
                sentiment(name).map(|class| if *neutral { class } else { class / 2 })
            }
            (Classes::Numbered, RawLabel::Name(_)) | (Classes::Sentiment { .. }, RawLabel::Index(_)) => None,
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
