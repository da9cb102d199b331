//! CSV and TSV with a header line. Quoting is that of RFC 4180 for both, as in `pandas.read_csv`.

use std::path::Path;

use csv::{ErrorKind, ReaderBuilder};

use crate::{Place, Result, TrainError};

use super::{
    columns, read_text,
    table::{RawLabel, RawRow, RawTable, Wanted},
};

/// Reads a delimited file.
pub(super) fn read(path: &Path, delimiter: u8, wanted: Wanted<'_>) -> Result<RawTable> {
    let mut table = RawTable::new(path);
    let text = read_text(path)?;
    if text.trim().is_empty() {
        return Ok(table);
    }
    let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| explain(path, error))?;
    table.columns = header.iter().map(str::to_owned).collect();
    let (text_column, label_column) = columns::find(&table.columns, wanted, &Place::line(path, 1))?;
    table.text_column = Some(table.columns[text_column].clone());
    table.label_column = label_column.map(|column| table.columns[column].clone());
    for record in reader.records() {
        let record = record.map_err(|error| explain(path, error))?;
        // The reader has checked that every record has as many fields as the header.
        let line = record.position().map_or(0, csv::Position::line);
        table.rows.push(RawRow {
            text: record[text_column].to_owned(),
            label: label_column.map_or(RawLabel::Missing, |column| RawLabel::parse(&record[column])),
            place: Place::line(path, line),
        });
    }
    Ok(table)
}

fn explain(path: &Path, error: csv::Error) -> TrainError {
    match error.kind() {
        ErrorKind::UnequalLengths { pos, expected_len, len } => TrainError::FieldCount {
            place: pos.as_ref().map_or(Place::file(path), |pos| Place::line(path, pos.line())),
            expected: *expected_len,
            got: *len,
        },
        _ => TrainError::Csv { place: Place::file(path), source: error },
    }
}
