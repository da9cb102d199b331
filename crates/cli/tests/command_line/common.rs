//! Running the binary, and what every misuse must look like.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use tempfile::TempDir;

/// Runs the binary on the CPU.
pub fn vitrine(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .args(arguments)
        .env_remove("VITRINE_ISA")
        // Not the cache of whoever runs the tests.
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        // Nothing is downloaded, and the cache of whoever runs the tests is left alone.
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/huggingface"))
        .env_remove("HF_HUB_CACHE")
        .env_remove("HUGGINGFACE_HUB_CACHE")
        // These tests are about the CPU, also where there is a CUDA device.
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .expect("the binary was built with the tests")
}

/// Output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a run that must succeed.
pub fn succeed(arguments: &[&str]) -> String {
    let output = vitrine(arguments);
    assert!(output.status.success(), "{arguments:?} failed:\n{}", text(&output.stderr));
    text(&output.stdout)
}

/// Asserts the exit code, that the last line of standard error says each of `words`, and that nothing panicked.
pub fn refuse(code: i32, arguments: &[&str], words: &[&str]) {
    refused(code, arguments, words, &vitrine(arguments));
}

/// The same of a program that has run.
pub fn refused(code: i32, arguments: &[&str], words: &[&str], output: &Output) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}:\n{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("backtrace"), "{arguments:?}:\n{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.contains("error:")).collect();
    assert_eq!(errors.len(), 1, "one line says what is wrong:\n{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?}: expected {word:?} in\n{stderr}");
    }
}

/// A path as an argument.
pub fn path(path: &Path) -> &str {
    path.to_str().expect("temporary folders have UTF-8 names")
}

/// A model of two layers with random weights, whose vocabulary is that of the built-in reviews: quick to train.
pub fn tiny() -> &'static str {
    static TINY: LazyLock<String> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (config, model) = (folder.join("tiny.json"), folder.join("tiny"));
        let sizes = r#"{"model_type": "bert", "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 512, "max_position_embeddings": 128}"#;
        std::fs::write(&config, sizes).expect("a file is written");
        succeed(&["init", "--config", path(&config), "--output", path(&model), "--overwrite"]);
        path(&model).to_owned()
    });
    &TINY
}

/// A short training run on the built-in reviews.
pub fn train(folder: &Path, more: &[&str]) -> serde_json::Value {
    let rows = ["--train-samples", "64", "--test-samples", "32", "--batch-size", "16", "--epochs", "1"];
    let start = if more.contains(&"--model") { &[][..] } else { &["--model", tiny()] };
    let rate =
        if more.iter().any(|word| ["--lr", "--config"].contains(word)) { &[][..] } else { &["--lr", "1e-3"] };
    let always = ["train", "--output", path(folder), "--json"];
    let stdout = succeed(&[&always[..], start, rate, &rows[..], more].concat());
    serde_json::from_str(&stdout).expect("--json prints one object")
}

/// A folder with a small trained model in it.
pub fn model() -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a temporary folder");
    let model = folder.path().join("model");
    train(&model, &[]);
    (folder, model)
}

/// The names in a folder, and what they hold.
pub fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect()
}
