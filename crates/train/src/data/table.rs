//! What the reader of every format returns: texts, and labels as they stand in the file.

use std::path::{Path, PathBuf};

use crate::{Location, TrainError};

/// A label as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RawLabel {
    /// None: an empty field, a null, or a file without a label column.
    Missing,
    /// A whole number of a format that has numbers (JSON, parquet).
    Number(i64),
    /// Text, without spaces around it; it may be a numeral. Booleans are `false` and `true`.
    Text(String),
}

impl RawLabel {
    /// A field of a text file.
    pub(super) fn parse(field: &str) -> RawLabel {
        match field.trim() {
            "" => RawLabel::Missing,
            text => RawLabel::Text(text.to_owned()),
        }
    }

    /// As text; none for no label.
    pub(super) fn spelled(&self) -> Option<String> {
        match self {
            RawLabel::Missing => None,
            RawLabel::Number(number) => Some(number.to_string()),
            RawLabel::Text(text) => Some(text.clone()),
        }
    }
}

/// A row as it stands in a file.
#[derive(Clone, Debug)]
pub(super) struct RawRow {
    pub text: String,
    pub label: RawLabel,
    pub place: Location,
}

/// Which columns a reader looks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted<'a> {
    /// The text column by its exact name; without it the first common name that exists.
    pub text: Option<&'a str>,
    /// The label column likewise.
    pub label: Option<&'a str>,
    /// Columns that are taken, before the common names, where the file has them: those that a model was trained with.
    pub remembered: (Option<&'a str>, Option<&'a str>),
    /// Whether labels are read at all.
    pub labels: bool,
}

/// One file.
#[derive(Debug)]
pub(super) struct RawTable {
    pub path: PathBuf,
    pub rows: Vec<RawRow>,
    /// The names that the file stores for its labels' numbers, by number.
    pub class_names: Option<Vec<String>>,
    /// Every column of the file, for messages; empty where the format has none.
    pub columns: Vec<String>,
    /// The column that the texts come from.
    pub text_column: Option<String>,
    /// The column that the labels come from; without one every label is [`RawLabel::Missing`].
    pub label_column: Option<String>,
    /// What the reader decided by the content, one line each, with the file's name: a user has to be told.
    pub notes: Vec<String>,
}

impl RawTable {
    /// No rows yet.
    pub(super) fn new(path: &Path) -> RawTable {
        RawTable {
            path: path.to_owned(),
            rows: Vec::new(),
            class_names: None,
            columns: Vec::new(),
            text_column: None,
            label_column: None,
            notes: Vec::new(),
        }
    }

    /// The error of a file whose labels are needed and that has no column for them.
    pub(super) fn no_label_column(&self, wanted: Wanted<'_>) -> TrainError {
        super::columns::missing(
            &self.columns,
            wanted.label,
            super::columns::LABEL,
            &Location::file(&self.path),
        )
    }
}
