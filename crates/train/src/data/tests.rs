//! Tests of the readers: what they accept, and what they say about everything else.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::parquet::{
    basic::{Compression, GzipLevel, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type},
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A temporary folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, content) in files {
        write(&folder, name, content.as_bytes());
    }
    folder
}

fn write(folder: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn load_one(name: &str, content: &[u8]) -> Result<Dataset> {
    let folder = TempDir::new().unwrap();
    load(&write(&folder, name, content), &LoadOptions::default())
}

fn rows(dataset: &Dataset) -> Vec<(&str, u32)> {
    dataset.examples.iter().map(|example| (example.text.as_str(), example.label)).collect()
}

/// Loading must fail with one line that contains these parts.
fn assert_refused(name: &str, content: &[u8], parts: &[&str]) {
    let message = load_one(name, content).expect_err("the input is bad").to_string();
    assert!(!message.contains('\n'), "more than one line: {message}");
    for part in parts.iter().chain([&name]) {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// Writes the columns of a row group.
type Fill<'a> = dyn Fn(&mut SerializedRowGroupWriter<'_, &mut Vec<u8>>) + 'a;

/// A parquet file of one row group per closure, with the `huggingface` metadata given.
fn parquet_file(
    schema: &str,
    compression: Compression,
    huggingface: Option<&str>,
    groups: &[&Fill<'_>],
) -> Vec<u8> {
    let metadata = huggingface.map(|json| vec![KeyValue::new("huggingface".to_owned(), json.to_owned())]);
    let properties =
        WriterProperties::builder().set_compression(compression).set_key_value_metadata(metadata).build();
    let mut bytes = Vec::new();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    for fill in groups {
        let mut group = file.next_row_group().unwrap();
        fill(&mut group);
        group.close().unwrap();
    }
    file.close().unwrap();
    bytes
}

macro_rules! column {
    ($group:expr, $type:ty, $values:expr, $levels:expr) => {{
        let mut column = $group.next_column().unwrap().unwrap();
        column.typed::<$type>().write_batch($values, $levels, None).unwrap();
        column.close().unwrap();
    }};
}

const PLAIN: &str = "message rows { required binary text (UTF8); required int64 label; }";
const OPTIONAL: &str = "message rows { optional binary text (UTF8); optional int64 label; }";
const CLASS_NAMES: &str =
    r#"{"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}"#;

/// Texts and integer labels in the Hugging Face layout.
fn reviews(texts: &[&str], labels: &[i64], compression: Compression, huggingface: Option<&str>) -> Vec<u8> {
    parquet_file(
        PLAIN,
        compression,
        huggingface,
        &[&|group| {
            let texts: Vec<ByteArray> = texts.iter().map(|&text| text.into()).collect();
            column!(group, ByteArrayType, &texts, None);
            column!(group, Int64Type, labels, None);
        }],
    )
}

#[test]
fn csv_with_quotes_line_breaks_and_a_byte_order_mark() {
    let csv = "\u{feff}id,review,sentiment\r\n1,\"good, \"\"really\"\"\nyes\",positive\r\n2,bad,NEGATIVE\r\n";
    let dataset = load_one("reviews.csv", csv.as_bytes()).unwrap();
    assert_eq!(rows(&dataset), [("good, \"really\"\nyes", 1), ("bad", 0)]);
    assert_eq!(dataset.label_names, ["NEGATIVE", "positive"]);
    assert_eq!(dataset.class_counts(), [1, 1]);
}

#[test]
fn tsv_and_jsonl() {
    let dataset = load_one("a.tsv", b"label\tsentence\n3\ta, b\n0\tc\n").unwrap();
    assert_eq!(rows(&dataset), [("a, b", 1), ("c", 0)]);
    assert_eq!(dataset.label_names, ["0", "3"]);
    let jsonl =
        b"{\"text\": \"a\\nb\", \"label\": 1}\n\n{\"label\": \"0\", \"other\": [1], \"text\": \"\"}\n";
    assert_eq!(rows(&load_one("a.jsonl", jsonl).unwrap()), [("a\nb", 1), ("", 0)]);
}

#[test]
fn columns_by_name() {
    let folder = folder(&[("a.csv", "text,body,label,stars\nx,a,9,1\nx,b,9,0\n")]);
    let path = folder.path().join("a.csv");
    let options = LoadOptions {
        text_column: Some("body".to_owned()),
        label_column: Some("stars".to_owned()),
        ..LoadOptions::default()
    };
    assert_eq!(rows(&load(&path, &options).unwrap()), [("a", 1), ("b", 0)]);
    let options = LoadOptions { label_column: Some("starz".to_owned()), ..LoadOptions::default() };
    let message = load(&path, &options).unwrap_err().to_string();
    assert!(message.contains("no label column `starz`") && message.contains("`stars`"), "{message}");
}

#[test]
fn bad_tables_are_refused_with_file_and_line() {
    assert_refused("a.csv", b"text,label\na,1\nb\n", &["a.csv:3", "1 fields where the header has 2"]);
    assert_refused("a.csv", b"text,label\n\"a\nb\",1\nb,0,1\n", &["a.csv:4", "3 fields"]);
    assert_refused("a.csv", b"text,label\na,1\nb,banana\n", &["a.csv:3", "`banana`", "--label-map"]);
    assert_refused("a.csv", b"text,label\na,1\nb,\n", &["a.csv:3", "no label"]);
    assert_refused("a.csv", b"text,label\na,1\nb,1.5\n", &["a.csv:3", "`1.5`", "whole number"]);
    assert_refused("a.csv", b"text,label\na,pos\nb,1\n", &["a.csv:3", "`1`", "--label-map"]);
    assert_refused("a.csv", b"text,label\na,99999999999999999999\n", &["a.csv:2"]);
    assert_refused("a.csv", b"text,stars\na,1\n", &["a.csv", "no label column", "`stars`", "--label-column"]);
    assert_refused("a.csv", b"some very long first review that is no header at all,1\n", &["no text column"]);
    assert_refused("a.csv", b"text,label\na,1\n\xff\xfe,0\n", &["not UTF-8 at byte 15"]);
    for (name, content) in [("a.csv", ""), ("a.csv", "text,label\n"), ("a.tsv", "\n\n"), ("a.jsonl", "\n")] {
        assert_refused(name, content.as_bytes(), &["no rows"]);
    }
    assert_refused("a.jsonl", b"{\"text\": \"a\", \"label\": 1}\nnonsense\n", &["a.jsonl:2", "JSON"]);
    assert_refused("a.jsonl", b"[1]\n", &["a.jsonl:1", "JSON object"]);
    assert_refused("a.jsonl", b"{\"text\": \"a\"}\n", &["a.jsonl", "no label column", "`text`"]);
    assert_refused(
        "a.jsonl",
        b"{\"text\": \"a\", \"label\": 1}\n{\"text\": \"a\"}\n",
        &["a.jsonl:2", "`label`"],
    );
    assert_refused(
        "a.jsonl",
        b"{\"text\": 5, \"label\": 1}\n",
        &["a.jsonl:1", "`text` must hold a string", "`5`"],
    );
    assert_refused("a.jsonl", b"{\"text\": \"a\", \"label\": 0.5}\n", &["a.jsonl:1", "`0.5`"]);
    assert_refused("a.jsonl", b"{\"text\": \"a\", \"label\": null}\n", &["a.jsonl", "no", "label"]);
    assert_refused("a.jsonl", "[".repeat(100_000).as_bytes(), &["a.jsonl:1"]);
    assert_refused("a.docx", b"x", &["not a data file"]);
}

#[test]
fn missing_paths_are_refused() {
    let message = load(Path::new("no/such/folder"), &LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("no/such/folder") && !message.contains('\n'), "{message}");
    let empty = TempDir::new().unwrap();
    let message = load_splits(empty.path(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("no `train` split"), "{message}");
}

#[test]
fn the_original_archive() {
    let folder = folder(&[
        ("train/neg/10_1.txt", "ten"),
        ("train/neg/2_3.txt", "two"),
        ("train/pos/0_9.txt", "zero\n"),
        ("train/pos/readme.md", "not a review"),
        ("train/unsup/0_0.txt", "no label"),
        ("test/neg/0_1.txt", "n"),
        ("test/pos/0_10.txt", "p"),
    ]);
    let splits = load_splits(folder.path(), &LoadOptions::default()).unwrap();
    assert_eq!(rows(&splits.train), [("two", 0), ("ten", 0), ("zero\n", 1)]);
    assert_eq!(splits.train.label_names, ["neg", "pos"]);
    assert_eq!(rows(&splits.test.unwrap()), [("n", 0), ("p", 1)]);
    write(&folder, "train/pos/3_9.txt", b"ab\xc3");
    let message = load(folder.path(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("3_9.txt") && message.contains("byte 2"), "{message}");
}

#[test]
fn splits_of_tables_share_their_classes() {
    let folder = folder(&[("train.csv", "text,label\na,0\nb,1\n"), ("validation.csv", "text,label\nc,1\n")]);
    let splits = load_splits(folder.path(), &LoadOptions::default()).unwrap();
    assert_eq!(splits.train.len(), 2);
    assert_eq!(rows(&splits.test.unwrap()), [("c", 1)]);
    write(&folder, "test.csv", b"text,label\nc,2\n");
    let message = load_splits(folder.path(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("test.csv") && message.contains("`2`"), "{message}");
}

#[test]
fn parquet_in_every_codec_with_class_names() {
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ];
    for codec in codecs {
        let dataset =
            load_one("a.parquet", &reviews(&["ünï", ""], &[1, 0], codec, Some(CLASS_NAMES))).unwrap();
        assert_eq!(rows(&dataset), [("ünï", 1), ("", 0)], "{codec:?}");
        assert_eq!(dataset.label_names, ["neg", "pos"]);
    }
    for metadata in [None, Some("not json"), Some("{}"), Some(r#"{"info": {"features": {"label": 3}}}"#)] {
        let bytes = reviews(&["a"], &[1], Compression::SNAPPY, metadata);
        assert_eq!(load_one("a.parquet", &bytes).unwrap().label_names, ["1"]);
    }
}

#[test]
fn parquet_row_groups_types_and_nullable_columns() {
    let text = |text: &str| [ByteArray::from(text)];
    let bytes = parquet_file(
        "message rows { optional int32 label; required double score; optional binary text (UTF8); }",
        Compression::SNAPPY,
        None,
        &[
            &|group| {
                column!(group, Int32Type, &[0], Some(&[1]));
                column!(group, ::parquet::data_type::DoubleType, &[0.5], None);
                column!(group, ByteArrayType, &text("a"), Some(&[1]));
            },
            &|group| {
                column!(group, Int32Type, &[1], Some(&[1]));
                column!(group, ::parquet::data_type::DoubleType, &[0.5], None);
                column!(group, ByteArrayType, &text("b"), Some(&[1]));
            },
        ],
    );
    assert_eq!(rows(&load_one("a.parquet", &bytes).unwrap()), [("a", 0), ("b", 1)]);
    let names = parquet_file(
        "message rows { required binary text; required binary label (UTF8); }",
        Compression::SNAPPY,
        None,
        &[&|group| {
            column!(group, ByteArrayType, &text("a"), None);
            column!(group, ByteArrayType, &text("Positive"), None);
        }],
    );
    assert_eq!(rows(&load_one("a.parquet", &names).unwrap()), [("a", 1)]);
    assert_eq!(load_one("a.parquet", &names).unwrap().label_names, ["negative", "Positive"]);
}

#[test]
fn parquet_longer_than_one_chunk() {
    let texts: Vec<String> = (0..5000).map(|row| format!("review {row}")).collect();
    let labels: Vec<i64> = (0..5000).map(|row| row % 2).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let dataset = load_one("a.parquet", &reviews(&texts, &labels, Compression::SNAPPY, None)).unwrap();
    let want: Vec<(&str, u32)> =
        texts.iter().zip(&labels).map(|(&text, &label)| (text, label as u32)).collect();
    assert_eq!(rows(&dataset), want);
}

#[test]
fn bad_parquet_is_refused() {
    let null = parquet_file(
        OPTIONAL,
        Compression::SNAPPY,
        None,
        &[&|group| {
            column!(group, ByteArrayType, &[ByteArray::from("a")], Some(&[1, 0]));
            column!(group, Int64Type, &[0, 1], Some(&[1, 1]));
        }],
    );
    assert_refused("a.parquet", &null, &["row 2", "`text` must hold strings", "null"]);
    let bytes = parquet_file(
        PLAIN,
        Compression::SNAPPY,
        None,
        &[&|group| {
            column!(group, ByteArrayType, &[ByteArray::from("a"), ByteArray::from(vec![b'x', 0xff])], None);
            column!(group, Int64Type, &[0, 1], None);
        }],
    );
    assert_refused("a.parquet", &bytes, &["row 2", "not UTF-8 at byte 1"]);
    let swapped = parquet_file(
        "message r { required int64 text; required int64 label; }",
        Compression::SNAPPY,
        None,
        &[&|group| {
            column!(group, Int64Type, &[1], None);
            column!(group, Int64Type, &[1], None);
        }],
    );
    assert_refused("a.parquet", &swapped, &["`text` must hold strings", "integers"]);
    let nested = "message r { required group text { required binary x (UTF8); } required int64 label; }";
    let nested = parquet_file(nested, Compression::SNAPPY, None, &[]);
    assert_refused("a.parquet", &nested, &["`text`", "lists or structures"]);
    assert_refused(
        "a.parquet",
        &reviews(&["a"], &[2], Compression::SNAPPY, Some(CLASS_NAMES)),
        &["row 1", "`2`", "0 to 1"],
    );
    assert_refused("a.parquet", &parquet_file(PLAIN, Compression::SNAPPY, None, &[]), &["no rows"]);
    let unlabelled = parquet_file("message r { required binary text; }", Compression::SNAPPY, None, &[]);
    assert_refused("a.parquet", &unlabelled, &["no rows"]);
    assert_refused("a.parquet", b"", &["parquet"]);
    assert_refused("a.parquet", b"PAR1 this is not what it says PAR1", &["parquet"]);
    let whole = reviews(&["a", "b"], &[0, 1], Compression::SNAPPY, Some(CLASS_NAMES));
    for length in 0..whole.len() {
        assert!(load_one("a.parquet", &whole[..length]).is_err(), "cut off after {length} bytes");
    }
}

#[test]
fn no_damaged_byte_makes_the_parquet_reader_panic() {
    let nullable = parquet_file(
        OPTIONAL,
        Compression::UNCOMPRESSED,
        None,
        &[&|group| {
            column!(group, ByteArrayType, &[ByteArray::from("a")], Some(&[1, 0]));
            column!(group, Int64Type, &[0, 1], Some(&[1, 1]));
        }],
    );
    for whole in [reviews(&["a", "b", "a"], &[0, 1, 1], Compression::SNAPPY, Some(CLASS_NAMES)), nullable] {
        for place in 0..whole.len() {
            for value in [0x00, 0x7f, 0xff, whole[place] ^ 1, whole[place] ^ 8] {
                let mut bytes = whole.clone();
                bytes[place] = value;
                let _ = load_one("a.parquet", &bytes);
            }
        }
    }
}

#[test]
fn shards_are_read_in_order_and_all_of_them() {
    let folder = TempDir::new().unwrap();
    let one = |text| reviews(&[text], &[0], Compression::SNAPPY, Some(CLASS_NAMES));
    write(&folder, "plain_text/train-00001-of-00002.parquet", &one("second"));
    let message = load(folder.path(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("1 files of `train`, whose names say that there are 2"), "{message}");
    write(&folder, "plain_text/train-00000-of-00002.parquet", &one("first"));
    write(&folder, "plain_text/trainees.parquet", b"not a shard of train");
    write(&folder, "plain_text/test-00000-of-00001.parquet", &one("test"));
    for root in [folder.path().to_owned(), folder.path().join("plain_text")] {
        let splits = load_splits(&root, &LoadOptions::default()).unwrap();
        assert_eq!(rows(&splits.train), [("first", 0), ("second", 0)]);
        assert_eq!(rows(&splits.test.unwrap()), [("test", 0)]);
    }
    let (test, _) = load_evaluation(folder.path(), &LoadOptions::default()).unwrap();
    assert_eq!(rows(&test), [("test", 0)]);
}

#[test]
fn hashes_see_texts_labels_and_order() {
    let dataset = |rows: &[(&str, u32)]| Dataset {
        examples: rows.iter().map(|&(text, label)| Example { text: text.to_owned(), label }).collect(),
        ..Dataset::default()
    };
    // printf '\1\0\0\0\2\0\0\0\0\0\0\0hi' | sha256sum
    assert_eq!(
        dataset(&[("hi", 1)]).sha256(),
        "8d6b6c3012992ae5a27aa454b0301402f3f1e37d7c80c9837ce24980161043d7"
    );
    let all: Vec<String> = [
        &[("ab", 0), ("c", 1)][..],
        &[("a", 0), ("bc", 1)],
        &[("c", 1), ("ab", 0)],
        &[("ab", 1), ("c", 1)],
        &[("ab", 0)],
        &[],
    ]
    .map(|rows| dataset(rows).sha256())
    .to_vec();
    for (i, hash) in all.iter().enumerate() {
        assert!(!all[..i].contains(hash), "{i}: {hash}");
    }
}

proptest! {
    #[test]
    fn csv_round_trip(rows in prop::collection::vec((any::<String>(), 0u32..5), 1..20), tab in any::<bool>()) {
        let mut writer = ::csv::WriterBuilder::new().delimiter(if tab { b'\t' } else { b',' }).from_writer(Vec::new());
        writer.write_record(["text", "label"]).unwrap();
        for (text, label) in &rows {
            writer.write_record([text, &label.to_string()]).unwrap();
        }
        let bytes = writer.into_inner().unwrap();
        let dataset = load_one(if tab { "a.tsv" } else { "a.csv" }, &bytes).unwrap();
        let got: Vec<(&str, &str)> = dataset
            .examples
            .iter()
            .map(|row| (row.text.as_str(), dataset.label_names[row.label as usize].as_str()))
            .collect();
        let labels: Vec<String> = rows.iter().map(|(_, label)| label.to_string()).collect();
        let want: Vec<(&str, &str)> =
            rows.iter().zip(&labels).map(|((text, _), label)| (text.as_str(), label.as_str())).collect();
        prop_assert_eq!(got, want);
    }

    #[test]
    fn jsonl_round_trip(rows in prop::collection::vec((any::<String>(), 0u32..5), 1..20)) {
        let line = |(text, label): &(String, u32)| serde_json::json!({"text": text, "label": label}).to_string();
        let lines: Vec<String> = rows.iter().map(line).collect();
        let dataset = load_one("a.jsonl", lines.join("\n").as_bytes()).unwrap();
        let got: Vec<(&str, &str)> = dataset
            .examples
            .iter()
            .map(|row| (row.text.as_str(), dataset.label_names[row.label as usize].as_str()))
            .collect();
        let labels: Vec<String> = rows.iter().map(|(_, label)| label.to_string()).collect();
        let want: Vec<(&str, &str)> =
            rows.iter().zip(&labels).map(|((text, _), label)| (text.as_str(), label.as_str())).collect();
        prop_assert_eq!(got, want);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for name in ["a.csv", "a.tsv", "a.jsonl", "a.parquet"] {
            let _ = load_one(name, &bytes);
            let _ = load_one(name, &[b"text,label\n", &bytes[..]].concat());
        }
    }
}
