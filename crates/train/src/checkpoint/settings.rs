//! Settings of two runs compared: which of them would change the result.

use serde_json::{Map, Value};
use std::fmt;

/// A setting that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name; that of a setting inside of another follows after a dot.
    pub setting: String,
    /// What it was when the checkpoint was made; `-` for nothing.
    pub checkpoint: String,
    /// What it is now.
    pub now: String,
}

/// What differs between settings that were read from a file and those of now, in the order of the latter.
pub fn differences(checkpoint: &Map<String, Value>, now: &Map<String, Value>) -> Vec<Difference> {
    // Those of now go the same way through text: a reader of JSON may return the neighbour of a number.
    let read = serde_json::to_string(now).and_then(|text| serde_json::from_str(&text));
    let (before, after) = (flat(checkpoint), flat(&read.unwrap_or_else(|_| now.clone())));
    let value = |settings: &[(String, String)], name: &str| {
        settings.iter().find(|(there, _)| there == name).map_or("-".to_owned(), |(_, value)| value.clone())
    };
    let gone = before.iter().filter(|(name, _)| !after.iter().any(|(there, _)| there == name));
    let names = after.iter().chain(gone).map(|(name, _)| name);
    names
        .map(|name| Difference {
            setting: name.clone(),
            checkpoint: value(&before, name),
            now: value(&after, name),
        })
        .filter(|difference| difference.checkpoint != difference.now)
        .collect()
}

/// Every setting by its path; those that are null are as if they were not there.
fn flat(settings: &Map<String, Value>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, value) in settings {
        match value {
            Value::Object(inner) => {
                all.extend(flat(inner).into_iter().map(|(inner, value)| (format!("{name}.{inner}"), value)));
            }
            Value::Null => {}
            Value::String(text) => all.push((name.clone(), text.clone())),
            other => all.push((name.clone(), other.to_string())),
        }
    }
    all
}

/// A table for people, a line each.
pub struct SettingsTable<'a>(pub &'a [Difference]);

impl fmt::Display for SettingsTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["setting", "checkpoint", "now"].map(str::to_owned);
        let short = |text: &str| match text.char_indices().nth(24) {
            Some((end, _)) => format!("{}..", &text[..end]),
            None => text.to_owned(),
        };
        let rows: Vec<[String; 3]> = [head]
            .into_iter()
            .chain(self.0.iter().map(|d| [d.setting.clone(), short(&d.checkpoint), short(&d.now)]))
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let (first, second) = (width(0), width(1));
        for (index, [setting, checkpoint, now]) in rows.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "  {setting:<first$}  {checkpoint:<second$}  {now}")?;
        }
        Ok(())
    }
}
