//! The layout of the original IMDB archive: `neg/*.txt` and `pos/*.txt`, one review a file.
//!
//! Source: Maas et al. 2011, `aclImdb/README`. Files are named `<id>_<stars>.txt`.

use std::{fs, path::Path};

use crate::{Place, Result, TrainError};

use super::{
    list,
    table::{RawLabel, RawRow, RawTable},
    utf8,
};

/// The folders of the labelled reviews; the index is the class. `unsup` (no labels) is left alone.
const CLASSES: [&str; 2] = ["neg", "pos"];

/// Whether a folder is one split of this layout.
pub(super) fn is_split(folder: &Path) -> bool {
    CLASSES.iter().all(|class| folder.join(class).is_dir())
}

/// Reads a split: negative reviews first, each class ordered by the id in the file names (2 before 10).
pub(super) fn read(folder: &Path) -> Result<RawTable> {
    let mut table = RawTable::new(folder);
    for name in CLASSES {
        let mut paths = list(&folder.join(name))?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt") && path.is_file());
        paths.sort_by_key(|path| id(path));
        for path in paths {
            let bytes = fs::read(&path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
            let text = utf8(bytes, || Place::file(&path))?;
            table.rows.push(RawRow {
                text,
                label: RawLabel::Text(name.to_owned()),
                place: Place::file(&path),
            });
        }
    }
    table.class_names = Some(CLASSES.map(str::to_owned).to_vec());
    Ok(table)
}

/// The number at the start of a file name; names without one come last, in the order of the names.
fn id(path: &Path) -> u64 {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
    name[..digits].parse().unwrap_or(u64::MAX)
}
