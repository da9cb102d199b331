//! Class folders: a sub-folder a class, a `.txt` file a text. The original IMDB archive is `neg/*.txt` and `pos/*.txt`.
//!
//! Sources: Maas et al. 2011, `aclImdb/README` (files are named `<id>_<stars>.txt`); scikit-learn's `load_files`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Location, Result, TrainError};

use super::{
    classes::sentiment,
    list,
    table::{RawLabel, RawRow, RawTable},
    utf8,
};

/// IMDB's folder of reviews without labels.
const UNLABELLED: &str = "unsup";

/// Whether a folder is one split of this layout: it has two class folders, or IMDB's, be they empty.
pub(super) fn is_split(folder: &Path) -> bool {
    let Ok(classes) = classes(folder) else { return false };
    classes.len() >= 2
        && (["neg", "pos"].iter().all(|class| folder.join(class).is_dir())
            || classes.iter().all(|path| !texts(path).is_ok_and(|texts| texts.is_empty())))
}

/// The sub-folders that are classes.
fn classes(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = list(folder)?;
    paths.retain(|path| path.is_dir() && path.file_name().is_some_and(|name| name != UNLABELLED));
    Ok(paths)
}

/// The `.txt` files of a class, ordered by the id in their names (2 before 10).
fn texts(class: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = list(class)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt") && path.is_file());
    paths.sort_by_key(|path| id(path));
    Ok(paths)
}

/// Reads a split: class by class, in the order of the classes' names.
pub(super) fn read(folder: &Path) -> Result<RawTable> {
    let mut table = RawTable::new(folder);
    let mut names = Vec::new();
    for class in classes(folder)? {
        let name = class.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for path in texts(&class)? {
            let bytes = fs::read(&path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
            let text = utf8(bytes, || Location::file(&path))?;
            table.rows.push(RawRow {
                text,
                label: RawLabel::Text(name.clone()),
                place: Location::file(&path),
            });
        }
        names.push(name);
    }
    // Where the names are words for sentiment, negative comes first whatever the language of the alphabet.
    names.sort_by_key(|name| sentiment(name));
    table.class_names = Some(names);
    Ok(table)
}

/// The texts of a split, those of IMDB's folder without labels too.
pub(super) fn read_texts(folder: &Path) -> Result<Vec<String>> {
    let mut found: Vec<String> = read(folder)?.rows.into_iter().map(|row| row.text).collect();
    let unlabelled = folder.join(UNLABELLED);
    if unlabelled.is_dir() {
        for path in texts(&unlabelled)? {
            let bytes = fs::read(&path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
            found.push(utf8(bytes, || Location::file(&path))?);
        }
    }
    Ok(found)
}

/// The number at the start of a file name; names without one come last, in the order of the names.
fn id(path: &Path) -> u64 {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
    name[..digits].parse().unwrap_or(u64::MAX)
}
