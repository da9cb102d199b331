//! Texts to classify, wherever they come from: a prediction for each, in order, and none for what is no text.

use crate::common::{model, path, refuse, refused, succeed, text};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn start(model: &Path, more: &[&str]) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .args(["predict", "--model", path(model)])
        .args(more)
        .env("CUDA_VISIBLE_DEVICES", "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built with the tests")
}

fn piped(model: &Path, more: &[&str], input: &[u8]) -> Output {
    let mut run = start(model, more);
    // A run that refuses its input may end before it has read all of it.
    let _ = run.stdin.take().expect("it is piped").write_all(input);
    run.wait_with_output().expect("the run ends")
}

/// The texts of the lines that were printed.
fn texts(printed: &str) -> Vec<&str> {
    printed.lines().map(|line| line.split_once('\t').expect("a class, a tab and the text").1).collect()
}

#[test]
fn standard_input_is_answered_line_by_line() {
    let (_folder, model) = model();
    for more in [&["-"][..], &[], &["--file", "-"]] {
        let mut run = start(&model, more);
        let mut input = run.stdin.take().expect("it is piped");
        let mut output = BufReader::new(run.stdout.take().expect("it is piped"));
        // Each answer comes while the other end is still open.
        for sent in ["a fine film", "", "a dull film"] {
            writeln!(input, "{sent}").expect("the run reads");
            let mut line = String::new();
            output.read_line(&mut line).expect("an answer");
            assert!(line.ends_with(&format!("\t{sent}\n")), "{line:?}");
        }
        drop(input);
        let ended = run.wait_with_output().expect("the run ends");
        assert!(ended.status.success(), "{}", text(&ended.stderr));
    }
}

#[test]
fn a_line_is_a_text_whatever_is_in_it() {
    let (folder, model) = model();
    let lines = "\u{feff}first\r\n\r\n  \n{no json}\n\"quoted\"\n-\nlast without an end";
    let expected = ["first", "", "  ", "{no json}", "\"quoted\"", "-", "last without an end"];
    let output = piped(&model, &["-"], lines.as_bytes());
    assert_eq!(texts(&text(&output.stdout)), expected, "{}", text(&output.stderr));
    let file = folder.path().join("texts.txt");
    std::fs::write(&file, lines).expect("a file is written");
    assert_eq!(texts(&succeed(&["predict", "--model", path(&model), "--file", path(&file)])), expected);
    let many: String = (0..100).map(|n| format!("text {n}\n")).collect();
    let output = piped(&model, &[], many.as_bytes());
    assert_eq!(texts(&text(&output.stdout)).len(), 100);
    let json = "{\"text\": \"a\\nb\"}\n{\"other\": 1, \"text\": \"c\"}\n";
    let output = piped(&model, &["-", "--json"], json.as_bytes());
    assert_eq!(text(&output.stdout).lines().count(), 2, "{}", text(&output.stderr));
}

#[test]
fn a_table_is_read_as_one() {
    let (folder, model) = model();
    let review = "\"The cast was excellent.\nSecond paragraph.\"";
    let files = [
        ("r.csv", format!("text,label\npoor,0\n{review},1\nboring,0\n")),
        ("r.tsv", "text\tlabel\npoor\t0\nThe cast was excellent. Second paragraph.\t1\nboring\t0\n".to_owned()),
        ("r.jsonl", "{\"text\": \"poor\"}\n{\"text\": \"The cast was excellent.\\nSecond paragraph.\"}\n{\"text\": \"boring\"}\n".to_owned()),
        ("r.json", "[\n {\"text\": \"poor\"},\n {\"text\": \"The cast was excellent.\\nSecond paragraph.\"},\n {\"text\": \"boring\"}\n]".to_owned()),
    ];
    for (name, content) in files {
        let file = folder.path().join(name);
        std::fs::write(&file, content).expect("a file is written");
        let printed = succeed(&["predict", "--model", path(&model), "--file", path(&file)]);
        assert_eq!(
            texts(&printed),
            ["poor", "The cast was excellent. Second paragraph.", "boring"],
            "{name}"
        );
    }
    let file = folder.path().join("other.csv");
    std::fs::write(&file, "body,stars\nfine,5\n").expect("a file is written");
    let arguments = ["predict", "--model", path(&model), "--file", path(&file)];
    refuse(1, &arguments, &["other.csv", "no text column", "`body`", "--text-column"]);
    assert_eq!(texts(&succeed(&[&arguments[..], &["--text-column", "body"]].concat())), ["fine"]);
}

/// Whoever names a file means what is in it, and one text would be answered with exit code 0.
#[test]
fn the_name_of_a_file_is_no_text() {
    let (folder, model) = model();
    let file = folder.path().join("reviews.csv");
    std::fs::write(&file, "text\na fine film\n").unwrap();
    let (model, file) = (path(&model), path(&file));
    for start in [&["predict"][..], &["explain", "attributions"], &["trace"], &["fill-mask"]] {
        let with = |name| [start, &["--model", model, name]].concat();
        refuse(2, &with(file), &["a file has this name", "--file"]);
        refuse(2, &with("nowhere/Reviews.TXT"), &["a file's name, and it is not there", "--file"]);
    }
    refuse(2, &["look", model, file], &["a file has this name"]);
    // Words around it, or a pipe, make a text of it.
    let spoken = "i saw plot.txt";
    assert_eq!(texts(&succeed(&["predict", "--model", model, spoken])), [spoken]);
    assert_eq!(texts(&succeed(&["predict", "--model", model, "--file", file])), ["a fine film"]);
    let piped = piped(Path::new(model), &["-"], b"reviews.csv\n");
    assert_eq!(texts(&text(&piped.stdout)), ["reviews.csv"]);
}

#[test]
fn what_is_no_text_is_refused() {
    let (_folder, model) = model();
    let none = piped(&model, &[], b"");
    refused(2, &["predict"], &["no text", "TEXT", "--file", "standard input"], &none);
    for table in
        ["text,label\ngood,1\n", "\"id\",\"review\"\n1,good\n", "label\ttext\n1\tgood\n", "text;label\nx;1\n"]
    {
        let output = piped(&model, &["-"], table.as_bytes());
        refused(1, &["predict", "-"], &["standard input", "header of a table", "--file"], &output);
        assert!(output.stdout.is_empty());
    }
    let output = piped(&model, &["-"], b"good\n\xff\xfe\n");
    refused(1, &["predict", "-"], &["standard input:2", "UTF-8"], &output);
}
