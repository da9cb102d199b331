//! Labelled texts: what a data set is, and how it is found in a file or folder.
//!
//! | layout | split `train` | labels |
//! |---|---|---|
//! | Hugging Face | `train-*.parquet`, also under `plain_text/` or `data/` | class indices or names |
//! | Stanford IMDB | `train/neg/*.txt`, `train/pos/*.txt`, also under `aclImdb/` | neg 0, pos 1 |
//! | tables | `train.csv`, `train.tsv`, `train.jsonl` | class indices or names |
//!
//! A single file (`.parquet`, `.csv`, `.tsv`, `.jsonl`) is a data set of its own.

pub mod batching;
mod columns;
mod content;
mod delimited;
mod folder;
mod jsonl;
mod labels;
mod parquet;
mod parquet_limits;
mod records;
pub mod sampling;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{Result, TrainError};
use content::utf8;
use table::{RawTable, Wanted};

/// A text and the index of its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The text as it stands in the source.
    pub text: String,
    /// The class: an index into [`Dataset::label_names`].
    pub label: u32,
}

/// Labelled texts from one source, in the source's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The rows.
    pub examples: Vec<Example>,
    /// The classes' names, by index; the numbers themselves where the source has no names.
    pub label_names: Vec<String>,
    /// Where the rows come from, for a reader.
    pub source: String,
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
    /// The test rows.
    pub test: Option<Dataset>,
}

/// How to read a file or folder; the default suits common files.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The text column; without it the first of `text`, `review`, `sentence`, `content` that exists.
    pub text_column: Option<String>,
    /// The label column; without it the first of `label`, `labels`, `sentiment`, `class`, `target` that exists.
    pub label_column: Option<String>,
    /// The split of a folder that [`load`] reads; without it `train`. A single file has no splits.
    pub split: Option<String>,
    /// The classes' names by index, such as a trained model's. Without them the source decides: see [`load`].
    pub label_names: Option<Vec<String>>,
}

/// Reads one data set: a file, or one split of a folder.
///
/// A label is a class index, or a name: one of [`LoadOptions::label_names`], of the names stored in a Hugging Face
/// parquet file, or one of `neg`/`negative`, `neutral`, `pos`/`positive` (classes in this order; `neutral` is a class only
/// where it occurs). Names are compared without regard to case.
///
/// # Errors
/// Whatever is wrong with the input is one [`TrainError`] that says where it is; nothing panics.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Dataset> {
    if !is_folder(path)? {
        return load_files(path, &[path.to_owned()], options);
    }
    let split = options.split.as_deref().unwrap_or("train");
    match load_split(path, split, options)? {
        Some(dataset) => Ok(dataset),
        None => Err(TrainError::NoSplit { path: path.to_owned(), split: split.to_owned() }),
    }
}

/// Reads everything that a run needs: a folder's training rows and its test rows, if it has a `test` split (or else a
/// `validation` or `dev` split). A single file holds training rows only. The test rows use the training rows' classes.
///
/// # Errors
/// As [`load`]; a folder without a `train` split is an error too.
pub fn load_splits(path: &Path, options: &LoadOptions) -> Result<Splits> {
    let train = load(path, &LoadOptions { split: None, ..options.clone() })?;
    if !is_folder(path)? {
        return Ok(Splits { train, test: None });
    }
    let options = LoadOptions { label_names: Some(train.label_names.clone()), ..options.clone() };
    for split in ["test", "validation", "dev"] {
        if let Some(test) = load_split(path, split, &options)? {
            return Ok(Splits { train, test: Some(test) });
        }
    }
    Ok(Splits { train, test: None })
}

/// One split of a folder, in whichever layout it is found first.
fn load_split(root: &Path, split: &str, options: &LoadOptions) -> Result<Option<Dataset>> {
    for folder in ["", "plain_text", "data", "aclImdb"].map(|name| root.join(name)) {
        if !folder.is_dir() {
            continue;
        }
        if folder::is_split(&folder.join(split)) {
            let table = folder::read(&folder.join(split))?;
            return labels::resolve(vec![table], &folder.join(split), options.label_names.as_deref())
                .map(Some);
        }
        let files = split_files(&folder, split)?;
        if !files.is_empty() {
            return load_files(&folder.join(split), &files, options).map(Some);
        }
    }
    Ok(None)
}

/// The files of a split in one folder, in order: parquet shards, or one table.
fn split_files(folder: &Path, split: &str) -> Result<Vec<PathBuf>> {
    let mut shards = Vec::new();
    let mut expected = None;
    for path in list(folder)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(rest) = name.strip_prefix(split).and_then(|rest| rest.strip_suffix(".parquet")) else {
            continue;
        };
        // `train.parquet`, or `train-00000-of-00002.parquet` and whatever else follows a hyphen.
        if !rest.is_empty() && !rest.starts_with('-') {
            continue;
        }
        if let Some((_, count)) = rest.rsplit_once("-of-") {
            expected = expected.or(count.parse().ok());
        }
        shards.push(path);
    }
    if let Some(expected) = expected.filter(|&expected| expected != shards.len()) {
        let (path, split, found) = (folder.to_owned(), split.to_owned(), shards.len());
        return Err(TrainError::MissingShards { path, split, found, expected });
    }
    if !shards.is_empty() {
        return Ok(shards);
    }
    let table = ["csv", "tsv", "jsonl", "ndjson", "json"]
        .map(|extension| folder.join(format!("{split}.{extension}")));
    Ok(table.into_iter().find(|path| path.is_file()).into_iter().collect())
}

/// Reads files that together are one data set.
fn load_files(source: &Path, files: &[PathBuf], options: &LoadOptions) -> Result<Dataset> {
    let wanted = Wanted {
        text: options.text_column.as_deref(),
        label: options.label_column.as_deref(),
        labels: true,
        ..Wanted::default()
    };
    let tables = files.iter().map(|path| read_file(path, wanted)).collect::<Result<Vec<_>>>()?;
    if let Some(table) = tables.iter().find(|table| table.label_column.is_none() && !table.rows.is_empty()) {
        return Err(table.no_label_column(wanted));
    }
    labels::resolve(tables, source, options.label_names.as_deref())
}

/// Reads one file in the format that its extension names.
fn read_file(path: &Path, wanted: Wanted<'_>) -> Result<RawTable> {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some("parquet") => parquet::read(path, wanted),
        Some("csv") => delimited::read(path, b',', wanted),
        Some("tsv") => delimited::read(path, b'\t', wanted),
        Some("jsonl" | "ndjson" | "json") => jsonl::read(path, wanted),
        _ => Err(content::not_data(path)),
    }
}

/// Whether the path is a folder; an error if it is nothing at all.
fn is_folder(path: &Path) -> Result<bool> {
    let metadata = fs::metadata(path).map_err(|source| TrainError::Read { path: path.to_owned(), source })?;
    Ok(metadata.is_dir())
}

/// The entries of a folder, sorted by name.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> =
        entries.map_err(|source| TrainError::Read { path: folder.to_owned(), source })?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod tests;
