//! CSV and TSV with a header line.
//!
//! Quoting is that of RFC 4180. Where a file does not keep to it, rows would be merged or cut without a word, so it is an
//! error that names the line; with one exception. TSV files are often written without any quoting (GLUE's are), and then a
//! quote is a character like others. A TSV is read so if every line has as many fields as the header that way, while
//! quotes cut the file into records that do not fit or that span lines. A note says it.
//!
//! The delimiter is the one of the extension, unless only another of `,`, `;`, tab and `|` finds the text column in the
//! header (European spreadsheets write `;`), or Excel's first line `sep=;` names it. A note says that too.

use std::{collections::HashSet, path::Path};

use crate::{Location, Position, Result, TrainError};

use super::{
    columns,
    content::{other_format, read_text},
    records::{Dialect, Fault, Record, Records},
    table::{RawLabel, RawRow, RawTable, Wanted},
};

/// A quoted field with more line breaks than this is taken for a quote that nobody closed.
const MAX_BREAKS: u64 = 1000;

/// Reads a delimited file; `delimiter` is what its extension says.
pub(super) fn read(path: &Path, delimiter: u8, wanted: Wanted<'_>) -> Result<RawTable> {
    let mut table = RawTable::new(path);
    let text = read_text(path)?;
    if text.trim().is_empty() {
        return Ok(table);
    }
    refuse_documents(path, &text)?;
    let header = Header::find(path, &text, delimiter, wanted)?;
    let named = |byte| if byte == b'\t' { "a tab".to_owned() } else { format!("`{}`", char::from(byte)) };
    if header.delimiter != delimiter {
        table.notes.push(format!(
            "{}: the columns are separated by {}",
            path.display(),
            named(header.delimiter)
        ));
    }
    let quoted = Dialect { delimiter: header.delimiter, quoted: true };
    let mut dialect = quoted;
    if header.delimiter == b'\t' && text[header.end.0..].contains('"') {
        let plain = Dialect { quoted: false, ..quoted };
        let fits = |dialect| scan(path, &text, &header, dialect, &mut |_| ());
        let with_quotes = fits(quoted);
        // With labels, `scan` has seen that what is inside of quotes are no rows; without, nothing tells.
        let doubtful = match with_quotes {
            Ok(breaks) => breaks.is_some() && header.label.is_none(),
            Err(_) => true,
        };
        if doubtful && !header.quoted && fits(plain).is_ok() {
            if let Ok(Some(line)) = with_quotes
                && header.columns.len() == 1
            {
                let problem = "line breaks inside of quotes, or lines that begin and end with a quote by chance; \
                               write the file as CSV or JSON Lines";
                return Err(TrainError::Quoting {
                    place: Location::line(path, line),
                    problem: problem.to_owned(),
                });
            }
            let line = match &with_quotes {
                Ok(line) => *line,
                Err(error) => error.line(),
            };
            table.notes.push(format!(
                "{}: read without quoting, as quotes from line {} on would merge rows; they are part of the texts",
                path.display(),
                line.unwrap_or(header.end.1)
            ));
            dialect = plain;
        }
    }
    let place = Location::file(path);
    let (text_column, label_column) = (header.text, header.label.filter(|_| wanted.labels));
    scan(path, &text, &header, dialect, &mut |record| {
        table.rows.push(RawRow {
            text: record.fields[text_column].clone().into_owned(),
            label: label_column.map_or(RawLabel::Missing, |column| RawLabel::parse(&record.fields[column])),
            place: place.at(Position::Line(record.line)),
        });
    })?;
    table.text_column = Some(header.columns[text_column].clone());
    table.label_column = label_column.map(|column| header.columns[column].clone());
    table.columns = header.columns.clone();
    without_fractions(&mut table.rows);
    if table.columns.len() == 1
        && let Some(line) = blank_line(&text, &header, dialect)
    {
        table.notes.push(format!(
            "{}: blank lines are left out, the first after line {line}; an empty text is written as \"\"",
            path.display()
        ));
    }
    Ok(table)
}

/// Refuses text that is no table.
fn refuse_documents(path: &Path, text: &str) -> Result<()> {
    let start = text.trim_start();
    let begins = |word: &str| start.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let after = |open: char| start.strip_prefix(open).map(str::trim_start);
    if after('{').is_some_and(|rest| rest.starts_with('"'))
        || after('[').is_some_and(|rest| rest.starts_with('{'))
    {
        return Err(other_format(path, "JSON", "rename it to .jsonl or .json"));
    }
    if ["<!doctype", "<html", "<?xml"].into_iter().any(begins) {
        let advice = "it is perhaps the page of an error or of a login: fetch the file itself";
        return Err(other_format(path, "a web page or XML", advice));
    }
    Ok(())
}

/// The header line, and what it decides.
struct Header {
    columns: Vec<String>,
    text: usize,
    label: Option<usize>,
    delimiter: u8,
    /// Whether a name is in quotes: then the writer quotes.
    quoted: bool,
    /// The byte and the line where the rows begin.
    end: (usize, u64),
}

impl Header {
    fn find(path: &Path, text: &str, delimiter: u8, wanted: Wanted<'_>) -> Result<Header> {
        let (mut start, mut candidates) = ((0, 1), [delimiter, b',', b';', b'\t', b'|'].to_vec());
        if let Some((named, end)) = separator_line(text) {
            (start, candidates) = ((end, 2), vec![named]);
        }
        let mut refused: Option<(usize, TrainError)> = None;
        for delimiter in candidates {
            let mut records = Records::new(text, start.0, start.1, Dialect { delimiter, quoted: true });
            records.spaces_are_blank = true;
            let record = match records.next() {
                Ok(Some(record)) => record,
                Ok(None) => return Err(TrainError::Empty { data: path.display().to_string() }),
                // Quotes of the whole line may be those of another delimiter.
                Err(fault) => {
                    refused.get_or_insert((0, explain(path, fault)));
                    continue;
                }
            };
            let columns: Vec<String> = record.fields.iter().map(|field| field.clone().into_owned()).collect();
            let place = Location::line(path, record.line);
            let found = columns::find(&columns, wanted, &place)
                .and_then(|(text, _)| Ok((text, columns::find_label(&columns, wanted, &place)?)));
            match found {
                Ok((text, label)) => {
                    let (quoted, end) = (record.raw.contains('"'), records.position());
                    return Ok(Header { columns, text, label, delimiter, quoted, end });
                }
                Err(error) => {
                    // The columns of a message are those of the delimiter that the line has.
                    let worth = if columns.len() > 1 { 1 } else { 0 };
                    if refused.as_ref().is_none_or(|(best, _)| worth > *best) {
                        refused = Some((worth, error));
                    }
                }
            }
        }
        let error = refused.map(|(_, error)| error);
        Err(match error {
            Some(TrainError::MissingColumn { place, role, wanted, columns, .. }) => {
                let hint =
                    "; the first line is taken as the header: add one, such as text,label, if it is a row";
                TrainError::MissingColumn { place, role, wanted, columns, hint }
            }
            Some(error) => error,
            None => TrainError::Empty { data: path.display().to_string() },
        })
    }
}

/// The delimiter that Excel's line `sep=;` names, and where the next line begins.
fn separator_line(text: &str) -> Option<(u8, usize)> {
    let end = text.find('\n')? + 1;
    let line = text[..end].trim_end_matches(['\n', '\r']).trim_matches('"');
    let [.., delimiter] = line.as_bytes() else { return None };
    let named = line.len() == 5 && line.get(..4)?.eq_ignore_ascii_case("sep=");
    (named && delimiter.is_ascii() && !delimiter.is_ascii_alphanumeric()).then_some((*delimiter, end))
}

/// Gives every record below the header to `row`, each with as many fields as the header. Returns the line of the first
/// quoted field with line breaks.
fn scan(
    path: &Path,
    text: &str,
    header: &Header,
    dialect: Dialect,
    row: &mut dyn FnMut(&Record<'_>),
) -> Result<Option<u64>> {
    let place = Location::file(path);
    let columns = header.columns.len();
    let mut records = Records::new(text, header.end.0, header.end.1, dialect);
    records.spaces_are_blank = columns > 1;
    let mut breaks = None;
    let mut labels = HashSet::new();
    let mut suspects = Vec::new();
    while let Some(record) = records.next().map_err(|fault| explain(path, fault))? {
        if let Some((line, count)) = record.breaks {
            breaks = breaks.or(Some(line));
            if count > MAX_BREAKS {
                let problem = format!(
                    "a quoted field opens here and holds {count} line breaks; more than {MAX_BREAKS} are taken for a \
                     missing quote. Close it, or write the file as JSON Lines"
                );
                return Err(TrainError::Quoting { place: place.at(Position::Line(line)), problem });
            }
        }
        if record.fields.len() != columns {
            let extra = record.fields.get(columns..).unwrap_or_default();
            let advice = match extra.is_empty() || extra.iter().any(|field| !field.is_empty()) {
                true => "quote fields that hold a delimiter or a quote",
                false => "remove the delimiters at the line's end, or end the header with as many",
            };
            let place = place.at(Position::Line(record.line));
            let (expected, got) = (columns as u64, record.fields.len() as u64);
            return Err(TrainError::FieldCount { place, expected, got, advice });
        }
        if let Some(label) = header.label {
            match record.breaks {
                Some((line, _)) => {
                    suspects.push((line, rows_inside(&record, header, label), own(&record, label)));
                }
                None if !labels.contains(record.fields[label].trim()) => {
                    labels.insert(own(&record, label));
                }
                None => {}
            }
        }
        row(&record);
    }
    // A text that holds most of its lines' worth of rows, with labels that other rows have, is no text.
    for (line, (lines, found), own) in suspects {
        let known =
            |label: &&String| !label.is_empty() && (**label == own || labels.contains(label.as_str()));
        let known = found.iter().filter(known).count();
        if known > 1 && known * 2 >= lines {
            let problem = format!(
                "a quoted field opens here and holds what look like {known} rows of the table; close or double the quote"
            );
            return Err(TrainError::Quoting { place: place.at(Position::Line(line)), problem });
        }
    }
    Ok(breaks)
}

/// A record's label.
fn own(record: &Record<'_>, label: usize) -> String {
    record.fields[label].trim().to_owned()
}

/// How many lines a record has, and the labels of those that are rows of the table if quotes are characters like others.
fn rows_inside(record: &Record<'_>, header: &Header, label: usize) -> (usize, Vec<String>) {
    let mut found = Vec::new();
    let lines = record.raw.split(['\n', '\r']).filter(|line| !line.is_empty());
    for line in lines.clone() {
        let fields: Vec<&str> = line.split(char::from(header.delimiter)).collect();
        if fields.len() == header.columns.len() {
            found.push(fields[label].trim_matches(['"', ' ']).to_owned());
        }
    }
    (lines.count(), found)
}

/// The line of the last record before the first blank line between records.
fn blank_line(text: &str, header: &Header, dialect: Dialect) -> Option<u64> {
    let mut records = Records::new(text, header.end.0, header.end.1, dialect);
    let (mut blank, mut last) = (0, header.end.1.saturating_sub(1));
    while let Ok(Some(record)) = records.next() {
        if records.blank > blank {
            return Some(last);
        }
        (blank, last) = (records.blank, record.line);
    }
    None
}

/// Labels `0.0`, `1.0` become `0`, `1` where every label is a whole number: pandas writes them so where one is missing.
fn without_fractions(rows: &mut [RawRow]) {
    let whole = |label: &str| {
        let (digits, fraction) = label.split_once('.').unwrap_or((label, "0"));
        let number = digits.strip_prefix('-').unwrap_or(digits);
        let zeros = !fraction.is_empty() && fraction.bytes().all(|byte| byte == b'0');
        (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && zeros)
            .then_some(digits.len())
    };
    let all = |row: &RawRow| match &row.label {
        RawLabel::Text(label) => whole(label).is_some(),
        _ => true,
    };
    if !rows.iter().all(all) {
        return;
    }
    for row in rows {
        if let RawLabel::Text(label) = &mut row.label
            && let Some(length) = whole(label)
        {
            label.truncate(length);
        }
    }
}

fn explain(path: &Path, (line, fault): (u64, Fault)) -> TrainError {
    let problem = match fault {
        Fault::Unclosed => {
            "a quoted field opens here and never ends; close the quote, or write a field that begins with one as \
             \"\"\"...\""
                .to_owned()
        }
        Fault::AfterQuote { backslash: true, .. } => {
            "a quoted field opens here and ends before more text; a quote inside of quotes is written twice (\"\"), \
             not with a backslash (pandas reads this with escapechar and writes it without)"
                .to_owned()
        }
        Fault::AfterQuote { closed, .. } => {
            format!(
                "a quoted field opens here and ends on line {closed} before more text; write quotes inside of quotes twice (\"\")"
            )
        }
        Fault::SpaceBeforeQuote => {
            "a quoted field after a space; remove the space (pandas reads this with skipinitialspace)".to_owned()
        }
        Fault::CarriageReturn => {
            "a carriage return inside of a field without quotes; quote the field, or remove it".to_owned()
        }
    };
    TrainError::Quoting { place: Location::line(path, line), problem }
}
