//! CSV and TSV with a header line. Quoting is that of RFC 4180 for both, as in `pandas.read_csv`.

use std::path::Path;

use csv::{ErrorKind, ReaderBuilder};

use crate::{Place, Result, TrainError};

use super::{
    LoadOptions, columns,
    labels::{RawLabel, RawRow, RawTable},
    read_text,
};

/// Appends the rows of a delimited file.
pub(super) fn read(path: &Path, delimiter: u8, options: &LoadOptions, table: &mut RawTable) -> Result<()> {
    let text = read_text(path)?;
    if text.trim().is_empty() {
        return Ok(());
    }
    let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| explain(path, error))?;
    let names: Vec<String> = header.iter().map(str::to_owned).collect();
    let (text_column, label_column) = columns::find(&names, options, &Place::line(path, 1))?;
    for record in reader.records() {
        let record = record.map_err(|error| explain(path, error))?;
        // The reader has checked that every record has as many fields as the header.
        let line = record.position().map_or(0, csv::Position::line);
        table.rows.push(RawRow {
            text: record[text_column].to_owned(),
            label: RawLabel::parse(&record[label_column]),
            place: Place::line(path, line),
        });
    }
    Ok(())
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
