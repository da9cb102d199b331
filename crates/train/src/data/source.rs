//! Data as they stand in their files, whatever is wrong with their labels: what `vitrine data inspect` looks at.

use std::path::Path;

use super::{
    EVALUATION, LoadOptions, TRAIN, Tables, find, is_folder, labels::Resolved, read_split, table::RawRow,
};
use crate::{Location, Result};

/// A row as it stands in its file.
#[derive(Clone, Debug)]
pub struct SourceRow {
    /// The text.
    pub text: String,
    /// The name of its class; as it is spelled in the file where the labels are no classes; none where there is no label.
    pub label: Option<String>,
    /// Its file, and its line or row there.
    pub place: Location,
}

/// A split, or the one file that there is.
#[derive(Clone, Debug)]
pub struct SourceSplit {
    /// The name of a folder's split.
    pub split: Option<String>,
    /// Where the rows come from.
    pub source: String,
    /// The column that the texts come from.
    pub text_column: Option<String>,
    /// The column that the labels come from.
    pub label_column: Option<String>,
    /// The rows, in order.
    pub rows: Vec<SourceRow>,
    /// Why these rows cannot be trained on as they are, in one line.
    pub problem: Option<String>,
}

/// Every split of a folder that a run would look for, or the one data set of a file or of a folder without splits; and remarks.
///
/// # Errors
/// What cannot be read as a table of texts. Labels are no reason.
pub fn read_splits(path: &Path, options: &LoadOptions) -> Result<(Vec<SourceSplit>, Vec<String>)> {
    let mut notes = Vec::new();
    let mut splits = Vec::new();
    if is_folder(path)? {
        for split in TRAIN.into_iter().chain(EVALUATION) {
            if let Some(tables) = read_split(path, split, options, &mut notes)? {
                splits.push(SourceSplit::new(Some(split), tables, options));
            }
        }
    }
    if splits.is_empty() {
        splits.push(SourceSplit::new(None, find(path, &TRAIN, options, &mut notes)?, options));
    }
    Ok((splits, notes))
}

impl SourceSplit {
    fn new(split: Option<&str>, mut tables: Tables, options: &LoadOptions) -> Self {
        let source = tables.source.display().to_string();
        let first = tables.tables.first();
        let text_column = first.and_then(|table| table.text_column.clone());
        let label_column = first.and_then(|table| table.label_column.clone());
        let mut rows: Vec<SourceRow> = Vec::new();
        for RawRow { text, label, place } in tables.tables.iter_mut().flat_map(|table| &mut table.rows) {
            let (text, label) = (std::mem::take(text), label.spelled());
            rows.push(SourceRow { text, label, place: place.clone() });
        }
        // The labels alone, without the texts, as a run would take them.
        let problem = match tables.resolve(options) {
            Ok(Resolved::Labelled { dataset, .. }) => {
                for (row, example) in rows.iter_mut().zip(&dataset.examples) {
                    row.label = dataset.label_names.get(example.label as usize).cloned();
                }
                None
            }
            Ok(Resolved::Unlabelled { error, .. }) => {
                rows.iter_mut().for_each(|row| row.label = None);
                Some(error.to_string())
            }
            Err(error) => Some(error.to_string()),
        };
        let split = split.map(str::to_owned);
        SourceSplit { split, source, text_column, label_column, rows, problem }
    }

    /// The name of the split, or what its rows are for where it has none.
    pub fn name(&self) -> &str {
        self.split.as_deref().unwrap_or("data")
    }
}
