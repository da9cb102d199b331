//! Texts without labels: what `vitrine predict` and `vitrine pretrain` read.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;

use crate::{Location, Result, TrainError, error::shortened};

use super::{
    LoadOptions, columns,
    content::{read_text, utf8},
    folder, format_of, is_folder, read_file, shard_of, split_files,
    table::Wanted,
};

/// The texts of a file, in order, and remarks: those of a table's text column, or else a text a line, blank lines included.
///
/// # Errors
/// As [`load`](super::load); nothing is asked of labels.
pub fn read_texts(path: &Path, options: &LoadOptions) -> Result<(Vec<String>, Vec<String>)> {
    let mut notes = Vec::new();
    let texts: Vec<String> = if format_of(path).is_some() {
        let wanted = Wanted { labels: false, ..options.wanted() };
        let table = read_file(path, wanted)?;
        notes = table.notes;
        table.rows.into_iter().map(|row| row.text).collect()
    } else {
        let text = read_text(path)?;
        let mut lines = TextLines::new(text.as_bytes(), &path.display().to_string(), options);
        std::iter::from_fn(|| lines.next().transpose()).collect::<Result<_>>()?
    };
    match texts.is_empty() {
        true => Err(TrainError::Empty { data: path.display().to_string() }),
        false => Ok((texts, notes)),
    }
}

/// The splits of a folder that a model may be pretrained on.
pub(super) const PRETRAINING: [&str; 5] = ["train", "training", "unsupervised", "unlabelled", "unlabeled"];

/// The texts to pretrain on, in order, and remarks: those of a file, as [`read_texts`] without the blank ones, or those of a folder's
/// splits `train` and `unsupervised`, labelled or not.
///
/// # Errors
/// `TestData` for a file or folder that is test data by its name: a model that knows the texts that it is judged on looks better than it
/// is. As [`load`](super::load).
pub fn read_pretraining_texts(path: &Path, options: &LoadOptions) -> Result<(Vec<String>, Vec<String>)> {
    let is_folder = is_folder(path)?;
    if is_test(path, is_folder) {
        return Err(TrainError::TestData { path: path.to_owned() });
    }
    if !is_folder {
        let (mut texts, notes) = read_texts(path, options)?;
        texts.retain(|text| !text.trim().is_empty());
        return Ok((texts, notes));
    }
    let (mut texts, mut notes, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for folder in ["", "plain_text", "data", "aclImdb"].map(|name| path.join(name)) {
        for split in PRETRAINING.iter().filter(|_| folder.is_dir()) {
            let inside = folder.join(split);
            let found = if folder::is_split(&inside) {
                folder::read_texts(&inside)?
            } else {
                let mut files = split_files(&folder, |file| shard_of(file, split), split, &mut notes)?;
                if files.is_empty() && inside.is_dir() {
                    files = split_files(&inside, |_| true, split, &mut notes)?;
                }
                let mut found = Vec::new();
                for file in files {
                    let (more, remarks) = read_texts(&file, options)?;
                    found.extend(more);
                    notes.extend(remarks);
                }
                found
            };
            if !found.is_empty() {
                read.push(format!("`{split}` ({} texts)", found.len()));
                texts.extend(found);
            }
        }
    }
    if texts.is_empty() {
        let hint = "; for pretraining also `unsupervised`, `unlabelled`".into();
        return Err(TrainError::NoSplit { path: path.to_owned(), split: "train".into(), hint });
    }
    notes.push(format!("{}: splits {}; test data stay unread", path.display(), read.join(" and ")));
    texts.retain(|text| !text.trim().is_empty());
    Ok((texts, notes))
}

/// Whether a file, its folder or a folder is called `test`: `test.csv`, `imdb-test.parquet`, `test/part-0.jsonl`.
fn is_test(path: &Path, is_folder: bool) -> bool {
    let is_test = |name: Option<&std::ffi::OsStr>| {
        let name = name.and_then(|name| name.to_str()).unwrap_or_default();
        name.split(|c: char| !c.is_alphanumeric()).any(|word| word.eq_ignore_ascii_case("test"))
    };
    let folder = if is_folder { Some(path) } else { path.parent() };
    let folder_is = folder.and_then(Path::file_name).is_some_and(|name| name.eq_ignore_ascii_case("test"));
    folder_is || !is_folder && is_test(path.file_stem())
}

/// Texts from a stream, a line each. If the first line is a JSON object that holds a text, every line is one.
pub struct TextLines<'a, R> {
    reader: BufReader<R>,
    path: std::path::PathBuf,
    options: &'a LoadOptions,
    line: u64,
    /// The field that the texts are in, once the first line was a JSON object.
    field: Option<String>,
}

impl<'a, R: Read> TextLines<'a, R> {
    /// `name` is the stream's for messages.
    pub fn new(stream: R, name: &str, options: &'a LoadOptions) -> Self {
        TextLines { reader: BufReader::new(stream), path: name.into(), options, line: 0, field: None }
    }

    /// At least one text, waiting for it, and then as many as are there already, at most `most`; none at the end.
    ///
    /// # Errors
    /// `Read`, `NotUtf8`, and what a JSON object of texts can lack.
    pub fn ready(&mut self, most: usize) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        while texts.len() < most && (texts.is_empty() || self.reader.buffer().contains(&b'\n')) {
            let Some(text) = self.next()? else { break };
            texts.push(text);
        }
        Ok(texts)
    }

    fn next(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = self.reader.read_until(b'\n', &mut bytes);
        if read.map_err(|source| TrainError::Read { path: self.path.clone(), source })? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let place = Location::line(&self.path, self.line);
        for end in [b'\n', b'\r'] {
            bytes.pop_if(|byte| *byte == end);
        }
        let text = utf8(bytes, || place.clone())?;
        if self.line == 1 {
            let text = text.trim_start_matches('\u{feff}');
            self.first(text, &place)?;
        }
        let text = if self.line == 1 { text.trim_start_matches('\u{feff}').to_owned() } else { text };
        let Some(field) = &self.field else { return Ok(Some(text)) };
        let value: Value = serde_json::from_str(&text)
            .map_err(|source| TrainError::Json { place: place.clone(), source })?;
        match value.get(field) {
            Some(Value::String(text)) => Ok(Some(text.clone())),
            _ => Err(TrainError::ColumnType {
                place,
                column: field.clone(),
                expected: "a string",
                got: "none".to_owned(),
            }),
        }
    }

    /// Decides by the first line what the stream is.
    fn first(&mut self, line: &str, place: &Location) -> Result<()> {
        let wanted = Wanted { labels: false, ..self.options.wanted() };
        if let Ok(Value::Object(object)) = serde_json::from_str(line) {
            let names: Vec<String> = object.keys().cloned().collect();
            let (text, _) = columns::find(&names, wanted, place)?;
            self.field = Some(names[text].clone());
            return Ok(());
        }
        // A header is no text, and the lines below it are no texts either.
        for delimiter in [',', '\t', ';'] {
            let names: Vec<String> =
                line.split(delimiter).map(|name| name.trim_matches(['"', ' ']).to_owned()).collect();
            if names.len() > 1 && columns::find(&names, wanted, place).is_ok() {
                return Err(TrainError::TableOfTexts { place: place.clone(), header: shortened(line) });
            }
        }
        Ok(())
    }
}
