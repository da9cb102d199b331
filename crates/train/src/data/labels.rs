//! From labels as they stand in files to classes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{Location, Result, TrainError, error::shortened};

use super::{
    Dataset, Example,
    classes::{align, sentiment},
    table::{RawLabel, RawRow, RawTable},
};

/// More classes than these are no classes: the wrong column was chosen.
pub const MAX_CLASSES: usize = 1000;

/// What `datasets` writes for a row without a label.
const UNLABELLED: i64 = -1;

/// Files that together are one data set, after reading.
#[derive(Debug)]
pub(super) enum Resolved {
    /// Every row has a label.
    Labelled {
        dataset: Dataset,
        /// Labels that were to be replaced and do not occur.
        unused: Vec<String>,
    },
    /// No row has one.
    Unlabelled {
        rows: usize,
        /// How that shows, for a remark.
        why: &'static str,
        /// What is wrong, where labels are needed.
        error: TrainError,
    },
}

/// Decides the classes and turns every label into an index: see [`load`](super::load) for the rules. `renames` replaces
/// labels as they stand in the file, or as the file names them, before anything else.
pub(super) fn resolve(
    mut tables: Vec<RawTable>,
    source: &Path,
    renames: &BTreeMap<String, String>,
) -> Result<Resolved> {
    let mut unused: BTreeSet<&String> = renames.keys().collect();
    for table in &mut tables {
        name_numbers(table)?;
        rename(table, renames, &mut unused);
    }
    let count = tables.iter().map(|table| table.rows.len()).sum();
    if count == 0 {
        return Err(TrainError::Empty { data: source.display().to_string() });
    }
    let rows = || tables.iter().flat_map(|table| &table.rows);
    if rows().all(|row| row.label == RawLabel::Missing || number(&row.label) == Some(UNLABELLED)) {
        let why = "every label is empty or -1";
        let error = TrainError::Unlabelled { data: source.display().to_string(), rows: count };
        return Ok(Resolved::Unlabelled { rows: count, why, error });
    }
    if let Some(row) = rows().find(|row| row.label == RawLabel::Missing) {
        return Err(TrainError::MissingLabel { place: row.place.clone() });
    }
    let classes = match tables.iter().position(|table| table.class_names.is_some()) {
        Some(first) => declared(&tables, first)?,
        None => occurring(&tables, source)?,
    };
    let (text_column, label_column) = match tables.first() {
        Some(table) => (table.text_column.clone(), table.label_column.clone()),
        None => (None, None),
    };
    let examples = tables
        .into_iter()
        .flat_map(|table| table.rows)
        // Every label that occurs has an entry.
        .map(|RawRow { text, label, .. }| Example { text, label: classes.index[&spelled(&label)] })
        .collect();
    let source = source.display().to_string();
    let label_names = classes.names;
    let dataset = Dataset { examples, label_names, source, split: None, text_column, label_column };
    Ok(Resolved::Labelled { dataset, unused: unused.into_iter().cloned().collect() })
}

/// The classes of a data set, and which of them each label means.
struct Classes {
    names: Vec<String>,
    index: BTreeMap<String, u32>,
}

/// A label as text.
fn spelled(label: &RawLabel) -> String {
    label.spelled().unwrap_or_default()
}

/// The whole number that a label is: also `+1`, `01` and the `1.0` that pandas makes of a column with gaps.
fn number(label: &RawLabel) -> Option<i64> {
    match label {
        RawLabel::Missing => None,
        RawLabel::Number(number) => Some(*number),
        RawLabel::Text(text) => {
            let whole = match text.split_once('.') {
                Some((whole, zeros)) if !whole.is_empty() && zeros.bytes().all(|byte| byte == b'0') => whole,
                _ => text,
            };
            whole.parse().ok()
        }
    }
}

/// Gives the numbers of a file that names them those names; -1 is no label there.
fn name_numbers(table: &mut RawTable) -> Result<()> {
    let Some(names) = &table.class_names else { return Ok(()) };
    for row in &mut table.rows {
        let RawLabel::Number(number) = row.label else { continue };
        let named = usize::try_from(number).ok().and_then(|index| names.get(index));
        row.label = match named {
            Some(name) => RawLabel::Text(name.clone()),
            None if number == UNLABELLED => RawLabel::Missing,
            None => {
                let (place, label) = (row.place.clone(), number.to_string());
                let expected =
                    format!("0 to {}, the classes that the file names", names.len().saturating_sub(1));
                return Err(TrainError::Label { place, label, expected });
            }
        };
    }
    Ok(())
}

fn rename(table: &mut RawTable, renames: &BTreeMap<String, String>, unused: &mut BTreeSet<&String>) {
    if renames.is_empty() {
        return;
    }
    for row in &mut table.rows {
        if let Some((old, new)) = renames.get_key_value(&spelled(&row.label)) {
            row.label = RawLabel::Text(new.clone());
            unused.remove(old);
        }
    }
    for name in table.class_names.iter_mut().flatten() {
        if let Some((old, new)) = renames.get_key_value(name) {
            name.clone_from(new);
            unused.remove(old);
        }
    }
}

/// The labels of a file that occur, each with the first row that has it.
fn distinct(tables: &[RawTable]) -> BTreeMap<String, &Location> {
    let mut labels = BTreeMap::new();
    for row in tables.iter().flat_map(|table| &table.rows) {
        labels.entry(spelled(&row.label)).or_insert(&row.place);
    }
    labels
}

/// The classes that the first file with names declares, in its order; every other file's are matched to them.
fn declared(tables: &[RawTable], first: usize) -> Result<Classes> {
    let names = tables[first].class_names.clone().unwrap_or_default();
    if names.len() > MAX_CLASSES {
        let (data, classes) = (tables[first].path.display().to_string(), names.len());
        return Err(TrainError::TooManyClasses { data, classes, column: tables[first].label_column.clone() });
    }
    let mut index = BTreeMap::new();
    // A file's own names are matched too, whether they occur or not; its labels may be spelled in another way.
    let sets = tables.iter().flat_map(|table| {
        let occurring = distinct(std::slice::from_ref(table)).into_keys().collect();
        table.class_names.clone().into_iter().chain([occurring]).map(move |set| (table, set))
    });
    for (table, set) in sets {
        let misfit = |classes| TrainError::Classes {
            data: table.path.display().to_string(),
            classes,
            owner: tables[first].path.display().to_string(),
            known: names.clone(),
        };
        let Some((map, _)) = align(&set, &names) else { return Err(misfit(set)) };
        for (name, class) in set.into_iter().zip(map) {
            // A label means the same in every file of a data set.
            if index.insert(name.clone(), class).is_some_and(|before| before != class) {
                return Err(misfit(vec![name]));
            }
        }
    }
    Ok(Classes { names, index })
}

/// The classes that occur, where no file names any.
fn occurring(tables: &[RawTable], source: &Path) -> Result<Classes> {
    let labels = distinct(tables);
    let too_many = |classes: usize| TrainError::TooManyClasses {
        data: source.display().to_string(),
        classes,
        column: tables.first().and_then(|table| table.label_column.clone()),
    };
    let as_number = |label: &String| number(&RawLabel::Text(label.clone()));
    let numerals = labels.keys().filter(|label| as_number(label).is_some()).count();
    let fractions = labels.keys().filter(|label| as_number(label).is_none() && label.parse::<f64>().is_ok());
    if numerals + fractions.clone().count() == labels.len()
        && let Some(fraction) = fractions.min_by_key(|label| position(labels[*label]))
    {
        let (place, label) = (labels[fraction].clone(), shortened(fraction));
        let expected =
            "a class: classes are names or whole numbers (--label-map gives a number a name)".to_owned();
        return Err(TrainError::Label { place, label, expected });
    }
    if numerals == labels.len() {
        let numbers: BTreeSet<i64> = labels.keys().filter_map(as_number).collect();
        if numbers.len() > MAX_CLASSES {
            return Err(too_many(numbers.len()));
        }
        let class =
            |label: &String| numbers.iter().position(|&n| Some(n) == as_number(label)).unwrap_or(0) as u32;
        let index = labels.keys().map(|label| (label.clone(), class(label))).collect();
        return Ok(Classes { names: numbers.iter().map(ToString::to_string).collect(), index });
    }
    if numerals > 0 {
        // Such as a second header in the middle of a file: the first row that differs from the rows before it.
        let mut rows = tables.iter().flat_map(|table| &table.rows);
        let first = rows.next().map(|row| number(&row.label).is_some());
        if let Some(odd) = rows.find(|row| Some(number(&row.label).is_some()) != first) {
            let (place, label) = (odd.place.clone(), shortened(&spelled(&odd.label)));
            let expected =
                "like the labels before it: they mix whole numbers with names (--label-map renames them)";
            return Err(TrainError::Label { place, label, expected: expected.to_owned() });
        }
    }
    if labels.len() > MAX_CLASSES {
        return Err(too_many(labels.len()));
    }
    if labels.keys().all(|label| sentiment(label).is_some()) {
        return Ok(sentiments(labels.keys()));
    }
    let index = labels.keys().zip(0..).map(|(label, class)| (label.clone(), class)).collect();
    Ok(Classes { names: labels.into_keys().collect(), index })
}

/// Words for sentiment, negative before neutral before positive. A class that is spelled in one way keeps that spelling.
fn sentiments<'a>(labels: impl Iterator<Item = &'a String> + Clone) -> Classes {
    let mut spellings: BTreeMap<usize, Vec<&String>> = BTreeMap::new();
    for label in labels {
        spellings.entry(sentiment(label).unwrap_or(0)).or_default().push(label);
    }
    // Only one of two may occur in a part of a data set.
    if !spellings.contains_key(&1) {
        spellings.entry(0).or_default();
        spellings.entry(2).or_default();
    }
    let mut classes = Classes { names: Vec::new(), index: BTreeMap::new() };
    for (meaning, labels) in spellings {
        let class = classes.names.len() as u32;
        classes.names.push(match labels[..] {
            [only] => only.clone(),
            _ => ["negative", "neutral", "positive"][meaning].to_owned(),
        });
        classes.index.extend(labels.into_iter().map(|label| (label.clone(), class)));
    }
    classes
}

/// Where a place is in its file, for the first of several.
fn position(place: &Location) -> u64 {
    match place.position {
        crate::error::Position::File => 0,
        crate::error::Position::Line(n) | crate::error::Position::Row(n) => n,
    }
}
