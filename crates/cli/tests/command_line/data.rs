//! `data inspect`, the cache of tokens, and which part of long texts is read.

use crate::common::{path, refuse, succeed, text, train, vitrine};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of two splits with one of each fault.
fn faulty(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    let train = "text,label\nplain and good,good\nplain and good,bad\n\"a<br />b\",good\ncafÃ© time,bad\ncaf\u{fffd} time,good\n\
                 \" \",bad\nred\u{1b}[31m text,good\n";
    std::fs::write(data.join("train.csv"), train).unwrap();
    std::fs::write(data.join("test.csv"), "text,label\nplain and good,good\nnew,bad\n").unwrap();
    data
}

#[test]
fn what_is_odd_about_data_is_found_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let data = faulty(folder.path());
    let found: serde_json::Value =
        serde_json::from_str(&succeed(&["data", "inspect", path(&data), "--json"])).unwrap();
    let train = &found["splits"][0];
    assert_eq!(
        (&train["split"], &train["rows"], &train["labels"]["good"]),
        (&"train".into(), &7.into(), &4.into())
    );
    for finding in ["empty", "html", "replacement_characters", "mojibake", "control_characters", "duplicates"]
    {
        assert_eq!(train[finding]["rows"], 1, "{finding}");
        assert!(train[finding]["examples"][0]["row"].is_number(), "{finding}");
    }
    assert_eq!(found["shared"][0]["duplicates"]["rows"], 1);
    assert_eq!(found["conflicting_labels"]["rows"], 3);
    let shown = succeed(&["data", "inspect", path(&data)]);
    assert!(
        shown.contains("texts with HTML: 1 (14.3 %)") && shown.contains("train 2 [good]: a<br />b"),
        "{shown}"
    );
    assert!(!shown.contains('\u{1b}'), "a text commands the terminal: {shown:?}");
    assert!(shown.contains("lengths in words"));
}

#[test]
fn labels_that_cannot_be_trained_on_are_said_and_the_rest_is_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reviews.csv");
    std::fs::write(&file, "text,label\ngood,1\nbad,\nugly,0\n").unwrap();
    let output = vitrine(&["data", "inspect", path(&file)]);
    assert!(output.status.success());
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    assert!(shown.contains("rows     3") && shown.contains("without a label 1"), "{shown}");
    assert!(said.contains("warning:") && said.contains("no label here"), "{said}");
    refuse(1, &["data", "inspect", "nothing.csv"], &["nothing.csv"]);
    std::fs::write(&file, "other,label\ngood,1\n").unwrap();
    refuse(1, &["data", "inspect", path(&file)], &["no text column"]);
    refuse(2, &["data", "inspect", path(&file), "--max-length", "9"], &["--model"]);
}

#[test]
fn a_model_gives_lengths_in_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    train(&model, &[]);
    let file = folder.path().join("reviews.csv");
    std::fs::write(&file, format!("text,label\n{},1\nbad,0\n", "good film ".repeat(400))).unwrap();
    let arguments = ["data", "inspect", path(&file), "--model", path(&model), "--max-length", "16", "--json"];
    let found: serde_json::Value = serde_json::from_str(&succeed(&arguments)).unwrap();
    let tokens = &found["splits"][0]["tokens"];
    // Nothing is cut off to count, although the model has 128 positions.
    assert_eq!((&tokens["percentiles"]["100"], &tokens["percentiles"]["0"]), (&802.into(), &3.into()));
    assert_eq!((&tokens["truncated"]["rows"], &tokens["truncated"]["share"]), (&1.into(), &0.5.into()));
}

/// A file of more than a MiB of texts, so that its tokens are kept.
fn large(folder: &Path) -> PathBuf {
    let file = folder.join("large.csv");
    let rows: String = (0..1200)
        .map(|row| {
            format!(
                "{} row {row} {},{}\n",
                "good film and a warm story ".repeat(35),
                ["bad", "good"][row % 2],
                row % 2
            )
        })
        .collect();
    std::fs::write(&file, format!("text,label\n{rows}")).unwrap();
    file
}

#[test]
fn a_second_run_takes_its_tokens_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let (model, file, cache) =
        (folder.path().join("model"), large(folder.path()), folder.path().join("cache"));
    train(&model, &[]);
    let eval = |more: &[&str], home: &Path| {
        let arguments =
            ["eval", "--model", path(&model), "--data", path(&file), "--max-length", "16", "--json", "-v"];
        let output = Command::new(env!("CARGO_BIN_EXE_vitrine"))
            .args([&arguments, more].concat())
            .env("XDG_CACHE_HOME", home)
            .env("CUDA_VISIBLE_DEVICES", "")
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (said, format!("{} {} {}", found["confusion_matrix"], found["loss"], found["truncated"]))
    };
    let (said, without) = eval(&["--no-cache"], &cache);
    assert!(!said.contains("tokens of 1,200 rows") && !cache.exists(), "{said}");
    let (said, first) = eval(&[], &cache);
    assert!(said.contains("made, and kept in"), "{said}");
    let (said, second) = eval(&[], &cache);
    assert!(said.contains("tokens of 1,200 rows: from "), "{said}");
    assert_eq!((&first, &second), (&without, &without));
    let (said, tail) = eval(&["--truncate", "tail"], &cache);
    assert!(said.contains("made, and kept in") && tail != first, "{said}");
    // A file where the folder should be: no cache, and nothing else.
    let taken = folder.path().join("taken");
    std::fs::write(&taken, "").unwrap();
    let (said, third) = eval(&[], &taken);
    assert!(said.contains("made, and not kept") && third == first, "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_means_no_cache_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (model, file) = (folder.path().join("model"), large(folder.path()));
    train(&model, &[]);
    let disk = folder.path().join("disk");
    let mut eval = Command::new(env!("CARGO_BIN_EXE_vitrine"));
    eval.args(["eval", "--model", path(&model), "--data", path(&file), "--max-length", "64", "-v"]);
    // 1,200 rows of 64 tokens are 150 KiB.
    let script = "export XDG_CACHE_HOME=$DISK; \"$@\"; code=$?; ls -RA $DISK >&2; exit $code";
    let Some(output) = crate::outputs::on_a_small_disk("64k", &disk, script, &eval) else {
        return eprintln!("skipped: no mounts of our own");
    };
    let said = text(&output.stderr);
    assert!(
        output.status.success() && said.contains("made, and not kept") && said.contains("No space left"),
        "{said}"
    );
    assert!(!said.contains(".partial"), "a part is left: {said}");
}

#[test]
fn a_model_remembers_which_part_of_a_text_it_read() {
    let folder = tempfile::tempdir().unwrap();
    let model = |name: &str, more: &[&str]| {
        let output = folder.path().join(name);
        let report = train(&output, &[&["--max-length", "8"], more].concat());
        (
            output,
            report["settings"]["truncate"].as_str().unwrap().to_owned(),
            report["train"]["final_loss"].clone(),
        )
    };
    let (head, said, head_loss) = model("head", &[]);
    assert_eq!(said, "head");
    let (tail, said, tail_loss) = model("tail", &["--truncate", "tail"]);
    assert!(said == "tail" && tail_loss != head_loss);
    let long = format!("{}awful awful awful", "wonderful great film ".repeat(200));
    let predict = |model: &Path, more: &[&str], text: &str| {
        let output = vitrine(&[&["predict", "--model", path(model), "--json"], more, &[text]].concat());
        assert!(output.status.success());
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (found["logits"].to_string(), crate::common::text(&output.stderr))
    };
    // 128 positions: the last 126 words of a text of words that are tokens.
    let words: Vec<&str> = long.split_whitespace().collect();
    let last = words[words.len() - 126..].join(" ");
    let (remembered, said) = predict(&tail, &[], &long);
    assert!(said.is_empty(), "{said}");
    assert_eq!(remembered, predict(&tail, &["--truncate", "head"], &last).0);
    let (other, said) = predict(&tail, &["--truncate", "head"], &long);
    assert!(other != remembered && said.contains("was trained with tail"), "{said}");
    assert_eq!(other, predict(&tail, &[], &words[..126].join(" ")).0);
    // Training goes on as the model remembers.
    let data = folder.path().join("more.csv");
    std::fs::write(&data, "text,label\ngood film,positive\nbad film,negative\n").unwrap();
    let output = folder.path().join("further");
    let options = [
        "train",
        "--model",
        path(&tail),
        "--data",
        path(&data),
        "--epochs",
        "1",
        "--output",
        path(&output),
        "--json",
    ];
    let report: serde_json::Value = serde_json::from_str(&succeed(&options)).unwrap();
    assert_eq!(report["settings"]["truncate"], "tail");
    let said = vitrine(&["predict", "--model", path(&tail), &long]);
    assert!(text(&said.stderr).contains("only the last 128 tokens"), "{}", text(&said.stderr));
    refuse(
        2,
        &["predict", "--model", path(&head), "--truncate", "middle", "x"],
        &["--truncate", "head-tail"],
    );
}
