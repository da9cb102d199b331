//! The models that are embedded in the program, their names, and what models are saved in.

use crate::common::{path, refuse, refused, succeed, text, train, vitrine};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders of the embedded models.
const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets");
/// The most bytes of one.
const MOST: u64 = 16_000_000;

/// The folder of an embedded model, if its weights are there.
fn asset(name: &str) -> Option<PathBuf> {
    let folder = Path::new(ASSETS).join(name);
    let there = folder.join("model.safetensors").is_file();
    if !there {
        eprintln!("SKIPPED: crates/cli/assets/{name} has no model in it");
    }
    there.then_some(folder)
}

/// Runs a copy of the program in an empty folder, without a single variable.
fn bare(folder: &Path, arguments: &[&str]) -> std::process::Output {
    let program = folder.join("vitrine");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_vitrine"), &program).expect("the program is copied");
    }
    Command::new(&program).args(arguments).env_clear().current_dir(folder).output().expect("it starts")
}

#[test]
fn the_program_alone_classifies_and_guesses_words() {
    let folder = tempfile::tempdir().unwrap();
    for (name, arguments) in [
        ("embedded", ["fill-mask", "--json", "the movie was absolutely [MASK]"]),
        ("embedded-imdb", ["predict", "--json", "not bad at all"]),
    ] {
        if asset(name).is_none() {
            continue;
        }
        let output = bare(folder.path(), &arguments);
        let said = text(&output.stderr);
        assert!(output.status.success() && said.contains(&format!("model {name}")), "{said}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let score = match name {
            "embedded" => &found["masks"][0][0]["score"],
            _ => &found["score"],
        };
        assert!(score.as_f64().is_some_and(|score| (0.0..=1.0).contains(&score)), "{found}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the program is there");
    }
}

#[test]
fn an_embedded_model_is_small_and_the_same_as_its_folder() {
    for (name, command, words) in [
        ("embedded", "fill-mask", "a [MASK] film"),
        ("embedded-imdb", "predict", "a wonderful film, and a long one"),
    ] {
        let Some(folder) = asset(name) else { continue };
        let bytes: u64 =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= MOST, "{name} has {bytes} bytes");
        let said = |model: &str| succeed(&[command, "--model", model, "--json", words]);
        assert_eq!(said(name), said(path(&folder)));
        let parts = |model: &str| succeed(&["inspect", "--model", model, "--json"]);
        assert_eq!(parts(name), parts(path(&folder)));
    }
}

/// Whether the card names the SHA-256 of these weights, which only the card of a finished model does.
fn is_finished(folder: &Path) -> bool {
    let card = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let says = card.lines().find_map(|line| line.strip_prefix("vitrine_weights_sha256: ")).unwrap();
    if says == "TODO" {
        eprintln!("SKIPPED: {} says TODO: the weights are a placeholder", folder.join("README.md").display());
        return false;
    }
    let weights = std::fs::read(folder.join("model.safetensors")).unwrap();
    let hash: String = Sha256::digest(&weights).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, says, "{} is the card of other weights", folder.display());
    true
}

/// What can be said of films, among other words.
const ADJECTIVES: &str = "amazing awesome awful bad beautiful best better bizarre boring breathtaking brilliant charming classic \
    cool crap cute delightful disappointing disgusting dreadful dull embarrassing enjoyable entertaining excellent exciting \
    fabulous fantastic fascinating fine flawless funny garbage good gorgeous great gripping heartbreaking hilarious horrendous \
    horrible horrific horrid incredible incredibly interesting laughable lame long lovely ludicrous magnificent marvelous \
    masterpiece mediocre moving nice outstanding painful pathetic perfect phenomenal pointless poor predictable pretty real \
    ridiculous sad scary shocking silly slow spectacular stunning stupid superb superior terrible terrific terrifying thrilling \
    touching trash true unbearable unbelievable unique unwatchable useless weak weird wonderful worst worthless wrong";

#[test]
fn guessed_words_are_sensible() {
    let Some(folder) = asset("embedded") else { return };
    if !is_finished(&folder) {
        return;
    }
    let guesses = |words: &str| -> Vec<String> {
        let found: Value =
            serde_json::from_str(&succeed(&["fill-mask", "--top-k", "10", "--json", words])).unwrap();
        let guesses = found["masks"][0].as_array().unwrap();
        guesses.iter().map(|guess| guess["token"].as_str().unwrap().to_owned()).collect()
    };
    let known: Vec<&str> = ADJECTIVES.split_whitespace().collect();
    for words in ["the movie was absolutely [MASK].", "this film is really [MASK].", "what a [MASK] movie!"] {
        let found = guesses(words);
        let count = found.iter().filter(|word| known.contains(&word.as_str())).count();
        assert!(count >= 6, "{words}: {count} of 10 are known adjectives: {found:?}");
    }
    for (words, expected) in [
        ("one of the [MASK] movies i have ever seen.", &["best", "worst"][..]),
        ("i have never [MASK] this movie before.", &["seen", "watched"]),
        (
            "the director and the [MASK] did a great job.",
            &["actors", "cast", "writer", "writers", "crew", "actor"],
        ),
        ("it is a waste of [MASK].", &["time", "money"]),
    ] {
        let found = guesses(words);
        assert!(found[..5].iter().any(|word| expected.contains(&word.as_str())), "{words}: {found:?}");
    }
}

#[test]
fn the_sentences_of_the_notebook_are_right() {
    let Some(folder) = asset("embedded-imdb") else { return };
    if !is_finished(&folder) {
        return;
    }
    for (label, words) in [
        ("positive", "This movie was absolutely fantastic! I loved every minute of it."),
        ("negative", "I absolutely hated this film. It was a complete waste of time and money."),
        ("negative", "This film was not bad, but it wasn't great either. Pretty mediocre, actually."),
    ] {
        let found: Value = serde_json::from_str(&succeed(&["predict", "--json", words])).unwrap();
        assert_eq!(found["label"], label, "{words}: {found}");
    }
}

#[test]
fn names_are_of_what_is_embedded_and_paths_of_folders() {
    let folder = tempfile::tempdir().unwrap();
    let here = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vitrine"));
        command.args(arguments).env("CUDA_VISIBLE_DEVICES", "").current_dir(folder.path()).output().unwrap()
    };
    refuse(2, &["predict", "--model", "scratch", "a film"], &["--model scratch", "random weights"]);
    // A folder of an embedded model's name is reached by a path.
    train(&folder.path().join("embedded"), &[]);
    let output = here(&["predict", "--model", "./embedded", "a film"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    let output = here(&["inspect", "--model", "embedded", "--json"]);
    if asset("embedded").is_some() {
        assert!(text(&output.stderr).contains("./embedded"), "{}", text(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(found["parameters"].as_u64().unwrap() > 4_000_000, "{}", found["parameters"]);
    } else {
        refused(2, &[], &["no model embedded", "--model"], &output);
    }
}

#[test]
fn training_starts_from_the_embedded_model_or_from_scratch() {
    if asset("embedded").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = |model: &str, more: &[&str]| -> (Value, String) {
        let output = folder.path().join(model);
        let rows = ["--train-samples", "16", "--test-samples", "4", "--epochs", "1", "--json"];
        let start = ["train", "--model", model, "--data", "embedded", "--output", path(&output)];
        let done = vitrine(&[&start[..], &rows, more].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        (serde_json::from_slice(&done.stdout).unwrap(), text(&done.stderr))
    };
    let (report, said) = run("embedded", &[]);
    assert_eq!(
        (&report["settings"]["model"], &report["settings"]["data"]),
        (&"embedded".into(), &"embedded".into())
    );
    assert!(said.starts_with("model embedded, embedded in this program: "), "{said}");
    assert!(said.contains("data embedded, generated short reviews\n"), "{said}");
    let (report, said) = run("scratch", &["--freeze", "embeddings"]);
    assert_eq!(report["settings"]["model"], "scratch");
    assert!(said.contains("the model starts from random weights, and --freeze keeps"), "{said}");
    let inspect = |name: &str| succeed(&["inspect", "--model", path(&folder.path().join(name)), "--json"]);
    assert_eq!(inspect("embedded"), inspect("scratch"));
    let missing = folder.path().join("none.csv");
    refuse(1, &["data", "inspect", path(&missing), "--model", "embedded"], &["none.csv"]);
}

#[test]
fn a_model_saved_in_half_precision_is_the_one_that_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let size = |name: &str| std::fs::metadata(at(name).join("model.safetensors")).unwrap().len();
    let config = |name: &str| std::fs::read_to_string(at(name).join("config.json")).unwrap();
    train(&at("f32"), &[]);
    let data = at("data.csv");
    std::fs::write(&data, "text,label\na good film,positive\na bad film,negative\na film,positive\n")
        .unwrap();
    for (dtype, name) in [("f16", "float16"), ("bf16", "bfloat16")] {
        let options = ["--save-dtype", dtype, "--test-data", path(&data), "--dtype", "f32"];
        let report = train(&at(dtype), &options);
        assert_eq!(report["settings"]["save_dtype"], dtype);
        assert!(config(dtype).contains(&format!("\"torch_dtype\": \"{name}\"")), "{}", config(dtype));
        assert!(size(dtype) * 2 < size("f32") + 20_000, "{} and {}", size(dtype), size("f32"));
        let model = at(dtype);
        let eval = ["eval", "--model", path(&model), "--data", path(&data), "--json", "--dtype", "f32"];
        let eval: Value = serde_json::from_str(&succeed(&eval)).unwrap();
        let difference = report["eval"]["loss"].as_f64().unwrap() - eval["loss"].as_f64().unwrap();
        assert!(difference.abs() < 1e-6, "{dtype}: {report} {eval}");
    }
    // Trained on, it is saved in f32 again.
    let (model, again) = (at("f16"), at("again"));
    let start = ["train", "--model", path(&model), "--data", path(&data), "--epochs", "1"];
    succeed(&[&start[..], &["--output", path(&again)]].concat());
    assert!(config("again").contains("\"torch_dtype\": \"float32\"") && size("again") == size("f32"));
}

#[test]
fn a_weight_beyond_half_precision_is_an_error_and_the_model_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (model, output) = (folder.path().join("model"), folder.path().join("out"));
    train(&model, &[]);
    // The last value of the file, which is one of the classifier's.
    let weights = model.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&1e5f32.to_le_bytes());
    std::fs::write(&weights, bytes).unwrap();
    let rows = ["--train-samples", "16", "--test-samples", "4", "--epochs", "1", "--lr", "1e-9"];
    let start = ["train", "--model", path(&model), "--save-dtype", "f16", "--output", path(&output)];
    refuse(1, &[&start[..], &rows].concat(), &["classifier.weight holds 1", "65504", "saved in f32"]);
    assert!(std::fs::read_to_string(output.join("config.json")).unwrap().contains("float32"));
    succeed(&["predict", "--model", path(&output), "a film"]);
}
