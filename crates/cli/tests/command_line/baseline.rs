//! `vitrine baseline`.

use crate::common::{path, refuse, succeed, tiny, train};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeed(&[&["baseline", "--json"], arguments].concat())).expect("one object")
}

/// Three classes that words tell apart, and a word that says nothing.
fn table(folder: &Path, name: &str, rows: usize) -> PathBuf {
    let topics = [("sport", "goal match"), ("food", "soup bread"), ("music", "song guitar")];
    let mut text = String::from("text,label\n");
    for row in 0..rows {
        let (label, words) = topics[row % 3];
        let word = words.split(' ').nth(row / 3 % 2).unwrap();
        text += &format!("the {word} of number{row},{label}\n");
    }
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn it_uses_the_rows_of_train_and_stands_beside_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let report = train(&run, &[]);
    let same = ["--train-samples", "64", "--test-samples", "32"];
    let alone = json(&same);
    assert_eq!(alone["train_hash"], report["rows"]["train_hash"]);
    assert_eq!(alone["eval_hash"], report["rows"]["test_hash"]);
    assert_eq!((&alone["eval_split"], &alone["train_rows"]), (&"test".into(), &64.into()));
    let accuracy = alone["eval"]["accuracy"].as_f64().unwrap();

    let beside = json(&["--run", path(&run)]);
    assert_eq!(beside["eval"]["confusion_matrix"], alone["eval"]["confusion_matrix"]);
    assert_eq!(beside["run"]["accuracy"], report["eval"]["accuracy"]);
    let count = |name: &str| beside["run"]["mcnemar"][name].as_u64().unwrap() as f64;
    // The rows that only one of them gets right are the difference of the accuracies.
    let difference = report["eval"]["accuracy"].as_f64().unwrap() - accuracy;
    assert!(((count("only_first") - count("only_second")) / 32.0 - difference).abs() < 1e-12);
    let shown = succeed(&["baseline", "--run", path(&run), "--most-telling", "3"]);
    assert!(shown.contains("model in") && shown.contains("bag of words and pairs"), "{shown}");
    assert!(shown.contains("McNemar's test, 32 rows") && shown.contains("p = "), "{shown}");
    assert!(shown.contains("negative: ") && shown.contains("positive: "), "{shown}");

    std::fs::remove_file(run.join("predictions.jsonl")).unwrap();
    let shown = succeed(&["baseline", "--run", path(&run)]);
    assert!(shown.contains("no McNemar test: ") && shown.contains("predictions.jsonl"), "{shown}");
    // Other rows than the run's are no comparison.
    let other = table(folder.path(), "other.csv", 60);
    refuse(1, &["baseline", "--run", path(&run), "--data", path(&other)], &["the run's model"]);
    let mut edited: Value = serde_json::from_slice(&std::fs::read(run.join("run.json")).unwrap()).unwrap();
    edited["settings"]["sample_seed"] = 7.into();
    std::fs::write(run.join("run.json"), edited.to_string()).unwrap();
    refuse(1, &["baseline", "--run", path(&run)], &["not those of the run", "SHA-256"]);
    edited["state"] = "interrupted".into();
    std::fs::write(run.join("run.json"), edited.to_string()).unwrap();
    refuse(1, &["baseline", "--run", path(&run)], &["interrupted"]);
}

#[test]
fn a_run_on_renamed_and_held_back_rows_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = table(folder.path(), "topics.csv", 90);
    let run = folder.path().join("run");
    let arguments = ["--model", tiny(), "--data", path(&data), "--output", path(&run), "--epochs", "1"];
    let more = ["--label-map", "food=dish", "--validation-split", "0.2", "--batch-size", "32", "--json"];
    let report: Value =
        serde_json::from_str(&succeed(&[&["train"], &arguments[..], &more].concat())).unwrap();
    let beside = json(&["--run", path(&run)]);
    assert_eq!(beside["eval_split"], "validation");
    assert_eq!(beside["eval_hash"], report["rows"]["validation_hash"]);
    assert_eq!((&beside["eval"]["accuracy"], &beside["eval_rows"]), (&1.0.into(), &18.into()));
    assert_eq!(beside["run"]["accuracy"], report["eval"]["accuracy"]);

    let moved = folder.path().join("moved.csv");
    std::fs::rename(&data, &moved).unwrap();
    refuse(1, &["baseline", "--run", path(&run)], &["topics.csv", "name them with --data"]);
    assert_eq!(
        json(&["--run", path(&run), "--data", path(&moved)])["eval"]["confusion_matrix"],
        beside["eval"]["confusion_matrix"]
    );
}

#[test]
fn many_classes_and_the_words_that_tell_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = table(folder.path(), "topics.csv", 90);
    let found = json(&["--data", path(&data), "--most-telling", "2", "--ngrams", "1"]);
    assert_eq!((&found["eval_split"], &found["eval"]["accuracy"]), (&"validation".into(), &1.0.into()));
    assert_eq!(found["fit"]["converged"], true);
    let telling = found["most_telling"].as_array().unwrap();
    for (class, words) in telling.iter().zip([["bread", "soup"], ["guitar", "song"], ["goal", "match"]]) {
        let mut terms: Vec<&str> =
            class["terms"].as_array().unwrap().iter().map(|term| term["term"].as_str().unwrap()).collect();
        terms.sort_unstable();
        assert_eq!(terms, words, "{class}");
    }
    // Words of one text do not count; with a limit, the most frequent ones do.
    assert_eq!(found["fit"]["features"], 8);
    let few = ["--data", path(&data), "--ngrams", "1", "--max-features", "2", "--c", "0.5", "--tf", "raw"];
    assert_eq!(json(&few)["fit"]["features"], 2);
}

#[test]
fn what_cannot_be_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = table(folder.path(), "topics.csv", 30);
    refuse(1, &["baseline", "--data", path(&data), "--min-df", "100"], &["no word is in 100 texts"]);
    refuse(1, &["baseline", "--data", path(&data), "--validation-split", "0"], &["--validation-split"]);
    for wrong in [["--c", "0"], ["--ngrams", "3"], ["--min-df", "0"], ["--validation-split", "1"]] {
        let output = crate::common::vitrine(&[&["baseline"], &wrong[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    let run = path(folder.path());
    refuse(2, &["baseline", "--run", run], &["run.json", "vitrine train"]);
    std::fs::write(folder.path().join("run.json"), "{\"command\": \"pretrain\"}").unwrap();
    refuse(1, &["baseline", "--run", run], &["run.json", "not of a `vitrine train`"]);
    let both = crate::common::vitrine(&["baseline", "--run", run, "--train-samples", "5"]);
    assert_eq!(both.status.code(), Some(2));
}
