//! `vitrine train --distill-from`.

use crate::common::{model, path, refuse, succeed, text, tiny, vitrine};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

const STUDENT: [&str; 8] =
    ["--train-samples", "16", "--test-samples", "200", "--batch-size", "32", "--dtype", "f32"];

/// Trains a student, with a cache of its own beside `output`.
fn student(output: &Path, more: &[&str]) -> Output {
    let cache = output.parent().unwrap().join("cache");
    let start = ["--model", tiny(), "--lr", "1e-3"];
    let arguments =
        [&["train", "-v", "--json", "--output", path(output)], &start[..], &STUDENT[..], more].concat();
    std::process::Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .args(arguments)
        .env_remove("VITRINE_ISA")
        .env("XDG_CACHE_HOME", cache)
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .unwrap()
}

fn accuracy(output: &Output) -> f64 {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["eval"]["accuracy"].as_f64().unwrap()
}

#[test]
fn a_student_learns_from_texts_without_labels_and_goes_on_after_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let teacher = at("teacher");
    let rows = [
        "--model",
        tiny(),
        "--lr",
        "1e-3",
        "--train-samples",
        "4000",
        "--test-samples",
        "200",
        "--epochs",
        "4",
    ];
    let report: Value = serde_json::from_str(&succeed(
        &[&["train", "--json", "--output", path(&teacher)], &rows[..]].concat(),
    ))
    .unwrap();
    let of_teacher = report["eval"]["accuracy"].as_f64().unwrap();
    // Texts of the same kind that are no rows of any run.
    let texts: Vec<String> = vitrine_train::corpus::splits(7)
        .train
        .examples
        .into_iter()
        .map(|example| example.text)
        .take(3000)
        .collect();
    std::fs::write(at("texts.txt"), texts.join("\n")).unwrap();

    let alone = accuracy(&student(&at("alone"), &["--epochs", "40"]));
    let texts = at("texts.txt");
    let distilled = [
        "--distill-from",
        path(&teacher),
        "--unlabelled",
        path(&texts),
        "--distill-weight",
        "0.9",
        "--epochs",
        "4",
    ];
    let output = student(&at("distilled"), &distilled);
    let learnt = accuracy(&output);
    let said = text(&output.stderr);
    assert!(said.contains("distillation from") && said.contains("the teacher's logits of"), "{said}");
    assert!(learnt >= alone + 0.1 && learnt >= of_teacher - 0.1, "{alone} alone, {learnt} of {of_teacher}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["settings"]["distill_weight"], 0.9);
    assert_eq!(report["settings"]["distill_temperature"], 2.0);
    assert!(report["rows"]["unlabelled"].as_u64().unwrap() > 2000, "{}", report["rows"]);

    // A run of the same teacher and rows finds the logits; one that was stopped ends with the same bits.
    let (stopped, weights) =
        (at("stopped"), |name: &str| std::fs::read(at(name).join("model.safetensors")).unwrap());
    let first = [&distilled[..], &["--save-every", "200"]].concat();
    let output = student(&stopped, &first);
    assert!(text(&output.stderr).contains("logits of ") && text(&output.stderr).contains("from the cache"));
    assert!(weights("stopped") == weights("distilled"), "the same run has other bits");
    std::fs::remove_file(stopped.join("model.safetensors")).unwrap();
    std::fs::remove_file(stopped.join("config.json")).unwrap();
    let mut killed: Value =
        serde_json::from_slice(&std::fs::read(stopped.join("run.json")).unwrap()).unwrap();
    (killed["state"], killed["train"], killed["eval"]) = ("running".into(), Value::Null, Value::Null);
    std::fs::write(stopped.join("run.json"), killed.to_string()).unwrap();
    let resumed = student(&stopped, &[&first[..], &["--resume"]].concat());
    assert!(text(&resumed.stderr).contains("going on after step"), "{}", text(&resumed.stderr));
    assert_eq!(accuracy(&resumed), learnt);
    assert!(weights("stopped") == weights("distilled"), "resuming changed the weights");
    // The settings of the teacher are mathematics.
    std::fs::remove_file(stopped.join("config.json")).unwrap();
    std::fs::write(stopped.join("run.json"), killed.to_string()).unwrap();
    let other = [&first[..], &["--resume", "--distill-temperature", "4"]].concat();
    let refused = student(&stopped, &other);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("distill_temperature"), "{}", text(&refused.stderr));
}

#[test]
fn what_does_not_fit_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (_kept, teacher) = model();
    let table = folder.path().join("topics.csv");
    let rows: Vec<String> = (0..30).map(|row| format!("text {row},{}", ["a", "b", "c"][row % 3])).collect();
    std::fs::write(&table, format!("text,label\n{}\n", rows.join("\n"))).unwrap();
    let output = folder.path().join("out");
    let start = ["train", "--output", path(&output)];
    let run = |more: &[&'static str], words: &[&str], code| {
        let found: Vec<&str> = more
            .iter()
            .map(|word| match *word {
                "TEACHER" => path(&teacher),
                "TABLE" => path(&table),
                other => other,
            })
            .collect();
        refuse(code, &[&start[..], &found].concat(), words);
    };
    run(
        &["--model", "TEACHER", "--data", "TABLE", "--new-head", "--distill-from", "TEACHER"],
        &["its classes"],
        1,
    );
    run(&["--distill-from", "nowhere"], &["nowhere"], 1);
    run(&["--distill-from", "TEACHER", "--unlabelled", "nowhere.txt"], &["nowhere.txt"], 1);
    for wrong in [["--distill-weight", "0.5"], ["--distill-temperature", "3"], ["--unlabelled", "x.txt"]] {
        let without = vitrine(&[&start[..], &wrong].concat());
        assert_eq!(without.status.code(), Some(2), "{}", text(&without.stderr));
    }
    assert!(!output.join("run.json").exists());
}
