//! A class is its name: data and models whose classes come in other orders, spellings and numbers.

use crate::common::{path, refuse, succeed, text, vitrine};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const WORDS: [(&str, bool); 8] = [
    ("good", true),
    ("bad", false),
    ("lovely", true),
    ("awful", false),
    ("great", true),
    ("poor", false),
    ("fine", true),
    ("dull", false),
];

/// Rows `the film is WORD` in turn, each with the label for praise or for blame.
fn rows(praise: &str, blame: &str) -> String {
    let row = |n: usize| {
        let (word, good) = WORDS[n % WORDS.len()];
        format!(
            "the {} film is {word},{}\n",
            ["old", "new", "long"][n % 3],
            if good { praise } else { blame }
        )
    };
    format!("text,label\n{}", (0..96).map(row).collect::<String>())
}

struct Room(TempDir);

impl Room {
    fn new() -> Room {
        Room(TempDir::new().expect("a temporary folder"))
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder is made");
        fs::write(&path, content).expect("a file is written");
        path.to_str().expect("UTF-8").to_owned()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An encoder without a head.
    fn encoder(&self) -> PathBuf {
        let sizes = r#"{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
            "max_position_embeddings": 32, "model_type": "bert"}"#;
        let config = self.write("tiny.json", sizes);
        let encoder = self.at("encoder");
        succeed(&["init", "--config", &config, "--output", path(&encoder)]);
        encoder
    }

    /// Trains on a file until it is learnt.
    fn train(&self, model: &Path, data: &str, output: &str, more: &[&str]) -> PathBuf {
        let output = self.at(output);
        let learn = [
            "--epochs",
            "12",
            "--lr",
            "5e-3",
            "--batch-size",
            "8",
            "--dtype",
            "f32",
            "--validation-split",
            "0",
        ];
        let arguments = ["train", "--model", path(model), "--data", data, "--output", path(&output)];
        succeed(&[&arguments[..], &learn, more].concat());
        output
    }

    /// A classifier that knows praise from blame, with praise as class 0, and these names.
    fn praise_first(&self, names: [&str; 2]) -> PathBuf {
        let data = self.write("praise_first.csv", &rows("1 praise", "2 blame"));
        let model = self.train(&self.encoder(), &data, "praise_first", &[]);
        let file = model.join("config.json");
        let mut config: Value =
            serde_json::from_str(&fs::read_to_string(&file).expect("a config")).expect("JSON");
        config["id2label"] = serde_json::json!({"0": names[0], "1": names[1]});
        config["label2id"] = serde_json::json!({names[0]: 0, names[1]: 1});
        fs::write(file, config.to_string()).expect("a config is written");
        model
    }
}

fn eval(model: &Path, data: &str, more: &[&str]) -> Value {
    let arguments = ["eval", "--model", path(model), "--data", data, "--json"];
    serde_json::from_str(&succeed(&[&arguments[..], more].concat())).expect("JSON")
}

fn predicted(model: &Path, words: &[&str]) -> Vec<String> {
    let printed = succeed(&[&["predict", "--model", path(model)], words].concat());
    let class = |line: &str| {
        let (scored, _) = line.split_once('\t').expect("a class, a tab and the text");
        scored.rsplit_once(' ').expect("a name and a number").0.to_owned()
    };
    printed.lines().map(class).collect()
}

#[test]
fn a_classifier_is_measured_by_the_names_of_its_classes() {
    let room = Room::new();
    let model = room.praise_first(["POSITIVE", "NEGATIVE"]);
    for (praise, blame) in
        [("positive", "negative"), ("POSITIVE", "NEGATIVE"), ("pos", "neg"), ("Pos", "negative")]
    {
        let report = eval(&model, &room.write("data.csv", &rows(praise, blame)), &[]);
        assert_eq!(report["accuracy"], 1.0, "{praise}, {blame}: {report}");
        // F1 is that of the class called positive, wherever it stands.
        assert_eq!((&report["positive_class"], &report["f1"]), (&"POSITIVE".into(), &1.0.into()));
        assert_eq!(report["data"]["classes"], serde_json::json!({"POSITIVE": 48, "NEGATIVE": 48}));
    }
    // The layout of aclImdb, a file with blame only, and numbers that the user explains.
    for (n, (word, good)) in WORDS.into_iter().enumerate().take(6) {
        room.write(
            &format!("acl/test/{}/{n}_1.txt", if good { "pos" } else { "neg" }),
            &format!("the film is {word}"),
        );
    }
    assert_eq!(eval(&model, path(&room.at("acl")), &[])["accuracy"], 1.0);
    let blame = room.write("blame.csv", "text,label\nthe film is bad,negative\nthe film is poor,negative\n");
    assert_eq!(eval(&model, &blame, &[])["accuracy"], 1.0);
    let numbers = room.write("numbers.csv", &rows("4", "0"));
    assert_eq!(eval(&model, &numbers, &["--label-map", "0=negative,4=positive"])["accuracy"], 1.0);
    // By index where there are no names, and it says so.
    let output =
        vitrine(&["eval", "--model", path(&model), "--data", &room.write("data.csv", &rows("0", "1"))]);
    let stderr = text(&output.stderr);
    assert!(
        output.status.success() && stderr.contains("by index: `0` is `POSITIVE`, `1` is `NEGATIVE`"),
        "{stderr}"
    );

    let misfit = |content: &str, words: &[&str]| {
        let data = room.write("data.csv", content);
        refuse(1, &["eval", "--model", path(&model), "--data", &data], &[&["data.csv"], words].concat());
    };
    misfit(&rows("ham", "spam"), &["`ham`, `spam`", "`POSITIVE`, `NEGATIVE`", "--label-map"]);
    misfit(&rows("2", "1"), &["`1`, `2`", "`POSITIVE`, `NEGATIVE`"]);
    misfit(&format!("{}x,neutral\n", rows("positive", "negative")), &["`negative`, `neutral`, `positive`"]);
    misfit(&format!("{}x,2\n", rows("0", "1")), &["`0`, `1`, `2`"]);
}

#[test]
fn training_goes_on_with_the_classes_of_the_checkpoint_and_the_names_of_the_data() {
    let room = Room::new();
    let model = room.praise_first(["positive", "negative"]);
    let data = room.write("data.csv", &rows("Pos", "Neg"));
    // One epoch: a head that was thrown away, or whose classes were exchanged, would not be right yet.
    let tuned = room.at("tuned");
    let arguments = ["train", "--model", path(&model), "--data", &data, "--epochs", "1", "--lr", "1e-5"];
    let trained = vitrine(&[&arguments[..], &["--output", path(&tuned)]].concat());
    let stderr = text(&trained.stderr);
    assert!(
        trained.status.success() && stderr.contains("by name: `Neg` is `negative`, `Pos` is `positive`"),
        "{stderr}"
    );
    assert_eq!(predicted(&tuned, &["the film is good", "the film is bad"]), ["Pos", "Neg"]);
    assert_eq!(eval(&tuned, &data, &[])["accuracy"], 1.0);

    let three = room.write("three.csv", &format!("{}the film is long,meh\n", rows("Pos", "Neg")));
    let output = room.at("refused");
    let refused = ["train", "--model", path(&model), "--data", &three, "--output", path(&output)];
    refuse(1, &refused, &["three.csv", "`Neg`, `Pos`, `meh`", "`positive`, `negative`", "--new-head"]);
    assert!(!output.exists(), "a run that is refused leaves nothing");
    let fresh = room.train(&model, &three, "fresh", &["--new-head"]);
    assert_eq!(predicted(&fresh, &["the film is good", "the film is bad"]), ["Pos", "Neg"]);
    let config: Value =
        serde_json::from_str(&fs::read_to_string(fresh.join("config.json")).expect("a config"))
            .expect("JSON");
    assert_eq!(config["id2label"], serde_json::json!({"0": "Neg", "1": "Pos", "2": "meh"}));
    // A new head for as many classes as the old one had is new all the same.
    let swapped = room.at("swapped");
    let arguments =
        ["train", "--model", path(&model), "--data", &data, "--epochs", "1", "--lr", "1e-9", "--new-head"];
    let trained = vitrine(&[&arguments[..], &["--output", path(&swapped)]].concat());
    let stderr = text(&trained.stderr);
    assert!(trained.status.success() && stderr.contains("new, to be trained: classifier.weight"), "{stderr}");
}

#[test]
fn a_model_remembers_names_and_columns() {
    let room = Room::new();
    let table = rows("4 stars", "1 star").replacen("text,label", "body,verdict", 1);
    let data = room.write("data.csv", &table);
    let columns = ["--text-column", "body", "--label-column", "verdict"];
    let model = room.train(&room.encoder(), &data, "model", &columns);
    assert_eq!(predicted(&model, &["the film is good", "the film is bad"]), ["4 stars", "1 star"]);
    assert_eq!(eval(&model, &data, &[])["accuracy"], 1.0);
    let lines = succeed(&["predict", "--model", path(&model), "--file", &data]);
    assert_eq!(lines.lines().count(), 96);
    assert!(lines.lines().next().is_some_and(|line| line.starts_with("4 stars")), "{lines}");
    // Elsewhere the common names do.
    assert_eq!(eval(&model, &room.write("other.csv", &rows("4 stars", "1 star")), &[])["accuracy"], 1.0);
}

#[test]
fn names_are_no_commands_for_the_terminal() {
    let room = Room::new();
    let model = room.praise_first(["\u{1b}[31mgood\u{202e}", "bad\u{7}"]);
    for arguments in [
        &["predict", "--model", path(&model), "the film is good"][..],
        &["eval", "--model", path(&model), "--data", &room.write("data.csv", &rows("0", "1"))],
        &["eval", "--model", path(&model), "--data", &room.write("data.csv", &rows("x\u{1b}[2J", "y"))],
        &["trace", "--model", path(&model), "the film is good"],
    ] {
        let output = vitrine(arguments);
        let printed = text(&output.stdout) + &text(&output.stderr);
        for command in ['\u{1b}', '\u{7}', '\u{202e}'] {
            assert!(!printed.contains(command), "{arguments:?}: {printed:?}");
        }
    }
}

#[test]
fn what_was_read_is_said_before_training() {
    let room = Room::new();
    let encoder = room.encoder();
    room.write("d/train.csv", &format!("{}odd,maybe\n", rows("yes", "no")));
    room.write("d/test.csv", "text\nwithout a label\n");
    room.write("d/validation.csv", "text,label\nthe old film is good,yes\nnot seen,no\n");
    let data = room.at("d");
    let arguments = ["train", "--model", path(&encoder), "--data", path(&data), "--epochs", "1", "--json"];
    let output = vitrine(&[&arguments[..], &["--output", path(&room.at("out"))]].concat());
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let said = stderr.find("maybe 1, no 48, yes 48").expect(&stderr);
    assert!(said < stderr.find("train 1/").expect("a step"), "{stderr}");
    for word in [
        "left out of the evaluation",
        "validation",
        "1 of the 2 test rows are training rows",
        "fewer than 10 rows of a class: `maybe` 1",
        "no rows of `maybe`",
    ] {
        assert!(stderr.contains(word), "expected {word:?} in\n{stderr}");
    }
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["data"][0]["classes"], serde_json::json!({"maybe": 1, "no": 48, "yes": 48}));
    assert_eq!((&report["data"][1]["split"], &report["data"][1]["rows"]), (&"validation".into(), &2.into()));
    assert!(report["data_warnings"].as_array().is_some_and(|warnings| warnings.len() >= 3));
}
