//! Labelled texts: what a data set is, and how it is found in a file or folder.
//!
//! | layout | split `train` | labels |
//! |---|---|---|
//! | Hugging Face | `train-*.parquet`, also under `plain_text/` or `data/`; `train/*.parquet` | numbers with names in the file, numbers, or names |
//! | class folders, such as Stanford IMDB's | `train/neg/*.txt`, `train/pos/*.txt`, also under `aclImdb/` | the folders' names |
//! | tables | `train.csv`, `.tsv`, `.jsonl`, `.json` | numbers or names |
//!
//! A single file (`.parquet`, `.csv`, `.tsv`, `.jsonl`, `.json`) is a data set of its own, and so is a folder whose
//! sub-folders are classes, or that holds one such file and no split.

pub mod batching;
pub mod classes;
mod columns;
mod content;
mod delimited;
mod folder;
mod jsonl;
mod labels;
mod parquet;
mod parquet_limits;
mod records;
mod repository;
pub mod sampling;
mod source;
mod table;
mod texts;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use vitrine_bert::looks_like_hub_name;

use crate::{Result, TrainError, error::shortened};
use content::utf8;
pub use labels::MAX_CLASSES;
use labels::Resolved;
pub use repository::{DataFiles, Purpose, data_set_files};
pub use source::{SourceRow, SourceSplit, read_splits};
use table::{RawTable, Wanted};
pub use texts::{TextLines, read_pretraining_texts, read_texts};

/// A text and the index of its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The text as it stands in the source.
    pub text: String,
    /// The class: an index into [`Dataset::label_names`].
    pub label: u32,
}

/// Labelled texts from one source, in the source's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    /// The rows.
    pub examples: Vec<Example>,
    /// The classes' names, by index; the numbers themselves where the source has no names.
    pub label_names: Vec<String>,
    /// Where the rows come from, for a reader.
    pub source: String,
    /// The split of a folder that these rows are; `None` for a file.
    pub split: Option<String>,
    /// The column of a table that the texts come from.
    pub text_column: Option<String>,
    /// The column of a table that the labels come from.
    pub label_column: Option<String>,
}

impl Dataset {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Number of rows of each class.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.label_names.len()];
        for example in &self.examples {
            counts[example.label as usize] += 1;
        }
        counts
    }

    /// The given rows, in the given order.
    ///
    /// # Panics
    /// When an index is not below [`len`](Dataset::len).
    pub fn subset(&self, rows: &[usize]) -> Dataset {
        Dataset {
            examples: rows.iter().map(|&row| self.examples[row].clone()).collect(),
            label_names: self.label_names.clone(),
            source: self.source.clone(),
            split: self.split.clone(),
            text_column: self.text_column.clone(),
            label_column: self.label_column.clone(),
        }
    }

    /// SHA-256 over the rows in order, as 64 hexadecimal digits: for each row its label (u32), its text's length in bytes
    /// (u64), both little-endian, and the text. Two runs with the same hash saw the same rows in the same order.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for example in &self.examples {
            hash.update(example.label.to_le_bytes());
            hash.update((example.text.len() as u64).to_le_bytes());
            hash.update(&example.text);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What a folder holds: rows to train on and, where there are any, rows to evaluate on.
#[derive(Clone, Debug)]
pub struct Splits {
    /// The training rows.
    pub train: Dataset,
    /// The test rows, with the training rows' classes.
    pub test: Option<Dataset>,
    /// Remarks for the reader: what was left out, and how classes were matched.
    pub notes: Vec<String>,
}

/// How to read a file or folder; the default suits common files.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The text column; without it the first of `text`, `review`, `sentence`, `content` that exists.
    pub text_column: Option<String>,
    /// The label column; without it the first of `label`, `labels`, `sentiment`, `class`, `target` that exists.
    pub label_column: Option<String>,
    /// The text column that a model was trained with: taken before the common names where it exists.
    pub remembered_text_column: Option<String>,
    /// The label column that a model was trained with, likewise.
    pub remembered_label_column: Option<String>,
    /// Labels that are replaced by others: as they stand in the file, or as the file names their numbers.
    pub label_map: BTreeMap<String, String>,
}

impl LoadOptions {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            text: self.text_column.as_deref(),
            label: self.label_column.as_deref(),
            remembered: (self.remembered_text_column.as_deref(), self.remembered_label_column.as_deref()),
            labels: true,
        }
    }
}

/// The names of the split to train on.
const TRAIN: [&str; 2] = ["train", "training"];
/// The splits to evaluate on, the best first.
const EVALUATION: [&str; 5] = ["test", "validation", "valid", "val", "dev"];

/// Reads one data set: a file, or a folder's training rows.
///
/// A class is its name. Names are, in this order: those that a Hugging Face parquet file gives to its numbers; a
/// sub-folder's; the labels themselves, any strings. Labels that are all whole numbers are as many classes as occur, in
/// their order, named by their numbers. Words for sentiment are ordered negative, neutral, positive, and `neg` is
/// `negative`; other strings are ordered by code point, as scikit-learn's `LabelEncoder` does. There are at most
/// [`MAX_CLASSES`]. Files of one split are matched to each other by [`classes::align`].
///
/// # Errors
/// Whatever is wrong with the input is one [`TrainError`] that says where it is; nothing panics.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Dataset> {
    Ok(load_noting(path, &TRAIN, options)?.0)
}

/// The labelled rows of a file, or of the first of these splits that a folder has, and remarks.
fn load_noting(path: &Path, splits: &[&str], options: &LoadOptions) -> Result<(Dataset, Vec<String>)> {
    let mut notes = Vec::new();
    let (dataset, unused) = match find(path, splits, options, &mut notes)?.resolve(options)? {
        Resolved::Labelled { dataset, unused } => (dataset, unused),
        Resolved::Unlabelled { error, .. } => return Err(error),
    };
    notes.extend(unused.iter().map(|old| {
        format!("{}: no row has the label `{}` that is to be replaced", dataset.source, shortened(old))
    }));
    Ok((dataset, notes))
}

/// Reads everything that a run needs: the training rows and, from a folder, the rows to evaluate on: its `test` split if
/// that has labels, or else its `validation`, `valid`, `val` or `dev` split. They get the training rows' classes.
///
/// # Errors
/// As [`load`]; a folder without a `train` split is an error too.
pub fn load_splits(path: &Path, options: &LoadOptions) -> Result<Splits> {
    let (train, mut notes) = load_noting(path, &TRAIN, options)?;
    let mut test = if is_folder(path)? { labelled_split(path, options, &mut notes)? } else { None };
    if let Some(rows) = test.take() {
        let (rows, remark) = rows.aligned(&train.label_names, "the training rows")?;
        notes.extend(remark);
        test = Some(rows);
    }
    Ok(Splits { train, test, notes })
}

/// Reads rows to evaluate on, and remarks for the reader: a file, or the split of a folder that [`load_splits`] would take.
///
/// # Errors
/// As [`load`]; a folder without a labelled split is an error.
pub fn load_evaluation(path: &Path, options: &LoadOptions) -> Result<(Dataset, Vec<String>)> {
    let mut notes = Vec::new();
    if is_folder(path)?
        && let Some(dataset) = labelled_split(path, options, &mut notes)?
    {
        return Ok((dataset, notes));
    }
    load_noting(path, &EVALUATION, options)
}

/// The first split to evaluate on that has labels; a remark for each that has none.
fn labelled_split(root: &Path, options: &LoadOptions, notes: &mut Vec<String>) -> Result<Option<Dataset>> {
    for split in EVALUATION {
        let found = read_split(root, split, options, notes)?;
        match found.map(|tables| tables.resolve(options)).transpose()? {
            Some(Resolved::Labelled { dataset, .. }) => {
                return Ok(Some(Dataset { split: Some(split.to_owned()), ..dataset }));
            }
            Some(Resolved::Unlabelled { rows, why, .. }) => notes.push(format!(
                "{}: the {rows} rows of its `{split}` split are left out of the evaluation: {why}",
                root.display()
            )),
            None => {}
        }
    }
    Ok(None)
}

/// A file, the first of these splits of a folder that exists, or what a folder without splits holds.
fn find(path: &Path, splits: &[&str], options: &LoadOptions, notes: &mut Vec<String>) -> Result<Tables> {
    if !is_folder(path)? {
        return read_files(path, &[path.to_owned()], options, notes);
    }
    for split in splits {
        if let Some(found) = read_split(path, split, options, notes)? {
            return Ok(found);
        }
    }
    let any_split = TRAIN.iter().chain(&EVALUATION);
    let entries = list(path)?;
    let is_split = |entry: &PathBuf| any_split.clone().any(|split| shard_of(entry, split));
    let files: Vec<PathBuf> =
        entries.iter().filter(|entry| entry.is_file() && format_of(entry).is_some()).cloned().collect();
    if !entries.iter().any(is_split) {
        if folder::is_split(path) {
            return Tables::of_folder(path);
        }
        if let [only] = &files[..] {
            notes.push(format!("{}: no splits by name, so its one data file is read", path.display()));
            return read_files(only, &files, options, notes);
        }
    }
    let has_split = |entry: &&PathBuf| {
        entry.is_dir() && list(entry).is_ok_and(|inner| inner.iter().any(|file| shard_of(file, splits[0])))
    };
    let below = entries
        .iter()
        .find(has_split)
        .map(|entry| format!("; its folder `{}` has one: pass that", name(entry)));
    let hint = match below {
        Some(hint) => hint,
        None if files.is_empty() => String::new(),
        None => {
            let names: Vec<String> = files.iter().take(6).map(|file| format!("`{}`", name(file))).collect();
            format!("; it holds {}: pass one of these", names.join(", "))
        }
    };
    Err(TrainError::NoSplit { path: path.to_owned(), split: splits[0].to_owned(), hint })
}

/// A name for messages, without commands for the terminal.
fn name(path: &Path) -> String {
    shortened(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// One split of a folder, in whichever layout it is found first.
fn read_split(
    root: &Path,
    split: &str,
    options: &LoadOptions,
    notes: &mut Vec<String>,
) -> Result<Option<Tables>> {
    for folder in ["", "plain_text", "data", "aclImdb"].map(|name| root.join(name)) {
        if !folder.is_dir() {
            continue;
        }
        let inside = folder.join(split);
        if folder::is_split(&inside) {
            return Tables::of_folder(&inside).map(Some);
        }
        let mut files = split_files(&folder, |file| shard_of(file, split), split, notes)?;
        if files.is_empty() && inside.is_dir() {
            files = split_files(&inside, |_| true, split, notes)?;
        }
        match &files[..] {
            [] => {}
            [only] => return read_files(only, &files, options, notes).map(Some),
            _ => return read_files(&inside, &files, options, notes).map(Some),
        }
    }
    Ok(None)
}

/// The formats of tables by their extensions, in the order in which a split is looked for.
pub const FORMATS: [&str; 6] = ["parquet", "csv", "tsv", "jsonl", "ndjson", "json"];

/// The place of a file's format in [`FORMATS`].
fn format_of(path: &Path) -> Option<usize> {
    let extension = path.extension()?.to_str()?;
    FORMATS.iter().position(|format| format.eq_ignore_ascii_case(extension))
}

/// Whether a file is (a shard of) a split by its name: `train.csv`, `train-00000-of-00002.parquet`; or its folder.
fn shard_of(path: &Path, split: &str) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    if path.is_dir() { name.eq_ignore_ascii_case(split) } else { is_shard_name(name, split) }
}

/// The same of a file's name.
fn is_shard_name(name: &str, split: &str) -> bool {
    if format_of(Path::new(name)).is_none()
        || !name.get(..split.len()).is_some_and(|start| start.eq_ignore_ascii_case(split))
    {
        return false;
    }
    let rest = &name[split.len()..];
    // `train-labels.csv` is another table, but `datasets` names parquet shards in many ways.
    let shard =
        rest.starts_with('-') && (rest.contains("-of-") || rest.to_ascii_lowercase().ends_with(".parquet"));
    shard || rest.matches('.').count() == 1 && rest.starts_with('.')
}

/// The files of a split in one folder, in order: the shards, or one table, of the first format that there is.
fn split_files(
    folder: &Path,
    belongs: impl Fn(&Path) -> bool,
    split: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<PathBuf>> {
    let mut files: Vec<(usize, PathBuf)> = list(folder)?
        .into_iter()
        .filter(|path| path.is_file() && belongs(path))
        .filter_map(|path| Some((format_of(&path)?, path)))
        .collect();
    let Some(first) = files.iter().map(|(format, _)| *format).min() else { return Ok(Vec::new()) };
    let others: Vec<String> = files
        .iter()
        .filter(|(format, _)| *format != first)
        .map(|(_, path)| format!("`{}`", name(path)))
        .collect();
    files.retain(|(format, _)| *format == first);
    let files: Vec<PathBuf> = files.into_iter().map(|(_, path)| path).collect();
    if !others.is_empty() {
        let read = name(&files[0]);
        notes.push(format!("{}: `{read}` is read; {} is left alone", folder.display(), others.join(", ")));
    }
    let count = |path: &PathBuf| {
        let (_, count) = path.file_stem()?.to_str()?.rsplit_once("-of-")?;
        count.parse::<usize>().ok()
    };
    if let Some(expected) = files.iter().find_map(count).filter(|&expected| expected != files.len()) {
        let (path, split, found) = (folder.to_owned(), split.to_owned(), files.len());
        return Err(TrainError::MissingShards { path, split, found, expected });
    }
    Ok(files)
}

/// Files that together are one data set, as they stand there: nothing is decided about labels yet.
struct Tables {
    source: PathBuf,
    tables: Vec<RawTable>,
    /// Whether labels are the names of folders; else they are in a column, if there is one.
    class_folders: bool,
}

impl Tables {
    /// A split of class folders.
    fn of_folder(folder: &Path) -> Result<Self> {
        Ok(Tables { source: folder.to_owned(), tables: vec![folder::read(folder)?], class_folders: true })
    }

    fn resolve(self, options: &LoadOptions) -> Result<Resolved> {
        let Tables { source, tables, class_folders } = self;
        let lacks =
            |table: &&RawTable| !class_folders && table.label_column.is_none() && !table.rows.is_empty();
        // All files without labels are a split without labels; one of several is a mistake.
        let Some(error) = tables.iter().find(lacks).map(|table| table.no_label_column(options.wanted()))
        else {
            return labels::resolve(tables, &source, &options.label_map);
        };
        if tables.iter().any(|table| table.label_column.is_some()) {
            return Err(error);
        }
        let rows = tables.iter().map(|table| table.rows.len()).sum();
        Ok(Resolved::Unlabelled { rows, why: "there is no label column", error })
    }
}

/// Reads files that together are one data set.
fn read_files(
    source: &Path,
    files: &[PathBuf],
    options: &LoadOptions,
    notes: &mut Vec<String>,
) -> Result<Tables> {
    let wanted = options.wanted();
    let mut tables = files.iter().map(|path| read_file(path, wanted)).collect::<Result<Vec<_>>>()?;
    notes.extend(tables.iter_mut().flat_map(|table| std::mem::take(&mut table.notes)));
    Ok(Tables { source: source.to_owned(), tables, class_folders: false })
}

/// Reads one file in the format that its extension names.
fn read_file(path: &Path, wanted: Wanted<'_>) -> Result<RawTable> {
    match format_of(path).map(|format| FORMATS[format]) {
        Some("parquet") => parquet::read(path, wanted),
        Some("csv") => delimited::read(path, b',', wanted),
        Some("tsv") => delimited::read(path, b'\t', wanted),
        Some(_) => jsonl::read(path, wanted),
        None => Err(content::not_data(path)),
    }
}

/// Whether the path is a folder; an error if it is nothing at all.
fn is_folder(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && looks_like_hub_name(path) => {
            Err(TrainError::HubName { name: path.display().to_string() })
        }
        Err(source) => Err(TrainError::Read { path: path.to_owned(), source }),
    }
}

/// The entries of a folder, sorted by name; those whose names begin with a dot are not data.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> =
        entries.map_err(|source| TrainError::Read { path: folder.to_owned(), source })?;
    // Such as `._train.parquet`, which macOS writes beside `train.parquet`.
    paths.retain(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod tests;
