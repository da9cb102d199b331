//! Classes, splits and figures of data sets as people have them, beside what scikit-learn says of the same.

use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use vitrine_train::data::{Dataset, LoadOptions, Splits, load, load_evaluation, load_splits};
use vitrine_train::metrics::Accumulator;

const GOLDEN: &str = include_str!("goldens/classes_and_metrics.json");

fn golden() -> Value {
    serde_json::from_str(GOLDEN).expect("the golden file is JSON")
}

/// A folder with these text files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    for (name, content) in files {
        put(folder.path(), name, content.as_bytes());
    }
    folder
}

fn put(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder is made");
    fs::write(path, content).expect("a file is written");
}

/// A parquet file as `datasets` writes it, with names for the numbers.
fn class_labels(rows: &[(&str, i64)], names: Option<&[&str]>) -> Vec<u8> {
    let schema = parse_message_type("message rows { required binary text (UTF8); required int64 label; }");
    let metadata = names.map(|names| {
        let feature =
            serde_json::json!({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}});
        vec![KeyValue::new("huggingface".to_owned(), feature.to_string())]
    });
    let properties = WriterProperties::builder().set_key_value_metadata(metadata).build();
    let mut bytes = Vec::new();
    let schema = Arc::new(schema.expect("a schema"));
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).expect("a writer");
    let mut group = file.next_row_group().expect("a row group");
    let texts: Vec<ByteArray> = rows.iter().map(|(text, _)| (*text).into()).collect();
    let labels: Vec<i64> = rows.iter().map(|(_, label)| *label).collect();
    let mut column = group.next_column().expect("a column").expect("a column");
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).expect("texts");
    column.close().expect("texts");
    let mut column = group.next_column().expect("a column").expect("a column");
    column.typed::<Int64Type>().write_batch(&labels, None, None).expect("labels");
    column.close().expect("labels");
    group.close().expect("a row group");
    file.close().expect("a file");
    bytes
}

/// Each row's text and the name of its class.
fn named(rows: &Dataset) -> Vec<(&str, &str)> {
    let name = |label: u32| rows.label_names[label as usize].as_str();
    rows.examples.iter().map(|example| (example.text.as_str(), name(example.label))).collect()
}

fn splits(folder: &TempDir) -> Splits {
    load_splits(folder.path(), &LoadOptions::default()).expect("the data are good")
}

/// The one line that says what is wrong.
fn refused(path: &Path, words: &[&str]) {
    for message in [
        load_splits(path, &LoadOptions::default()).map(|_| ()),
        load_evaluation(path, &LoadOptions::default()).map(|_| ()),
    ]
    .map(|result| result.expect_err("the data are bad").to_string())
    {
        assert!(!message.contains('\n'), "more than one line: {message}");
        for word in words {
            assert!(message.contains(word), "{word:?} is not in {message:?}");
        }
    }
}

#[test]
fn classes_are_ordered_as_scikit_learn_orders_them() {
    let golden = golden();
    let cases = golden["classes"].as_array().expect("cases");
    assert!(cases.len() >= 12);
    for case in cases {
        let list = |key: &str| -> Vec<String> {
            let names = case[key].as_array().expect("names").iter();
            names.map(|name| name.as_str().expect("a name").to_owned()).collect()
        };
        let rows: Vec<String> = list("labels").iter().map(|label| format!("text,{label}\n")).collect();
        let folder = folder(&[("a.csv", &format!("text,label\n{}", rows.concat()))]);
        let loaded =
            load(&folder.path().join("a.csv"), &LoadOptions::default()).expect("the labels are classes");
        assert_eq!(loaded.label_names, list("classes"));
        let labels: Vec<String> = named(&loaded).into_iter().map(|(_, name)| name.to_owned()).collect();
        assert_eq!(labels, list("labels"));
    }
}

#[test]
fn figures_are_those_of_scikit_learn() {
    let golden = golden();
    let cases = golden["figures"].as_array().expect("cases");
    assert!(cases.len() >= 60);
    for case in cases {
        let numbers = |value: &Value| -> Vec<f64> {
            value
                .as_array()
                .expect("numbers")
                .iter()
                .map(|number| number.as_f64().expect("a number"))
                .collect()
        };
        let classes = case["classes"].as_u64().expect("a count") as usize;
        let labels: Vec<u32> = numbers(&case["labels"]).into_iter().map(|label| label as u32).collect();
        let mut logits = vec![0.0; labels.len() * classes];
        for (row, class) in numbers(&case["predicted"]).into_iter().enumerate() {
            logits[row * classes + class as usize] = 1.0;
        }
        let mut accumulator = Accumulator::new((0..classes).map(|class| class.to_string()).collect());
        accumulator.add(&logits, &labels).expect("labels are classes");
        let metrics = serde_json::to_value(accumulator.finish().expect("there are rows")).expect("JSON");
        for figure in ["accuracy", "precision", "recall", "f1"] {
            let (got, want) = (metrics[figure].as_f64(), case[figure].as_f64().expect("a number"));
            assert!(
                got.is_some_and(|got| (got - want).abs() <= 1e-12),
                "{figure}: {got:?}, not {want}: {case}"
            );
        }
        for (index, figure) in ["precision", "recall", "f1"].into_iter().enumerate() {
            let want = numbers(&case["per_class"][index]);
            for (class, want) in want.into_iter().enumerate() {
                let got = metrics["per_class"][class][figure].as_f64();
                assert!(
                    got.is_some_and(|got| (got - want).abs() <= 1e-12),
                    "{figure} of {class}: {got:?}, not {want}"
                );
            }
        }
        for (class, want) in numbers(&case["support"]).into_iter().enumerate() {
            assert_eq!(metrics["per_class"][class]["support"].as_f64(), Some(want));
        }
    }
}

#[test]
fn files_with_names_in_different_orders_agree() {
    let folder = TempDir::new().expect("a temporary folder");
    let one = class_labels(&[("good", 0), ("bad", 1)], Some(&["positive", "negative"]));
    let two = class_labels(&[("good", 1), ("bad", 0), ("poor", 0)], Some(&["neg", "pos"]));
    put(folder.path(), "train-00000-of-00002.parquet", &one);
    put(folder.path(), "train-00001-of-00002.parquet", &two);
    put(folder.path(), "test.csv", b"text,label\ngreat,POS\nawful,Negative\n");
    let splits = splits(&folder);
    assert_eq!(
        named(&splits.train),
        [
            ("good", "positive"),
            ("bad", "negative"),
            ("good", "positive"),
            ("bad", "negative"),
            ("poor", "negative")
        ]
    );
    assert_eq!(splits.train.label_names, ["positive", "negative"]);
    assert_eq!(named(&splits.test.expect("a test split")), [("great", "positive"), ("awful", "negative")]);
    assert!(splits.notes.iter().any(|note| note.contains("`POS` is `positive`")), "{:?}", splits.notes);
    // A shard without names has numbers only: they are the first shard's.
    let bare = class_labels(&[("fine", 0), ("dull", 1)], None);
    put(folder.path(), "train-00001-of-00002.parquet", &bare);
    let again = load_splits(folder.path(), &LoadOptions::default()).expect("the shards fit");
    assert_eq!(named(&again.train)[2..], [("fine", "positive"), ("dull", "negative")]);
    let other = class_labels(&[("x", 0), ("y", 1)], Some(&["ham", "spam"]));
    put(folder.path(), "train-00001-of-00002.parquet", &other);
    let error = load_splits(folder.path(), &LoadOptions::default()).expect_err("other classes").to_string();
    for word in ["`ham`, `spam`", "`positive`, `negative`", "00001-of", "00000-of"] {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

#[test]
fn any_strings_numbers_and_booleans_are_classes() {
    for (labels, classes, rows) in [
        (["1", "2", "1"], &["1", "2"][..], ["1", "2", "1"]),
        (["0", "4", "4"], &["0", "4"], ["0", "4", "4"]),
        (["10", "9", "10"], &["9", "10"], ["10", "9", "10"]),
        (["-1", "1", "0"], &["-1", "0", "1"], ["-1", "1", "0"]),
        (["1.0", "0.0", "1"], &["0", "1"], ["1", "0", "1"]),
        (["4 stars", "5 stars", "4 stars"], &["4 stars", "5 stars"], ["4 stars", "5 stars", "4 stars"]),
        (
            ["Positive", "Negative", "Positive"],
            &["Negative", "Positive"],
            ["Positive", "Negative", "Positive"],
        ),
        (["pos", "positive", "NEG"], &["NEG", "positive"], ["positive", "positive", "NEG"]),
        (["neutral", "pos", "neg"], &["neg", "neutral", "pos"], ["neutral", "pos", "neg"]),
        (["True", "False", "True"], &["False", "True"], ["True", "False", "True"]),
        ([" ham", "spam ", "ham"], &["ham", "spam"], ["ham", "spam", "ham"]),
        (["LABEL_1", "LABEL_0", "LABEL_1"], &["LABEL_0", "LABEL_1"], ["LABEL_1", "LABEL_0", "LABEL_1"]),
    ] {
        let csv = labels.map(|label| format!("t,{label}\n")).concat();
        let folder = folder(&[("a.csv", &format!("text,label\n{csv}"))]);
        let loaded =
            load(&folder.path().join("a.csv"), &LoadOptions::default()).expect("the labels are classes");
        assert_eq!(loaded.label_names, classes, "{labels:?}");
        assert_eq!(named(&loaded).map_names(), rows, "{labels:?}");
    }
    let json = "{\"text\": \"a\", \"label\": true}\n{\"text\": \"b\", \"label\": false}\n";
    let folder = folder(&[("train.jsonl", json), ("test.csv", "text,label\nc,True\n")]);
    let splits = splits(&folder);
    assert_eq!(named(&splits.train), [("a", "true"), ("b", "false")]);
    assert_eq!(named(&splits.test.expect("a test split")), [("c", "true")]);
}

trait MapNames {
    fn map_names(&self) -> Vec<&str>;
}

impl MapNames for Vec<(&str, &str)> {
    fn map_names(&self) -> Vec<&str> {
        self.iter().map(|(_, name)| *name).collect()
    }
}

#[test]
fn labels_that_are_no_classes_are_refused() {
    let refuse = |content: &str, words: &[&str]| {
        let folder = folder(&[("a.csv", content)]);
        refused(&folder.path().join("a.csv"), words);
    };
    refuse("text,label\na,0\nb,1\ntext,label\n", &["a.csv:4", "`label`", "--label-map"]);
    refuse("text,label\na,spam\nb,ham\nc,3\n", &["a.csv:4", "`3`"]);
    refuse("text,label\na,0.5\nb,1\n", &["a.csv:2", "`0.5`", "whole numbers"]);
    refuse("text,label\na,1\nb,\nc,0\n", &["a.csv:3", "no label"]);
    refuse("text,label\na,-1\nb,-1\n", &["none of its 2 rows has a label"]);
    refuse("text,label\na,\nb,\n", &["none of its 2 rows has a label"]);
    refuse("text,stars\na,1\n", &["no label column", "`stars`", "--label-column"]);
    let many: Vec<String> = (0..1001).map(|n| format!("t,class {n}\n")).collect();
    refuse(
        &format!("text,label\n{}", many.concat()),
        &["1001 different labels", "at most 1000", "--label-column"],
    );
    let folder = TempDir::new().expect("a temporary folder");
    put(folder.path(), "a.parquet", &class_labels(&[("a", 0), ("b", 2)], Some(&["no", "yes"])));
    refused(&folder.path().join("a.parquet"), &["row 2", "`2`", "0 to 1"]);
    put(folder.path(), "a.parquet", &class_labels(&[("a", 0), ("b", -1)], Some(&["no", "yes"])));
    refused(&folder.path().join("a.parquet"), &["row 2", "no label"]);
}

#[test]
fn the_label_map_replaces_labels() {
    let options = |pairs: &[(&str, &str)]| LoadOptions {
        label_map: pairs.iter().map(|&(old, new)| (old.to_owned(), new.to_owned())).collect(),
        ..LoadOptions::default()
    };
    let folder = folder(&[("train.csv", "text,label\na,0\nb,4\n"), ("test.csv", "text,label\nc,4\n")]);
    let mapped = options(&[("0", "negative"), ("4", "positive")]);
    let splits = load_splits(folder.path(), &mapped).expect("the map fits");
    assert_eq!(named(&splits.train), [("a", "negative"), ("b", "positive")]);
    assert_eq!(named(&splits.test.expect("a test split")), [("c", "positive")]);
    put(folder.path(), "a.parquet", &class_labels(&[("a", 0), ("b", 1)], Some(&["ham", "spam"])));
    let path = folder.path().join("a.parquet");
    let (rows, notes) =
        load_evaluation(&path, &options(&[("ham", "ok"), ("eggs", "x")])).expect("the map fits");
    assert_eq!(named(&rows), [("a", "ok"), ("b", "spam")]);
    assert!(notes.iter().any(|note| note.contains("no row has the label `eggs`")), "{notes:?}");
}

#[test]
fn splits_without_labels_are_left_out() {
    let train = ("train.csv", "text,label\na,no\nb,yes\n");
    for unlabelled in
        ["text,label\nc,-1\nd,-1\n", "text\nc\nd\n", "text,label\nc,\nd,\n", "id,text\n1,c\n2,d\n"]
    {
        let folder = folder(&[train, ("test.csv", unlabelled)]);
        let alone = splits(&folder);
        assert!(alone.test.is_none());
        assert!(
            matches!(&alone.notes[..], [note] if note.contains("the 2 rows of its `test` split")),
            "{:?}",
            alone.notes
        );
        for other in ["validation.csv", "valid.csv", "val.tsv", "dev.jsonl"] {
            let content = match other {
                "dev.jsonl" => "{\"text\": \"e\", \"label\": \"yes\"}\n".to_owned(),
                "val.tsv" => "text\tlabel\ne\tyes\n".to_owned(),
                _ => "text,label\ne,yes\n".to_owned(),
            };
            put(folder.path(), other, content.as_bytes());
            assert_eq!(named(&splits(&folder).test.expect(other)), [("e", "yes")]);
            let (rows, notes) = load_evaluation(folder.path(), &LoadOptions::default()).expect(other);
            assert_eq!(named(&rows), [("e", "yes")]);
            assert_eq!(notes.len(), 1, "{notes:?}");
            fs::remove_file(folder.path().join(other)).expect("it was written");
        }
    }
}

#[test]
fn folders_are_found_in_many_shapes() {
    let csv = "text,label\na,no\nb,yes\n";
    // Files whose names begin with a dot are not data, and case does not matter.
    let one = folder(&[
        ("Train.CSV", csv),
        ("._train.csv", "rubbish"),
        (".train.parquet", "rubbish"),
        ("TEST.csv", csv),
    ]);
    assert_eq!((splits(&one).train.len(), splits(&one).test.expect("a test split").len()), (2, 2));
    // Another table that only begins with the same word.
    let one =
        folder(&[("train.csv", csv), ("train-labels.csv", "x,y\n1,2\n"), ("training_notes.csv", "x\n1\n")]);
    assert_eq!(splits(&one).train.len(), 2);
    // Class folders of any names; a folder without labels is none of them.
    let one = folder(&[
        ("train/spam/1.txt", "s"),
        ("train/ham/2.txt", "h"),
        ("train/unsup/3.txt", "u"),
        ("train/ham/.DS_Store.txt", "x"),
        ("test/spam/1.txt", "t"),
        ("test/ham/1.txt", "t"),
    ]);
    assert_eq!(named(&splits(&one).train), [("h", "ham"), ("s", "spam")]);
    // The classes of a folder by themselves, and a folder of one file.
    let one = folder(&[("pos/1.txt", "p"), ("neg/2.txt", "n"), ("readme.md", "x")]);
    assert_eq!(named(&splits(&one).train), [("n", "neg"), ("p", "pos")]);
    let one =
        folder(&[("IMDB Dataset.csv", "review,sentiment\na,positive\nb,negative\n"), ("notes.txt", "x")]);
    let read = splits(&one);
    assert_eq!(named(&read.train), [("a", "positive"), ("b", "negative")]);
    assert!(read.notes.iter().any(|note| note.contains("its one data file")), "{:?}", read.notes);
    // Parquet shards in a folder for each split.
    let one = TempDir::new().expect("a temporary folder");
    for split in ["train", "test"] {
        put(
            one.path(),
            &format!("{split}/0000.parquet"),
            &class_labels(&[("a", 0), ("b", 1)], Some(&["n", "y"])),
        );
    }
    assert_eq!((splits(&one).train.len(), splits(&one).test.expect("a test split").len()), (2, 2));
    // Two files of a split: one is read, and the other is named.
    let one = folder(&[("train.csv", csv), ("train.jsonl", "{\"text\": \"x\", \"label\": \"no\"}\n")]);
    assert!(
        splits(&one).notes.iter().any(|note| note.contains("`train.jsonl` is left alone")),
        "{:?}",
        splits(&one).notes
    );

    let one = folder(&[("reviews_a.csv", csv), ("reviews_b.csv", csv)]);
    refused(one.path(), &["split", "`reviews_a.csv`, `reviews_b.csv`", "pass one of these"]);
    let one = folder(&[("sst2/train.csv", csv), ("sst2/test.csv", csv)]);
    refused(one.path(), &["split", "`sst2`", "pass that"]);
    refused(Path::new("imdb"), &["imdb: no such file or folder", "hub", "vitrine fetch --dataset imdb"]);
    refused(
        Path::new("stanfordnlp/imdb"),
        &["stanfordnlp/imdb: no such file or folder", "vitrine fetch --dataset stanfordnlp/imdb"],
    );
    for path in ["no/such/folder", "./imdb", "reviews.csv", "/imdb"] {
        let message =
            load(Path::new(path), &LoadOptions::default()).expect_err("nothing is there").to_string();
        assert!(!message.contains("hub") && message.contains(path), "{message}");
    }
    // Shards of two versions.
    let one = TempDir::new().expect("a temporary folder");
    for name in ["train.parquet", "train-00000-of-00001.parquet"] {
        put(one.path(), name, &class_labels(&[("a", 0), ("b", 1)], None));
    }
    let message = load(one.path(), &LoadOptions::default()).expect_err("a row twice").to_string();
    assert!(message.contains("2 files of `train`") && message.contains("another version"), "{message}");
}

#[test]
fn remembered_columns_come_before_the_common_names_where_they_exist() {
    let folder = folder(&[
        ("train.csv", "text,body,label,stars\nx,a,no,bad\nx,b,yes,good\n"),
        ("other.csv", "text,label\nc,no\nd,yes\n"),
    ]);
    let options = LoadOptions {
        remembered_text_column: Some("body".to_owned()),
        remembered_label_column: Some("stars".to_owned()),
        ..LoadOptions::default()
    };
    let rows = load(&folder.path().join("train.csv"), &options).expect("the columns exist");
    assert_eq!(named(&rows), [("a", "bad"), ("b", "good")]);
    assert_eq!((rows.text_column.as_deref(), rows.label_column.as_deref()), (Some("body"), Some("stars")));
    let rows = load(&folder.path().join("other.csv"), &options).expect("the common names exist");
    assert_eq!(named(&rows), [("c", "no"), ("d", "yes")]);
    let asked = LoadOptions { text_column: Some("text".to_owned()), ..options };
    assert_eq!(named(&load(&folder.path().join("train.csv"), &asked).expect("as asked"))[0].0, "x");
}
