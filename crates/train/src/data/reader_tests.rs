//! The readers beside pandas and pyarrow (`tests/goldens/readers.py`), against tables written by the `csv` crate, and
//! against files that are made to cost much.

use std::{fs, path::PathBuf, sync::Arc, time::Instant};

use ::parquet::{
    basic::{Compression, GzipLevel, ZstdLevel},
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    read_file,
    records::{Dialect, Records},
    table::{RawLabel, RawTable, Wanted},
};
use crate::Result;

/// Reads a file of this name and content.
fn read(name: &str, content: &[u8]) -> Result<RawTable> {
    let folder = TempDir::new().unwrap();
    let path: PathBuf = folder.path().join(name);
    fs::write(&path, content).unwrap();
    read_file(&path, Wanted { labels: true, ..Wanted::default() })
}

/// Texts, and labels as text; `None` for a missing one.
fn rows(table: &RawTable) -> Vec<(String, Option<String>)> {
    let label = |label: &RawLabel| match label {
        RawLabel::Missing => None,
        RawLabel::Number(number) => Some(number.to_string()),
        RawLabel::Text(text) => Some(text.clone()),
    };
    table.rows.iter().map(|row| (row.text.clone(), label(&row.label))).collect()
}

fn refused(name: &str, content: &[u8]) -> String {
    let message = read(name, content).expect_err("the file is bad").to_string();
    assert!(!message.contains('\n'), "more than one line: {message}");
    message
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    (0..hexadecimal.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn as_pandas_and_pyarrow_read_or_for_a_reason_not() {
    let goldens: Value = serde_json::from_str(include_str!("../../tests/goldens/readers.json")).unwrap();
    let cases = goldens["cases"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let read = read(name, &bytes(case["hex"].as_str().unwrap()));
        let ours = &case["ours"];
        let expected = if ours == "same" { &case["reference"]["rows"] } else { &ours["rows"] };
        let want = expected.as_array().map(|rows| {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            rows.iter().map(|row| (text(&row[0]).unwrap(), text(&row[1]))).collect::<Vec<_>>()
        });
        match (read, want) {
            (Ok(table), Some(want)) if rows(&table) == want => {}
            (Ok(table), want) => wrong.push(format!("{name}: {:?}, not {want:?}", rows(&table))),
            (Err(error), want) => {
                let message = error.to_string();
                let parts = ours["refused"].as_array().into_iter().flatten();
                let said = parts.clone().all(|part| message.contains(part.as_str().unwrap()));
                if want.is_some() || message.contains('\n') || parts.count() == 0 || !said {
                    wrong.push(format!("{name}: {message}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn what_the_content_decides_is_noted() {
    let notes = |name, content: &str| read(name, content.as_bytes()).unwrap().notes.join("; ");
    assert_eq!(notes("a.csv", "text,label\n\"a\nb\",0\n"), "");
    assert_eq!(notes("a.tsv", "text\tlabel\n\"a\"\t0\n"), "");
    assert!(notes("a.csv", "text;label\na;0\n").contains("separated by `;`"));
    let unquoted = notes("a.tsv", "text\tlabel\na\t0\n\"b\t1\nc\t0\n");
    assert!(unquoted.contains("without quoting") && unquoted.contains("line 3"), "{unquoted}");
    assert!(notes("a.csv", "text\na\n\nb\n").contains("blank lines are left out, the first after line 2"));
    // One column says nothing about whether quotes quote.
    let doubtful = refused("a.tsv", b"text\na\n\"b\nc\"\n");
    assert!(doubtful.contains("a.tsv:3") && doubtful.contains("JSON Lines"), "{doubtful}");
}

#[test]
fn places_are_lines_and_rows() {
    let places = |name, content: &str| {
        let table = read(name, content.as_bytes()).unwrap();
        let last = |place: String| place.rsplit('/').next().unwrap().to_owned();
        table.rows.iter().map(|row| last(row.place.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(places("a.csv", "text,label\n\n\"a\nb\",0\nc,1\n"), ["a.csv:3", "a.csv:5"]);
    assert_eq!(places("a.csv", "text,label\r\"a\rb\",0\rc,1"), ["a.csv:2", "a.csv:4"]);
    assert_eq!(places("a.csv", "sep=;\ntext;label\na;0\n"), ["a.csv:3"]);
    assert_eq!(places("a.jsonl", "\n{\"text\": \"a\"}\n{\"text\": \"b\"}"), ["a.jsonl:2", "a.jsonl:3"]);
    assert_eq!(places("a.json", "{\n\"text\": \"a\"\n}\n\n{\n\"text\": \"b\"\n}"), ["a.json:1", "a.json:5"]);
    assert_eq!(
        places("a.json", "[{\"text\": \"a\"}, {\"text\": \"b\"}]"),
        ["a.json, row 1", "a.json, row 2"]
    );
}

#[test]
fn a_quoted_field_has_at_most_a_thousand_line_breaks() {
    let csv = |lines: usize| format!("text,label\nx,0\n\"{}\",1\n", "words, and words\n".repeat(lines));
    assert_eq!(read("a.csv", csv(1000).as_bytes()).unwrap().rows.len(), 2);
    let message = refused("a.csv", csv(1001).as_bytes());
    assert!(message.contains("a.csv:3") && message.contains("1001") && message.contains("1000"), "{message}");
}

#[test]
fn other_kinds_of_files_are_named() {
    for (name, content, words) in [
        ("a.csv.gz", &b"\x1f\x8b\x08"[..], ["gzip", "gunzip"]),
        ("a.xlsx", b"PK\x03\x04", ["Excel", "save the sheet"]),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1", ["Excel", "save the sheet"]),
        ("a.pkl", b"\x80\x04\x95\0\0", ["pickle", "to_parquet"]),
        ("a.feather", b"ARROW1\0\0", ["Arrow", "to_parquet"]),
        ("a.csv", b"PAR1....", ["parquet", "rename"]),
        ("a.parquet", b"PARE....PARE", ["encrypted", "without encryption"]),
        ("a.parquet", b"PAR1........PARE", ["encrypted", "without encryption"]),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ["LFS", "git lfs pull"]),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ["LFS", "git lfs pull"]),
        ("a.csv", b"t\0e\0x\0t\0,\0l\0", ["UTF-16", "UTF-8"]),
        ("a.docx", b"x", ["not a data file", ".csv"]),
    ] {
        let message = refused(name, content);
        assert!(
            words.iter().all(|word| message.contains(word)) && message.contains(name),
            "{name}: {message}"
        );
    }
}

/// A parquet file of texts, one row group for each list.
fn parquet(groups: &[&[&[u8]]], compression: Compression, dictionary: bool) -> Vec<u8> {
    let properties =
        WriterProperties::builder().set_compression(compression).set_dictionary_enabled(dictionary).build();
    let schema = Arc::new(parse_message_type("message rows { required binary text (UTF8); }").unwrap());
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    for texts in groups {
        let mut group = file.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let texts: Vec<ByteArray> = texts.iter().map(|text| text.to_vec().into()).collect();
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    file.close().unwrap();
    bytes
}

#[test]
fn a_small_parquet_file_unpacks_to_256_mib_at_most() {
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let text = vec![b'a'; 20 << 20];
    assert_eq!(read("a.parquet", &parquet(&[&[&text]], zstd, false)).unwrap().rows[0].text.len(), 20 << 20);
    let long = vec![b'a'; 100 << 20];
    let file = parquet(&[&[&long, &long]], zstd, false);
    assert!(file.len() < 100_000, "{}", file.len());
    let message = refused("a.parquet", &file);
    assert!(message.contains("256 MiB") && message.contains("unpack"), "{message}");
    // One entry of a dictionary, a thousand times: the page is small, the texts are not.
    let entry = vec![b'a'; 500_000];
    let file = parquet(&[&vec![&entry[..]; 1000][..]], zstd, true);
    let message = refused("a.parquet", &file);
    assert!(message.contains("texts") && message.contains("256 MiB"), "{message}");
}

/// The file with the only occurrence of these bytes replaced.
fn replaced(mut file: Vec<u8>, old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let places: Vec<usize> = (0..file.len()).filter(|&at| file[at..].starts_with(old)).collect();
    assert_eq!(places.len(), 1, "{places:?}");
    file[places[0]..][..new.len()].copy_from_slice(new);
    file
}

#[test]
fn a_page_that_lies_about_its_size_is_refused() {
    let damaged = |file: &[u8]| refused("a.parquet", file);
    // Numbers of headers are zigzag varints. The gzip page is 2 MiB and a length of 4 bytes, and says 1 MiB.
    let page = parquet(&[&[&vec![b'a'; 2 << 20]]], Compression::GZIP(GzipLevel::default()), false);
    let page = replaced(page, &[0x15, 0x88, 0x80, 0x80, 0x02], &[0x15, 0x80, 0x80, 0x80, 0x01]);
    let message = damaged(&page);
    assert!(message.contains("a page unpacks to more than it says"), "{message}");
    // A gzip page that tells the truth, and is over the limit.
    let long = vec![b'a'; 100 << 20];
    let page = parquet(&[&[&long, &long, &long]], Compression::GZIP(GzipLevel::default()), false);
    let message = damaged(&page);
    assert!(page.len() < 1 << 20 && message.contains("256 MiB"), "{message}");
    // A dictionary of 100 values that says 8,191: more than its 700 bytes hold.
    let texts: Vec<Vec<u8>> = (100..200).map(|number| number.to_string().into_bytes()).collect();
    let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
    let dictionary = parquet(&[&texts], Compression::UNCOMPRESSED, true);
    let dictionary = replaced(dictionary, &[0x4c, 0x15, 0xc8, 0x01], &[0x4c, 0x15, 0xfe, 0x7f]);
    let message = damaged(&dictionary);
    assert!(message.contains("a dictionary claims more values than it has room for"), "{message}");
}

#[test]
fn a_page_header_with_lists_without_end_is_refused_at_once() {
    let whole = parquet(&[&[b"a", b"b"]], Compression::UNCOMPRESSED, false);
    let start = Instant::now();
    // A list of two billion booleans, which takes no bytes, in a field that the format does not have.
    let endless = [0x99_u8, 0x19, 0xf9, 0xff, 0xff, 0xff, 0xff, 0x07, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07];
    for place in 4..whole.len() - 20 {
        let mut bytes = whole.clone();
        for (byte, new) in bytes[place..].iter_mut().zip(endless) {
            *byte = new;
        }
        let _ = read("a.parquet", &bytes);
    }
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

proptest! {
    /// Whatever a quoting writer writes reads back as it was, and is no suspicion.
    #[test]
    fn what_was_quoted_reads_back(
        rows in prop::collection::vec(("[a-c ,;|\t\"\\\\\n\ré\u{2028}😀.#]{0,24}", 0u32..5), 1..20),
        delimiter in prop::sample::select(vec![b',', b'\t', b';', b'|']),
        always in any::<bool>(),
        returns in any::<bool>(),
        label_first in any::<bool>(),
    ) {
        let mut writer = ::csv::WriterBuilder::new()
            .delimiter(delimiter)
            .quote_style(if always { ::csv::QuoteStyle::Always } else { ::csv::QuoteStyle::Necessary })
            .terminator(if returns { ::csv::Terminator::CRLF } else { ::csv::Terminator::Any(b'\n') })
            .from_writer(Vec::new());
        let order = |text: &str, label: &str| {
            let (text, label) = (text.to_owned(), label.to_owned());
            if label_first { [label, text] } else { [text, label] }
        };
        writer.write_record(order("text", "label")).unwrap();
        for (text, label) in &rows {
            writer.write_record(order(text, &label.to_string())).unwrap();
        }
        let name = if delimiter == b'\t' { "a.tsv" } else { "a.csv" };
        let table = read(name, &writer.into_inner().unwrap()).unwrap();
        let want: Vec<_> = rows.iter().map(|(text, label)| (text.clone(), Some(label.to_string()))).collect();
        prop_assert_eq!(self::rows(&table), want);
        prop_assert!(table.notes.iter().all(|note| note.contains("separated by")), "{:?}", table.notes);
    }

    /// Where there is no fault, the records are those of the csv crate.
    #[test]
    fn records_are_those_of_the_csv_crate(text in "([ab,\"\n]|\"\"|,\"|\",|\"\n|\r\n){0,30}") {
        let mut records = Records::new(&text, 0, 1, Dialect { delimiter: b',', quoted: true });
        let mut ours = Vec::new();
        loop {
            match records.next() {
                Ok(Some(record)) => ours.push(record.fields.iter().map(ToString::to_string).collect::<Vec<_>>()),
                Ok(None) => break,
                Err(_) => return Ok(()),
            }
        }
        let mut reader = ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        let theirs: Vec<Vec<String>> =
            reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect();
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn json_reads_back_in_every_layout(rows in prop::collection::vec((any::<String>(), -2i64..5), 1..20), layout in 0..4) {
        let objects: Vec<Value> =
            rows.iter().map(|(text, label)| serde_json::json!({"text": text, "label": label})).collect();
        let join = |line: fn(&Value) -> String| objects.iter().map(line).collect::<Vec<_>>().join("\n");
        let json = match layout {
            0 => join(Value::to_string),
            1 => join(|object| serde_json::to_string_pretty(object).unwrap()),
            2 => serde_json::to_string(&objects).unwrap(),
            _ => serde_json::to_string_pretty(&objects).unwrap(),
        };
        let want: Vec<_> = rows.iter().map(|(text, label)| (text.clone(), Some(label.to_string()))).collect();
        prop_assert_eq!(self::rows(&read("a.json", json.as_bytes()).unwrap()), want);
    }
}
