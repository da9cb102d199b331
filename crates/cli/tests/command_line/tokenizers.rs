//! Tokenizers as checkpoints carry them, and as saved models keep them.

use crate::common::{model, path, refuse, succeed, text, vitrine};
use std::fs;

#[test]
fn what_a_tokenizer_is_not_ends_in_one_line() {
    let (_folder, model) = model();
    let predict = ["predict", "--model", path(&model), "good"];
    let file = |name: &str| model.join(name);
    let (saved, settings) =
        (fs::read(file("tokenizer.json")).unwrap(), fs::read(file("tokenizer_config.json")).unwrap());
    for (name, content, words) in [
        ("tokenizer.json", r#"{"version":"1.0","decoder":"#, &["tokenizer.json"][..]),
        (
            "tokenizer.json",
            "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
            &["git lfs pull"],
        ),
        (
            "tokenizer_config.json",
            r#"{"do_lower_case": "true"}"#,
            &["tokenizer_config.json", "do_lower_case"],
        ),
        ("tokenizer_config.json", r#"{"tokenizer_class": "RobertaTokenizer"}"#, &["RobertaTokenizer"]),
    ] {
        fs::write(file(name), content).unwrap();
        refuse(1, &predict, words);
        fs::write(file("tokenizer.json"), &saved).unwrap();
        fs::write(file("tokenizer_config.json"), &settings).unwrap();
    }
    succeed(&predict);
}

#[test]
fn a_note_says_which_file_counts() {
    let (_folder, model) = model();
    fs::write(model.join("tokenizer_config.json"), r#"{"do_lower_case": false}"#).unwrap();
    let output = vitrine(&["predict", "--model", path(&model), "good"]);
    let stderr = text(&output.stderr);
    assert!(output.status.success() && stderr.contains("do_lower_case = false"), "{stderr}");
}
