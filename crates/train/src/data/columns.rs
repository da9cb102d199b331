//! Finding the text and the label column by name.

use crate::{Location, Result, TrainError};

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
/// `MissingColumn` for the text column, `DuplicateColumn` for either. A label column may be missing: whoever needs labels
/// says so.
pub(super) fn find(
    columns: &[String],
    wanted: Wanted<'_>,
    place: &Location,
) -> Result<(usize, Option<usize>)> {
    let text = find_one(columns, wanted.text, wanted.remembered.0, TEXT, place)?
        .ok_or_else(|| missing(columns, wanted.text, TEXT, place))?;
    let label = if wanted.labels { find_label(columns, wanted, place)? } else { None };
    Ok((text, label))
}

/// The position of the label column, whether labels are wanted or not.
pub(super) fn find_label(columns: &[String], wanted: Wanted<'_>, place: &Location) -> Result<Option<usize>> {
    find_one(columns, wanted.label, wanted.remembered.1, LABEL, place)
}

/// The requested column, or else the remembered one, or the first common name that exists.
///
/// A requested or remembered name is exact, or exact but for spaces around it; a common one is in any case.
fn find_one(
    columns: &[String],
    requested: Option<&str>,
    remembered: Option<&str>,
    role: Role,
    place: &Location,
) -> Result<Option<usize>> {
    // The looser comparison counts only where the stricter one finds nothing.
    let find = |same: [&dyn Fn(&str) -> bool; 2]| -> Result<Option<usize>> {
        for same in same {
            let mut found = (0..columns.len()).filter(|&column| same(&columns[column]));
            let Some(first) = found.next() else { continue };
            return match found.count() {
                0 => Ok(Some(first)),
                more => Err(TrainError::DuplicateColumn {
                    place: place.clone(),
                    role: role.name,
                    column: columns[first].clone(),
                    count: more + 1,
                }),
            };
        }
        Ok(None)
    };
    let exact = |name: &str| find([&|column| column == name, &|column| column.trim() == name.trim()]);
    if let Some(name) = requested {
        return exact(name);
    }
    if let Some(column) = remembered.map(exact).transpose()?.flatten() {
        return Ok(Some(column));
    }
    for name in role.common {
        let common =
            [&|column: &str| column == *name, &|column: &str| column.trim().eq_ignore_ascii_case(name)]
                as [&dyn Fn(&str) -> bool; 2];
        if let Some(column) = find(common)? {
            return Ok(Some(column));
        }
    }
    Ok(None)
}

/// The error of a file that lacks a column.
pub(super) fn missing(
    columns: &[String],
    requested: Option<&str>,
    role: Role,
    place: &Location,
) -> TrainError {
    TrainError::MissingColumn {
        place: place.clone(),
        role: role.name,
        wanted: match requested {
            Some(name) => vec![name.to_owned()],
            None => role.common.iter().map(|&name| name.to_owned()).collect(),
        },
        columns: columns.to_vec(),
        hint: "",
    }
}
