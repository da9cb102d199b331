//! JSON Lines: one object a line, with a text and a label. Blank lines are skipped.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Place, Result, TrainError};

use super::{
    LoadOptions, columns,
    labels::{RawLabel, RawRow, RawTable},
    read_text,
};

/// Appends the rows of a JSON Lines file. The first object decides which columns are read.
pub(super) fn read(path: &Path, options: &LoadOptions, table: &mut RawTable) -> Result<()> {
    let mut options = options.clone();
    for (number, line) in (1..).zip(read_text(path)?.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let place = Place::line(path, number);
        let mut object: Map<String, Value> =
            serde_json::from_str(line).map_err(|source| TrainError::Json { place: place.clone(), source })?;
        let names: Vec<String> = object.keys().cloned().collect();
        let (text_column, label_column) = columns::find(&names, &options, &place)?;
        let (text_column, label_column) = (&names[text_column], &names[label_column]);
        let wrong_type = |column: &str, expected, value: &Value| TrainError::ColumnType {
            place: place.clone(),
            column: column.to_owned(),
            expected,
            got: describe(value),
        };
        let label = match &object[label_column] {
            Value::String(name) => RawLabel::parse(name),
            value => match value.as_i64() {
                Some(index) => RawLabel::Index(index),
                None => return Err(wrong_type(label_column, "an integer or a name", value)),
            },
        };
        let text = match object[text_column].take() {
            Value::String(text) => text,
            value => return Err(wrong_type(text_column, "a string", &value)),
        };
        options.text_column.get_or_insert_with(|| text_column.clone());
        options.label_column.get_or_insert_with(|| label_column.clone());
        table.rows.push(RawRow { text, label, place });
    }
    Ok(())
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => format!("`{value}`"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
