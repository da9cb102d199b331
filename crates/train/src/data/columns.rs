//! Finding the text and the label column by name.

use crate::{Place, Result, TrainError};

use super::LoadOptions;

/// What a column is for, and the names that it commonly has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Role {
    name: &'static str,
    common: &'static [&'static str],
}

const TEXT: Role = Role { name: "text", common: &["text", "review", "sentence", "content"] };
const LABEL: Role = Role { name: "label", common: &["label", "labels", "sentiment", "class", "target"] };

/// The positions of the text and the label column among `columns`.
pub(super) fn find(columns: &[String], options: &LoadOptions, place: &Place) -> Result<(usize, usize)> {
    Ok((
        find_one(columns, options.text_column.as_deref(), TEXT, place)?,
        find_one(columns, options.label_column.as_deref(), LABEL, place)?,
    ))
}

/// The requested column by its exact name, or else the first common name that exists, in any case.
fn find_one(columns: &[String], requested: Option<&str>, role: Role, place: &Place) -> Result<usize> {
    let found = match requested {
        Some(name) => columns.iter().position(|column| column == name),
        None => role
            .common
            .iter()
            .find_map(|name| columns.iter().position(|column| column.trim().eq_ignore_ascii_case(name))),
    };
    found.ok_or_else(|| TrainError::MissingColumn {
        place: place.clone(),
        role: role.name,
        wanted: match requested {
            Some(name) => vec![name.to_owned()],
            None => role.common.iter().map(|&name| name.to_owned()).collect(),
        },
        columns: columns.to_vec(),
    })
}
