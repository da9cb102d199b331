//! JSON: objects one a line (JSON Lines), one after the other over any number of lines, or in an array.
//!
//! What a file is shows by its first character; `.json` and `.jsonl` mean the same. Each object is a row with a text and
//! a label; the first decides which keys are read. Blank lines are skipped.

use std::{fmt, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::{Location, Position, Result, TrainError};

use super::{
    columns,
    content::read_text,
    table::{RawLabel, RawRow, RawTable, Wanted},
};

/// Reads a JSON or JSON Lines file.
pub(super) fn read(path: &Path, wanted: Wanted<'_>) -> Result<RawTable> {
    let text = read_text(path)?;
    let mut rows = Rows { table: RawTable::new(path), place: Location::file(path), wanted };
    if text.trim_start().starts_with('[') {
        rows.array(&text)?;
    } else if spans_lines(&text) {
        rows.stream(&text)?;
    } else {
        rows.lines(&text)?;
    }
    Ok(rows.table)
}

/// Whether the first object goes on after its line.
fn spans_lines(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty());
    let object = |line: &str| serde_json::from_str::<Object>(line).err();
    first.is_some_and(|line| {
        line.trim_start().starts_with('{') && object(line).is_some_and(|error| error.is_eof())
    })
}

struct Rows<'a> {
    table: RawTable,
    /// The file.
    place: Location,
    wanted: Wanted<'a>,
}

impl Rows<'_> {
    fn lines(&mut self, text: &str) -> Result<()> {
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            let place = self.place.at(Position::Line(number));
            let object = serde_json::from_str(line).map_err(|error| explain(line, place.clone(), error))?;
            self.push(object, place)?;
        }
        Ok(())
    }

    fn stream(&mut self, text: &str) -> Result<()> {
        let mut objects = serde_json::Deserializer::from_str(text).into_iter::<Object>();
        let (mut line, mut counted) = (1, 0);
        loop {
            let start = text[objects.byte_offset()..].trim_start().as_ptr() as usize - text.as_ptr() as usize;
            line += newlines(&text[counted..start]);
            counted = start;
            match objects.next() {
                None => return Ok(()),
                Some(Ok(object)) => self.push(object, self.place.at(Position::Line(line)))?,
                Some(Err(error)) => {
                    let place = self.place.at(Position::Line(error.line() as u64));
                    return Err(explain(text, place, error));
                }
            }
        }
    }

    fn array(&mut self, text: &str) -> Result<()> {
        let mut failure = None;
        let elements = Elements(&mut |row, object| {
            let place = self.place.at(Position::Row(row));
            self.push(object, place).map_err(|error| failure = Some(error)).is_ok()
        });
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json.deserialize_seq(elements).and_then(|()| json.end());
        match (failure, read) {
            (Some(failure), _) => Err(failure),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => {
                let place = self.place.at(Position::Line(error.line() as u64));
                Err(explain(text, place, error))
            }
        }
    }

    fn push(&mut self, Object(mut object): Object, place: Location) -> Result<()> {
        let names = || object.keys().cloned().collect::<Vec<_>>();
        if self.table.columns.is_empty() {
            self.choose(&object, &place)?;
        } else if self.wanted.labels
            && self.table.label_column.is_none()
            && let Some(label) = columns::find_label(&names(), self.wanted, &place)?
        {
            let found = format!("a row with the key `{}`, which the first row lacks", names()[label]);
            return Err(TrainError::JsonLayout { place, found });
        }
        let wrong_type = |column: &str, expected, value: &Value| TrainError::ColumnType {
            place: place.clone(),
            column: column.to_owned(),
            expected,
            got: describe(value),
        };
        let absent = |column: &str, role| columns::missing(&names(), Some(column), role, &place);
        let label = match &self.table.label_column {
            None => RawLabel::Missing,
            Some(column) => match object.get(column) {
                None => return Err(absent(column, columns::LABEL)),
                Some(Value::Null) => RawLabel::Missing,
                Some(Value::String(name)) => RawLabel::parse(name),
                Some(Value::Bool(value)) => RawLabel::Text(value.to_string()),
                Some(value) => match whole(value) {
                    Some(number) => RawLabel::Number(number),
                    None => return Err(wrong_type(column, "a whole number or a name", value)),
                },
            },
        };
        let column = self.table.text_column.as_deref().unwrap_or_default();
        let text = match object.get(column) {
            None => return Err(absent(column, columns::TEXT)),
            Some(Value::String(_)) => match object.get_mut(column).map(Value::take) {
                Some(Value::String(text)) => text,
                _ => String::new(),
            },
            Some(value) => return Err(wrong_type(column, "a string", value)),
        };
        self.table.rows.push(RawRow { text, label, place });
        Ok(())
    }

    /// Decides by the first object which keys are read.
    fn choose(&mut self, object: &Map<String, Value>, place: &Location) -> Result<()> {
        let names: Vec<String> = object.keys().cloned().collect();
        let nested = |value: &Value| matches!(value, Value::Array(_) | Value::Object(_));
        let found = columns::find(&names, self.wanted, place);
        // `{"text": [..], "label": [..]}`, `{"text": {"0": ..}}`, `{"data": [{..}]}` and such.
        let of_columns = match &found {
            Ok((text, _)) => nested(&object[&names[*text]]),
            Err(_) => !object.is_empty() && object.values().all(nested),
        };
        if of_columns {
            let found = "one object that holds a whole table".to_owned();
            return Err(TrainError::JsonLayout { place: place.clone(), found });
        }
        let (text, label) = found?;
        self.table.text_column = Some(names[text].clone());
        self.table.label_column = label.map(|label| names[label].clone());
        self.table.columns = names;
        Ok(())
    }
}

/// The elements of an array; the function takes each, with its number from one, and says whether to go on.
struct Elements<'a>(&'a mut dyn FnMut(u64, Object) -> bool);

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> std::result::Result<(), A::Error> {
        let mut row = 0;
        while let Some(object) = elements.next_element()? {
            row += 1;
            if !(self.0)(row, object) {
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// An object whose keys differ.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Object, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Object, A::Error> {
                let mut object = Map::new();
                while let Some((key, value)) = entries.next_entry::<String, Value>()? {
                    if object.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("the key {key:?} occurs twice")));
                    }
                    object.insert(key, value);
                }
                Ok(Object(object))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// A whole number, also one that is written with a fraction: `1.0`.
fn whole(value: &Value) -> Option<i64> {
    // 2^53: below it every whole number is a double of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = value.as_number()?;
    number.as_i64().or_else(|| {
        let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0)?;
        (float.abs() < EXACT).then_some(float as i64)
    })
}

/// The parser's error, or what is there that many programs write and JSON does not have.
fn explain(text: &str, place: Location, error: serde_json::Error) -> TrainError {
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    // The column is that of the character before which the parser stopped, or of the one at which it did.
    let at = |column: usize| line.get(column.saturating_sub(1)..).unwrap_or_default();
    let here = [at(error.column()), at(error.column() + 1), at(error.column().saturating_sub(1))];
    let found = |word: &str| error.is_syntax() && here.iter().any(|rest| rest.starts_with(word));
    let other = [
        ("NaN", "NaN, which is not JSON; write null"),
        ("Infinity", "Infinity, which is not JSON; write null"),
        ("-Infinity", "-Infinity, which is not JSON; write null"),
        ("None", "Python's None; write JSON's null (json.dumps)"),
        ("True", "Python's True; write JSON's true (json.dumps)"),
        ("False", "Python's False; write JSON's false (json.dumps)"),
        ("'", "a single quote: Python's repr is not JSON (json.dumps)"),
    ];
    match other.iter().find(|(word, _)| found(word)) {
        Some((_, what)) => TrainError::JsonLayout { place, found: (*what).to_owned() },
        None => TrainError::Json { place, source: error },
    }
}

fn newlines(text: &str) -> u64 {
    text.bytes().filter(|&byte| byte == b'\n').count() as u64
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
