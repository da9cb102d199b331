//! Finding the text and the label column by name.

use crate::{Place, Result, TrainError};

use super::table::Wanted;

/// What a column is for, and the names that it commonly has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Role {
    name: &'static str,
    common: &'static [&'static str],
}

pub(super) const TEXT: Role = Role { name: "text", common: &["text", "review", "sentence", "content"] };
pub(super) const LABEL: Role =
    Role { name: "label", common: &["label", "labels", "sentiment", "class", "target"] };

/// The positions of the text column and, where labels are wanted and there is one, of the label column.
///
/// # Errors
/// `MissingColumn` for the text column. A label column may be missing: whoever needs labels says so.
pub(super) fn find(columns: &[String], wanted: Wanted<'_>, place: &Place) -> Result<(usize, Option<usize>)> {
    let (text, label) = wanted.remembered;
    let text = find_one(columns, wanted.text, text, TEXT)
        .ok_or_else(|| missing(columns, wanted.text, TEXT, place))?;
    let label = if wanted.labels { find_one(columns, wanted.label, label, LABEL) } else { None };
    Ok((text, label))
}

/// The requested column by its exact name, or else the remembered one, or the first common name that exists, in any case.
fn find_one(
    columns: &[String],
    requested: Option<&str>,
    remembered: Option<&str>,
    role: Role,
) -> Option<usize> {
    let exact = |name: &str| columns.iter().position(|column| column == name);
    let common = |name: &&str| columns.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
    match requested {
        Some(name) => exact(name),
        None => remembered.and_then(exact).or_else(|| role.common.iter().find_map(common)),
    }
}

/// The error of a file that lacks a column.
pub(super) fn missing(columns: &[String], requested: Option<&str>, role: Role, place: &Place) -> TrainError {
    TrainError::MissingColumn {
        place: place.clone(),
        role: role.name,
        wanted: match requested {
            Some(name) => vec![name.to_owned()],
            None => role.common.iter().map(|&name| name.to_owned()).collect(),
        },
        columns: columns.to_vec(),
    }
}
