//! Parquet files as Hugging Face stores data sets: flat columns, one of texts and one of labels.
//!
//! The class names come from the `huggingface` entry of the file's metadata, a JSON object in which
//! `info.features.<label column>.names` lists them (`datasets/arrow_writer.py`).

use std::{
    cell::Cell,
    fs::File,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Once,
};

use parquet::{
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, DataType},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        reader::{FileReader, RowGroupReader, SerializedFileReader},
    },
    schema::types::SchemaDescriptor,
};
use serde_json::Value;

use crate::{Place, Result, TrainError};

use super::{
    columns,
    table::{RawLabel, RawRow, RawTable, Wanted},
    utf8,
};

/// Values decoded at once.
const CHUNK: usize = 1024;

/// Reads a parquet file.
///
/// The parquet crate checks most of a file, yet panics on some damaged pages and offsets (version 60). A damaged file is
/// no bug of ours, so such a panic becomes the error that the others are.
pub(super) fn read(path: &Path, wanted: Wanted<'_>) -> Result<RawTable> {
    quietly(|| read_rows(path, wanted)).unwrap_or_else(|| {
        Err(damaged(path, ParquetError::General("the reader stopped on damaged data".to_owned())))
    })
}

/// Runs `f`; `None` if it panicked. What a panic prints is held back on this thread meanwhile.
fn quietly<T>(f: impl FnOnce() -> T) -> Option<T> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                previous(info);
            }
        }));
    });
    QUIET.set(true);
    // Nothing that `f` leaves behind half-done is used after a panic: the whole load fails.
    let result = panic::catch_unwind(AssertUnwindSafe(f)).ok();
    QUIET.set(false);
    result
}

fn read_rows(path: &Path, wanted: Wanted<'_>) -> Result<RawTable> {
    let mut table = RawTable::new(path);
    let opened = File::open(path).map_err(|source| TrainError::Read { path: path.to_owned(), source })?;
    let reader = SerializedFileReader::new(opened).map_err(|error| damaged(path, error))?;
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema_descr();
    table.columns = schema.root_schema().get_fields().iter().map(|field| field.name().to_owned()).collect();
    let (text, label) = columns::find(&table.columns, wanted, &Place::file(path))?;
    let names = table.columns.clone();
    table.text_column = Some(names[text].clone());
    let texts = Column::new(path, schema, &names[text], "strings")?;
    let labels = match label {
        Some(label) => {
            table.label_column = Some(names[label].clone());
            table.class_names = class_names(metadata.key_value_metadata(), &names[label]);
            Some(Column::new(path, schema, &names[label], "whole numbers or names")?)
        }
        None => None,
    };
    let mut row = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(|error| damaged(path, error))?;
        let texts = texts.texts(group.as_ref(), row)?;
        let labels = match &labels {
            Some(labels) => labels.labels(group.as_ref(), row)?,
            None => vec![RawLabel::Missing; texts.len()],
        };
        if texts.len() != labels.len() {
            let (texts, labels) = (texts.len(), labels.len());
            return Err(TrainError::UnequalColumns { place: Place::file(path), texts, labels });
        }
        for (text, label) in texts.into_iter().zip(labels) {
            row += 1;
            table.rows.push(RawRow { text, label, place: Place::row(path, row) });
        }
    }
    Ok(table)
}

/// One flat column of a file. Its methods read it in one row group, which starts after `row` rows.
struct Column<'a> {
    path: &'a Path,
    name: &'a str,
    /// What it must hold, for messages.
    expected: &'static str,
    /// Its index among the leaves of the schema.
    leaf: usize,
}

impl<'a> Column<'a> {
    fn new(
        path: &'a Path,
        schema: &SchemaDescriptor,
        name: &'a str,
        expected: &'static str,
    ) -> Result<Column<'a>> {
        let flat = |leaf: &usize| {
            schema.column(*leaf).path().parts() == [name] && schema.column(*leaf).max_rep_level() == 0
        };
        match (0..schema.num_columns()).find(flat) {
            Some(leaf) => Ok(Column { path, name, expected, leaf }),
            None => Err(TrainError::ColumnType {
                place: Place::file(path),
                column: name.to_owned(),
                expected,
                got: "lists or structures".to_owned(),
            }),
        }
    }

    fn texts(&self, group: &dyn RowGroupReader, row: u64) -> Result<Vec<String>> {
        match self.open(group)? {
            ColumnReader::ByteArrayColumnReader(reader) => self.strings(reader, row),
            other => Err(self.wrong_type(Place::file(self.path), physical_type(&other))),
        }
    }

    fn labels(&self, group: &dyn RowGroupReader, row: u64) -> Result<Vec<RawLabel>> {
        Ok(match self.open(group)? {
            ColumnReader::Int32ColumnReader(reader) => {
                self.values(reader, row)?.into_iter().map(|index| RawLabel::Number(index.into())).collect()
            }
            ColumnReader::Int64ColumnReader(reader) => {
                self.values(reader, row)?.into_iter().map(RawLabel::Number).collect()
            }
            ColumnReader::ByteArrayColumnReader(reader) => {
                self.strings(reader, row)?.iter().map(|name| RawLabel::parse(name)).collect()
            }
            other => return Err(self.wrong_type(Place::file(self.path), physical_type(&other))),
        })
    }

    fn open(&self, group: &dyn RowGroupReader) -> Result<ColumnReader> {
        group.get_column_reader(self.leaf).map_err(|error| damaged(self.path, error))
    }

    fn strings(
        &self,
        reader: ColumnReaderImpl<parquet::data_type::ByteArrayType>,
        row: u64,
    ) -> Result<Vec<String>> {
        let bytes: Vec<ByteArray> = self.values(reader, row)?;
        let text =
            |(row, bytes): (u64, ByteArray)| utf8(bytes.data().to_vec(), || Place::row(self.path, row));
        (row + 1..).zip(bytes).map(text).collect()
    }

    /// All values; a null is an error.
    fn values<T: DataType>(&self, mut reader: ColumnReaderImpl<T>, row: u64) -> Result<Vec<T::T>> {
        let mut values = Vec::new();
        // 1 for a value and 0 for a null; stays empty where the schema allows no nulls.
        let mut definition_levels = Vec::new();
        loop {
            definition_levels.clear();
            let before = values.len();
            let (_, read, levels) = reader
                .read_records(CHUNK, Some(&mut definition_levels), None, &mut values)
                .map_err(|error| damaged(self.path, error))?;
            if read < levels {
                let null = definition_levels.iter().position(|&level| level == 0).unwrap_or(0);
                return Err(self.wrong_type(Place::row(self.path, row + (before + null) as u64 + 1), "null"));
            }
            if levels == 0 {
                return Ok(values);
            }
        }
    }

    fn wrong_type(&self, place: Place, got: &str) -> TrainError {
        TrainError::ColumnType {
            place,
            column: self.name.to_owned(),
            expected: self.expected,
            got: got.to_owned(),
        }
    }
}

/// The class names in the file's metadata; `None` if it has none in the shape that `datasets` writes.
fn class_names(metadata: Option<&Vec<KeyValue>>, label_column: &str) -> Option<Vec<String>> {
    let entry = metadata?.iter().find(|entry| entry.key == "huggingface")?;
    let json: Value = serde_json::from_str(entry.value.as_ref()?).ok()?;
    let feature = json.get("info")?.get("features")?.get(label_column)?;
    let names = feature.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

fn damaged(path: &Path, source: ParquetError) -> TrainError {
    TrainError::Parquet { place: Place::file(path), source }
}

fn physical_type(reader: &ColumnReader) -> &'static str {
    match reader {
        ColumnReader::BoolColumnReader(_) => "booleans",
        ColumnReader::Int32ColumnReader(_) | ColumnReader::Int64ColumnReader(_) => "integers",
        ColumnReader::Int96ColumnReader(_) => "timestamps",
        ColumnReader::FloatColumnReader(_) | ColumnReader::DoubleColumnReader(_) => "floating-point numbers",
        ColumnReader::ByteArrayColumnReader(_) => "strings",
        ColumnReader::FixedLenByteArrayColumnReader(_) => "fixed-length bytes",
    }
}
