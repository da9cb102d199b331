//! JSON Lines: one object a line, with a text and a label. Blank lines are skipped.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Place, Result, TrainError};

use super::{
    columns, read_text,
    table::{RawLabel, RawRow, RawTable, Wanted},
};

/// Reads a JSON Lines file. The first object decides which columns are read.
pub(super) fn read(path: &Path, wanted: Wanted<'_>) -> Result<RawTable> {
    let mut table = RawTable::new(path);
    for (number, line) in (1..).zip(read_text(path)?.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let place = Place::line(path, number);
        let mut object: Map<String, Value> =
            serde_json::from_str(line).map_err(|source| TrainError::Json { place: place.clone(), source })?;
        let names: Vec<String> = object.keys().cloned().collect();
        if table.columns.is_empty() {
            table.columns = names.clone();
            let (text, label) = columns::find(&names, wanted, &place)?;
            table.text_column = Some(names[text].clone());
            table.label_column = label.map(|label| names[label].clone());
        }
        let wrong_type = |column: &str, expected, value: &Value| TrainError::ColumnType {
            place: place.clone(),
            column: column.to_owned(),
            expected,
            got: describe(value),
        };
        let absent = |column: &str, role| columns::missing(&names, Some(column), role, &place);
        let label = match &table.label_column {
            None => RawLabel::Missing,
            Some(column) => match object.get(column) {
                None => return Err(absent(column, columns::LABEL)),
                Some(Value::Null) => RawLabel::Missing,
                Some(Value::String(name)) => RawLabel::parse(name),
                Some(Value::Bool(value)) => RawLabel::Text(value.to_string()),
                Some(value) => match value.as_i64() {
                    Some(number) => RawLabel::Number(number),
                    None => return Err(wrong_type(column, "a whole number or a name", value)),
                },
            },
        };
        let column = table.text_column.as_deref().unwrap_or_default();
        let text = match object.get_mut(column).map(Value::take) {
            None => return Err(absent(column, columns::TEXT)),
            Some(Value::String(text)) => text,
            Some(value) => return Err(wrong_type(column, "a string", &value)),
        };
        table.rows.push(RawRow { text, label, place });
    }
    Ok(table)
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
