//! Parquet files as Hugging Face and pandas store tables: flat columns, one of texts and one of labels.
//!
//! Class names come from the `huggingface` entry of the file's metadata, a JSON object in which
//! `info.features.<label column>.names` lists them (`datasets/arrow_writer.py`). A pandas categorical stores its categories
//! as strings in the rows, and is read as those.
//!
//! Logical types are applied, or refused by name: a date is no class, though it is stored as a number.

use std::{fs::File, path::Path};

use parquet::{
    basic::{ConvertedType, LogicalType, Repetition, Type},
    column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader},
    data_type::{AsBytes, DataType},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, RowGroupMetaData},
        properties::ReaderProperties,
        reader::{FileReader, RowGroupReader},
        serialized_reader::{ReadOptionsBuilder, SerializedFileReader},
    },
    schema::types::{ColumnDescPtr, SchemaDescriptor},
};
use serde_json::Value;
use vitrine_bert::panics::caught;

use crate::{Location, Position, Result, TrainError};

use super::{
    columns,
    parquet_limits::{Budget, CheckedPages, check_column, check_footer},
    table::{RawLabel, RawRow, RawTable, Wanted},
    utf8,
};

/// Values decoded at once.
const CHUNK: usize = 1024;
/// What a row takes besides its text, in bytes.
const ROW: u64 = 128;

/// Reads a parquet file.
///
/// The parquet crate checks most of a file, yet panics on some damaged pages and offsets (version 60). A damaged file is
/// no bug of ours, so such a panic becomes the error that the others are.
pub(super) fn read(path: &Path, wanted: Wanted<'_>) -> Result<RawTable> {
    caught(|| read_rows(path, wanted)).unwrap_or_else(|_| {
        Err(damaged(path, ParquetError::General("the reader stopped on damaged data".to_owned())))
    })
}

fn read_rows(path: &Path, wanted: Wanted<'_>) -> Result<RawTable> {
    let mut table = RawTable::new(path);
    let open = || File::open(path).map_err(|source| TrainError::Read { path: path.to_owned(), source });
    let file = open()?;
    check_footer(path, &file)?;
    let size = file.metadata().map_err(|source| TrainError::Read { path: path.to_owned(), source })?.len();
    let mut budget = Budget::new(path, size);
    // The oldest LZ4 files have no frame that says their size; without it, unpacking has no bound.
    let properties = ReaderProperties::builder().set_backward_compatible_lz4(false).build();
    let options = ReadOptionsBuilder::new().with_reader_properties(properties).build();
    let reader =
        SerializedFileReader::new_with_options(open()?, options).map_err(|error| damaged(path, error))?;
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema_descr();
    table.columns = schema.root_schema().get_fields().iter().map(|field| field.name().to_owned()).collect();
    let (text, label) = columns::find(&table.columns, wanted, &Location::file(path))?;
    let text_name = table.columns[text].clone();
    let text = Column::new(path, schema, &text_name, Expected::Texts)?;
    let label_name = label.map(|label| table.columns[label].clone());
    let label =
        label_name.as_deref().map(|name| Column::new(path, schema, name, Expected::Labels)).transpose()?;
    for number in 0..reader.num_row_groups() {
        let group = reader.get_row_group(number).map_err(|error| damaged(path, error))?;
        let rows = rows(path, group.metadata())?;
        budget.spend(rows.saturating_mul(ROW), "it has too many rows")?;
        for column in [Some(&text), label.as_ref()].into_iter().flatten() {
            check_column(path, &file, group.metadata().column(column.leaf), rows, &mut budget)?;
        }
        let before = table.rows.len();
        let place = Location::file(path);
        text.each(group.as_ref(), before, &mut |row, cell| {
            let place = place.at(Position::Row(row));
            let Cell::Bytes(bytes) = cell else { return Err(text.wrong_type(place, &cell.describe())) };
            budget.spend(bytes.len() as u64, "its texts unpack to too much")?;
            let text = utf8(bytes.to_vec(), || place.clone())?;
            table.rows.push(RawRow { text, label: RawLabel::Missing, place });
            Ok(())
        })?;
        let mut labels = 0;
        if let Some(label) = &label {
            label.each(group.as_ref(), before, &mut |row, cell| {
                let value = label.label(cell, &place.at(Position::Row(row)))?;
                if let Some(row) = table.rows.get_mut(before + labels) {
                    row.label = value;
                }
                labels += 1;
                Ok(())
            })?;
        }
        let texts = table.rows.len() - before;
        if texts as u64 != rows || (label.is_some() && labels != texts) {
            return Err(TrainError::UnequalColumns { place, texts, labels });
        }
    }
    if let Some(name) = &label_name {
        table.class_names = class_names(metadata.key_value_metadata(), name);
    }
    table.text_column = Some(text_name);
    table.label_column = label_name;
    Ok(table)
}

fn rows(path: &Path, group: &RowGroupMetaData) -> Result<u64> {
    u64::try_from(group.num_rows()).map_err(|error| damaged(path, ParquetError::External(error.into())))
}

/// What a column is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Texts,
    Labels,
}

/// How the values of a column are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Strings,
    Booleans,
    /// Signed, or the bits of unsigned numbers.
    Integers {
        signed: bool,
    },
    Floats,
    /// Whole numbers in units of 10^-scale.
    Decimals {
        scale: u32,
    },
    Nulls,
}

/// A value; bytes of a decimal are big-endian.
#[derive(Clone, Copy)]
enum Cell<'a> {
    Null,
    Bool(bool),
    Int32(i32),
    Int64(i64),
    Float(f64),
    Bytes(&'a [u8]),
}

impl Cell<'_> {
    fn describe(&self) -> String {
        match self {
            Cell::Null => "null".to_owned(),
            Cell::Bool(value) => format!("`{value}`"),
            Cell::Int32(value) => format!("`{value}`"),
            Cell::Int64(value) => format!("`{value}`"),
            Cell::Float(value) => format!("`{value}`"),
            Cell::Bytes(_) => "bytes".to_owned(),
        }
    }
}

/// One flat column of a file.
struct Column<'a> {
    path: &'a Path,
    name: &'a str,
    expected: Expected,
    meaning: Meaning,
    description: ColumnDescPtr,
    /// Its index among the leaves of the schema.
    leaf: usize,
}

impl<'a> Column<'a> {
    fn new(
        path: &'a Path,
        schema: &SchemaDescriptor,
        name: &'a str,
        expected: Expected,
    ) -> Result<Column<'a>> {
        let leaf = (0..schema.num_columns()).find(|&leaf| schema.column(leaf).path().parts() == [name]);
        let refused = |got: &str| Err(wrong_type(Location::file(path), name, expected, got));
        let Some(leaf) = leaf else { return refused("lists or structures") };
        let description = schema.column(leaf);
        if description.self_type().get_basic_info().repetition() == Repetition::REPEATED {
            return refused("lists or structures");
        }
        let meaning = match meaning(&description) {
            Ok(meaning) => meaning,
            Err(other) => return refused(other),
        };
        match (expected, meaning) {
            (Expected::Labels, _) | (Expected::Texts, Meaning::Strings) => {
                Ok(Column { path, name, expected, meaning, description, leaf })
            }
            (Expected::Texts, Meaning::Booleans) => refused("booleans"),
            (Expected::Texts, Meaning::Integers { .. }) => refused("integers"),
            (Expected::Texts, Meaning::Floats) => refused("floating-point numbers"),
            (Expected::Texts, Meaning::Decimals { .. }) => refused("decimals"),
            (Expected::Texts, Meaning::Nulls) => refused("only nulls"),
        }
    }

    /// Gives every value of a row group to `take`, with its row's number; `before` rows come before the group.
    fn each(
        &self,
        group: &dyn RowGroupReader,
        before: usize,
        take: &mut dyn FnMut(u64, Cell<'_>) -> Result<()>,
    ) -> Result<()> {
        let pages = group.get_column_page_reader(self.leaf).map_err(|error| damaged(self.path, error))?;
        let pages = CheckedPages { pages, nullable: self.description.max_def_level() > 0 };
        match get_column_reader(self.description.clone(), Box::new(pages)) {
            ColumnReader::BoolColumnReader(reader) => self.cells(reader, before, take, |&v| Cell::Bool(v)),
            ColumnReader::Int32ColumnReader(reader) => self.cells(reader, before, take, |&v| Cell::Int32(v)),
            ColumnReader::Int64ColumnReader(reader) => self.cells(reader, before, take, |&v| Cell::Int64(v)),
            ColumnReader::FloatColumnReader(reader) => {
                self.cells(reader, before, take, |&value| Cell::Float(value.into()))
            }
            ColumnReader::DoubleColumnReader(reader) => self.cells(reader, before, take, |&v| Cell::Float(v)),
            ColumnReader::ByteArrayColumnReader(reader) => {
                self.cells(reader, before, take, |value| Cell::Bytes(value.data()))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                self.cells(reader, before, take, |value| Cell::Bytes(value.as_bytes()))
            }
            // `meaning` has refused them.
            ColumnReader::Int96ColumnReader(_) => {
                Err(self.wrong_type(Location::file(self.path), "timestamps"))
            }
        }
    }

    fn cells<T: DataType>(
        &self,
        mut reader: ColumnReaderImpl<T>,
        before: usize,
        take: &mut dyn FnMut(u64, Cell<'_>) -> Result<()>,
        cell: impl Fn(&T::T) -> Cell<'_>,
    ) -> Result<()> {
        let full = self.description.max_def_level();
        let mut row = before as u64;
        let mut values = Vec::new();
        // `full` for a value and less for a null; stays empty where the schema allows no nulls.
        let mut levels = Vec::new();
        loop {
            values.clear();
            levels.clear();
            let (_, _, read) = reader
                .read_records(CHUNK, Some(&mut levels), None, &mut values)
                .map_err(|error| damaged(self.path, error))?;
            if read == 0 {
                return Ok(());
            }
            let mut values = values.iter();
            for at in 0..read {
                row += 1;
                let null = levels.get(at).is_some_and(|&level| level < full);
                let value = if null { None } else { values.next() };
                take(row, value.map_or(Cell::Null, &cell))?;
            }
        }
    }

    /// A value as a label.
    fn label(&self, cell: Cell<'_>, place: &Location) -> Result<RawLabel> {
        let number = match (&cell, self.meaning) {
            (Cell::Null, _) => return Ok(RawLabel::Missing),
            (Cell::Bool(value), _) => return Ok(RawLabel::Text(value.to_string())),
            (Cell::Bytes(bytes), Meaning::Decimals { scale }) => {
                big_endian(bytes).and_then(|v| scaled(v, scale))
            }
            (Cell::Bytes(bytes), _) => {
                return Ok(RawLabel::parse(&utf8(bytes.to_vec(), || place.clone())?));
            }
            (Cell::Int32(value), Meaning::Integers { signed: false }) => Some(i64::from(*value as u32)),
            (Cell::Int64(value), Meaning::Integers { signed: false }) => i64::try_from(*value as u64).ok(),
            (Cell::Int32(value), Meaning::Decimals { scale }) => scaled((*value).into(), scale),
            (Cell::Int64(value), Meaning::Decimals { scale }) => scaled((*value).into(), scale),
            (Cell::Int32(value), _) => Some((*value).into()),
            (Cell::Int64(value), _) => Some(*value),
            // pandas writes a missing whole number as NaN among doubles.
            (Cell::Float(value), _) if value.is_nan() => return Ok(RawLabel::Missing),
            // 2^53: below it every whole number is a double of its own.
            (Cell::Float(value), _) => {
                (value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0).then_some(*value as i64)
            }
        };
        number.map(RawLabel::Number).ok_or_else(|| self.wrong_type(place.clone(), &cell.describe()))
    }

    fn wrong_type(&self, place: Location, got: &str) -> TrainError {
        wrong_type(place, self.name, self.expected, got)
    }
}

fn wrong_type(place: Location, column: &str, expected: Expected, got: &str) -> TrainError {
    let expected = match expected {
        Expected::Texts => "strings",
        Expected::Labels => "whole numbers or names",
    };
    TrainError::ColumnType { place, column: column.to_owned(), expected, got: got.to_owned() }
}

/// How a column's values are meant, or the name of what is no text and no label.
fn meaning(column: &ColumnDescPtr) -> std::result::Result<Meaning, &'static str> {
    let decimals = || {
        u32::try_from(column.type_scale()).map(|scale| Meaning::Decimals { scale }).map_err(|_| "decimals")
    };
    match column.logical_type_ref() {
        Some(LogicalType::String | LogicalType::Enum) => return Ok(Meaning::Strings),
        Some(LogicalType::Integer(integer)) => return Ok(Meaning::Integers { signed: integer.is_signed }),
        Some(LogicalType::Decimal(_)) => return decimals(),
        Some(LogicalType::Unknown) => return Ok(Meaning::Nulls),
        Some(LogicalType::Date) => return Err("dates"),
        Some(LogicalType::Time(_)) => return Err("times"),
        Some(LogicalType::Timestamp(_)) => return Err("timestamps"),
        Some(LogicalType::Json) => return Err("JSON documents"),
        Some(LogicalType::Bson) => return Err("BSON documents"),
        Some(LogicalType::Uuid) => return Err("UUIDs"),
        Some(LogicalType::Float16) => return Err("half-precision numbers"),
        Some(LogicalType::Map | LogicalType::List) => return Err("lists or structures"),
        Some(_) => return Err("values of a type that is not read"),
        None => {}
    }
    match column.converted_type() {
        ConvertedType::NONE => match column.physical_type() {
            Type::BOOLEAN => Ok(Meaning::Booleans),
            Type::INT32 | Type::INT64 => Ok(Meaning::Integers { signed: true }),
            Type::INT96 => Err("timestamps"),
            Type::FLOAT | Type::DOUBLE => Ok(Meaning::Floats),
            Type::BYTE_ARRAY => Ok(Meaning::Strings),
            Type::FIXED_LEN_BYTE_ARRAY => Err("fixed-length bytes"),
        },
        ConvertedType::UTF8 | ConvertedType::ENUM => Ok(Meaning::Strings),
        ConvertedType::DECIMAL => decimals(),
        ConvertedType::INT_8 | ConvertedType::INT_16 | ConvertedType::INT_32 | ConvertedType::INT_64 => {
            Ok(Meaning::Integers { signed: true })
        }
        ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64 => {
            Ok(Meaning::Integers { signed: false })
        }
        ConvertedType::DATE => Err("dates"),
        ConvertedType::TIME_MILLIS | ConvertedType::TIME_MICROS => Err("times"),
        ConvertedType::TIMESTAMP_MILLIS | ConvertedType::TIMESTAMP_MICROS => Err("timestamps"),
        ConvertedType::JSON => Err("JSON documents"),
        ConvertedType::BSON => Err("BSON documents"),
        ConvertedType::INTERVAL => Err("intervals"),
        ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE | ConvertedType::LIST => Err("lists or structures"),
    }
}

/// A decimal's number of 10^-scale as a whole number, if it is one.
fn scaled(value: i128, scale: u32) -> Option<i64> {
    let unit = 10_i128.checked_pow(scale)?;
    (value % unit == 0).then(|| i64::try_from(value / unit).ok())?
}

/// Bytes in two's complement, the highest first.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|&byte| byte >= 128);
    let fill = if negative { 0xff } else { 0 };
    let (extra, kept) = bytes.split_at(bytes.len().saturating_sub(16));
    if extra.iter().any(|&byte| byte != fill) {
        return None;
    }
    let mut all = [fill; 16];
    all[16 - kept.len()..].copy_from_slice(kept);
    Some(i128::from_be_bytes(all))
}

/// The class names in the file's metadata; `None` if it has none in the shapes that `datasets` writes: a list, or an object
/// of names by number.
fn class_names(metadata: Option<&Vec<KeyValue>>, label_column: &str) -> Option<Vec<String>> {
    let entry = metadata?.iter().find(|entry| entry.key == "huggingface")?;
    let json: Value = serde_json::from_str(entry.value.as_ref()?).ok()?;
    let feature = json.get("info")?.get("features")?.get(label_column)?;
    let name = |name: &Value| name.as_str().map(str::to_owned);
    match feature.get("names")? {
        Value::Array(names) => names.iter().map(name).collect(),
        Value::Object(names) => {
            (0..names.len()).map(|index| names.get(&index.to_string()).and_then(name)).collect()
        }
        _ => None,
    }
}

fn damaged(path: &Path, source: ParquetError) -> TrainError {
    TrainError::Parquet { place: Location::file(path), source }
}
