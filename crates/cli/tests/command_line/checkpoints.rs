//! Model folders as they come from hubs and frameworks: weights, shards, configs.

use crate::common::{model, path, refuse, succeed, text, vitrine};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Sets a field of a folder's config.json.
fn set(folder: &Path, field: &str, value: impl Into<serde_json::Value>) {
    let file = folder.join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).expect("a config")).expect("JSON");
    config[field] = value.into();
    fs::write(file, config.to_string()).expect("a config is written");
}

/// The arguments of every command that reads a model, without those that only one of them has.
fn commands<'a>(model: &'a str, data: &'a str) -> [Vec<&'a str>; 5] {
    [
        vec!["train", "--model", model, "--data", data, "--epochs", "1", "--output", "never"],
        vec!["eval", "--model", model, "--data", data],
        vec!["predict", "--model", model, "a film"],
        vec!["inspect", "--model", model],
        vec!["trace", "--model", model, "a film"],
    ]
}

fn csv(folder: &Path) -> String {
    let file = folder.join("rows.csv");
    let rows = "a good film,1\na dull film,0\n".repeat(20);
    fs::write(&file, format!("text,label\n{rows}")).expect("rows are written");
    path(&file).to_owned()
}

#[test]
fn every_command_shows_the_table_of_keys_and_says_what_is_no_model() {
    let (folder, model) = model();
    let data = csv(folder.path());
    let above = path(folder.path()).to_owned();
    let weights = model.join("model.safetensors");
    let file = path(&weights).to_owned();
    for (name, words) in [
        ("bert-base-uncased", &["no such folder", "not in the cache", "HF_HUB_OFFLINE"][..]),
        (&above, &["the model is one folder below", path(&model)]),
        (&file, &["this is a file; pass the folder that it is in"]),
    ] {
        for arguments in commands(name, &data) {
            refuse(1, &arguments, words);
        }
    }
    // Sizes that would take terabytes: the shapes are compared first.
    set(&model, "vocab_size", 1 << 24);
    set(&model, "hidden_size", 1 << 16);
    for arguments in commands(path(&model), &data) {
        refuse(1, &arguments, &["mis-shaped", "the model needs [16777216, 65536], the file has", "more"]);
    }
    set(&model, "hidden_size", 128);
    set(&model, "num_hidden_layers", 4096);
    set(&model, "vocab_size", 100_000);
    for arguments in commands(path(&model), &data) {
        let output = vitrine(&arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("missing     and 65496 more") && stderr.lines().count() < 20, "{stderr}");
    }
    set(&model, "num_hidden_layers", 2);
    let step = [
        "bench",
        "step",
        "--config",
        path(&model),
        "--batch",
        "1",
        "--seq",
        "4",
        "--steps",
        "1",
        "--warmup",
        "0",
    ];
    let output = vitrine(&step);
    assert!(output.status.success());
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("the model needs [100000, 128]") && stderr.contains("random weights"),
        "{stderr}"
    );
    assert!(!Path::new("never").exists());
    // Without weights there is nothing to compare with.
    fs::remove_file(&weights).expect("weights are removed");
    let output = vitrine(&step);
    assert!(output.status.success() && !text(&output.stderr).contains("warning"), "{}", text(&output.stderr));
}

#[test]
fn sizes_without_weights_are_compared_with_the_memory_there_is() {
    let folder = TempDir::new().expect("a temporary folder");
    let config = folder.path().join("config.json");
    let sizes = r#"{"hidden_size": 65536, "num_attention_heads": 64, "intermediate_size": 262144, "vocab_size": 16777216,
        "num_hidden_layers": 4096, "max_position_embeddings": 65536}"#;
    fs::write(&config, sizes).expect("a config is written");
    let output = folder.path().join("model");
    refuse(
        2,
        &["init", "--config", path(&config), "--output", path(&output)],
        &["needs about", "TiB of memory"],
    );
    assert!(!output.exists());
    let step = ["bench", "step", "--config", path(&config), "--batch", "256", "--seq", "65536"];
    refuse(2, &step, &["needs about", "TiB of memory"]);
}

#[cfg(unix)]
#[test]
fn pipes_in_the_place_of_files_do_not_wait() {
    let (folder, model) = model();
    let data = csv(folder.path());
    for name in ["config.json", "model.safetensors"] {
        let file = model.join(name);
        let bytes = fs::read(&file).expect("a file");
        fs::remove_file(&file).expect("a file is removed");
        let made = Command::new("mkfifo").arg(&file).status().expect("mkfifo runs");
        assert!(made.success());
        for arguments in commands(path(&model), &data) {
            refuse(1, &arguments, &[name, "this is a pipe or a device"]);
        }
        fs::remove_file(&file).expect("a pipe is removed");
        fs::write(&file, bytes).expect("a file is written");
    }
    succeed(&["predict", "--model", path(&model), "a film"]);
}

/// Another process may cut or overwrite the weights while a model that was read from them is in use.
#[test]
fn weights_that_are_cut_after_they_were_read_change_nothing() {
    let (folder, model) = model();
    let texts = folder.path().join("texts.txt");
    let lines: String = (0..4000).map(|n| format!("a dull film of {n} minutes\n")).collect();
    fs::write(&texts, lines).expect("texts are written");
    let arguments = ["predict", "--model", path(&model), "--file", path(&texts)];
    let expected = succeed(&arguments);
    let mut run = Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .args(arguments)
        .env("CUDA_VISIBLE_DEVICES", "")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built with the tests");
    let mut stdout = BufReader::new(run.stdout.take().expect("it is piped"));
    let mut got = String::new();
    stdout.read_line(&mut got).expect("a line");
    // The pipe holds less than all lines, so most are still to be computed.
    let weights = model.join("model.safetensors");
    File::options().write(true).open(&weights).expect("weights").set_len(0).expect("weights are cut");
    stdout.read_to_string(&mut got).expect("lines");
    let ended = run.wait_with_output().expect("the run ends");
    assert!(ended.status.success(), "{:?}: {}", ended.status, text(&ended.stderr));
    assert!(got == expected, "predictions changed");
    refuse(1, &arguments, &["model.safetensors", "0 bytes"]);
}
