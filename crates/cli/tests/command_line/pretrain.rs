//! `vitrine pretrain` and `vitrine fill-mask`: a short run from texts to a fine-tuned classifier, stopped and resumed runs, misuse.

use super::common::{path, refuse, snapshot, succeed, text, vitrine};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A folder with texts, a line each: what follows `the` depends on what stands before it.
fn texts() -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("reviews.txt");
    let (films, verdicts) =
        (["film", "story", "acting", "music"], ["wonderful", "terrible", "boring", "brilliant"]);
    let line = |i: usize| {
        let (film, verdict) = (films[i % 4], verdicts[i / 4 % 4]);
        format!(
            "the {film} was {verdict} and i {} it <br />the end was {verdict} too",
            ["love", "hate", "hate", "love"][i / 4 % 4]
        )
    };
    let lines: Vec<String> = (0..600).map(|i| line(i * 7 + i / 16)).collect();
    fs::write(&file, lines.join("\n")).expect("a file");
    (folder, file)
}

fn config(folder: &Path) -> PathBuf {
    let file = folder.join("tiny.json");
    let text = r#"{"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 64, "vocab_size": 1}"#;
    fs::write(&file, text).expect("a file");
    file
}

/// The arguments of a short run.
fn arguments<'a>(data: &'a Path, config: &'a Path, output: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = [
        "--vocab-size",
        "120",
        "--max-length",
        "32",
        "--batch-tokens",
        "512",
        "--held-out",
        "0.05",
        "--lr",
        "0.003",
    ];
    let named = ["pretrain", "--data", path(data), "--config", path(config), "--output", path(output)];
    [&named[..], &fixed[..], more].concat()
}

fn lines(output: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(output.join("metrics.jsonl")).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

/// The log without what a clock says.
fn without_seconds(output: &Path) -> Vec<serde_json::Value> {
    let mut all = lines(output);
    for line in &mut all {
        line.as_object_mut().unwrap().remove("seconds");
        if let Some(eval) = line.get_mut("eval").and_then(serde_json::Value::as_object_mut) {
            eval.remove("seconds");
        }
    }
    all
}

#[test]
fn from_texts_to_a_classifier() {
    let (folder, data) = texts();
    let config = config(folder.path());
    let output = folder.path().join("model");
    let report =
        succeed(&arguments(&data, &config, &output, &["--epochs", "8", "--eval-every", "40", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&report).expect("one object");
    assert_eq!((&report["state"], &report["data"]["documents"]), (&"finished".into(), &600.into()));
    let held_out = report["data"]["held_out_documents"].as_u64().unwrap();
    assert!((8..70).contains(&held_out), "{held_out}");
    let steps = report["settings"]["steps"].as_u64().unwrap() as usize;
    assert!(report["eval"]["loss"].as_f64().unwrap() < report["data"]["unigram_entropy"].as_f64().unwrap());
    let files = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "vocab.txt",
        "tokenizer_config.json",
        "run.json",
        "metrics.jsonl",
    ];
    files.iter().for_each(|file| assert!(output.join(file).is_file(), "{file} is missing"));
    assert!(!output.join("checkpoints").exists());
    let saved: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(output.join("config.json")).unwrap()).unwrap();
    assert_eq!(saved["architectures"], serde_json::json!(["BertForMaskedLM"]));
    // Fine-tuning has the config's dropout, though pretraining had none.
    assert_eq!(saved["hidden_dropout_prob"], 0.1);
    assert_eq!(
        fs::read_to_string(output.join("vocab.txt")).unwrap().lines().take(5).collect::<Vec<_>>(),
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    );
    let lines = lines(&output);
    assert_eq!(lines.iter().filter(|line| line.get("loss").is_some()).count(), steps);
    let evaluations: Vec<u64> = lines
        .iter()
        .filter(|line| line.get("eval").is_some())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(evaluations.len(), steps.div_ceil(40));
    for key in ["step", "epoch", "loss", "lr", "grad_norm", "tokens", "seconds"] {
        assert!(lines[0][key].is_number(), "{key} is missing");
    }

    // The model has learned the language: after "the", one of four words.
    let answer = succeed(&[
        "fill-mask",
        "--model",
        path(&output),
        "--json",
        "--top-k",
        "4",
        "the [MASK] was boring and i [MASK] it",
    ]);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("one object");
    let masks = answer["masks"].as_array().unwrap();
    assert_eq!(masks.len(), 2);
    let films: Vec<&str> =
        masks[0].as_array().unwrap().iter().map(|guess| guess["token"].as_str().unwrap()).collect();
    assert!(["film", "story", "acting", "music"].iter().all(|film| films.contains(film)), "{answer}");
    assert_eq!(masks[1][0]["token"], "hate");
    assert_eq!(masks[1][0]["sequence"], "the [MASK] was boring and i hate it");
    let sum: f64 = masks[0].as_array().unwrap().iter().map(|guess| guess["score"].as_f64().unwrap()).sum();
    assert!(sum > 0.5 && sum <= 1.0001, "{sum}");
    let shown = succeed(&["fill-mask", "--model", path(&output), "the film was [MASK]"]);
    assert!(shown.starts_with(" score  token") && shown.lines().count() == 7, "{shown}");
    refuse(2, &["fill-mask", "--model", path(&output), "no mask here"], &["no [MASK] in the text"]);
    let long = format!("[MASK] {} [MASK]", "film ".repeat(80));
    refuse(1, &["fill-mask", "--model", path(&output), &long], &["2 [MASK]", "1 lie within"]);

    // Its layers go into a classifier with a new head, and on into another pretraining.
    let csv = folder.path().join("labelled.csv");
    let rows: Vec<String> = (0..40)
        .map(|i| ["the film was wonderful,pos", "the film was terrible,neg"][i % 2].to_owned())
        .collect();
    fs::write(&csv, format!("text,label\n{}", rows.join("\n"))).unwrap();
    let classifier = folder.path().join("classifier");
    let trained = vitrine(&[
        "train",
        "--model",
        path(&output),
        "--data",
        path(&csv),
        "--output",
        path(&classifier),
        "--epochs",
        "1",
    ]);
    assert!(trained.status.success(), "{}", text(&trained.stderr));
    assert!(
        text(&trained.stderr).contains("new, to be trained: bert.pooler.dense"),
        "{}",
        text(&trained.stderr)
    );
    refuse(1, &["fill-mask", "--model", path(&classifier), "a [MASK]"], &["no masked-language-model head"]);
    let second = folder.path().join("second");
    let more = [
        "pretrain",
        "--data",
        path(&data),
        "--init-from",
        path(&output),
        "--output",
        path(&second),
        "--max-length",
        "32",
        "--steps",
        "2",
    ];
    let again = vitrine(&more);
    assert!(again.status.success(), "{}", text(&again.stderr));
    let said = text(&again.stderr);
    assert!(said.contains("bert.encoder.layer.1") && said.contains("rows taken"), "{said}");
    let loss = |output: &Path| {
        self::lines(output).into_iter().find(|line| line.get("loss").is_some()).unwrap()["loss"]
            .as_f64()
            .unwrap()
    };
    assert!(loss(&second) < 0.7 * loss(&output), "continued pretraining begins where the other ended");
}

/// Any number of kills changes nothing: weights and log are those of the run that was left alone.
#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let (folder, data) = texts();
    let config = config(folder.path());
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let more = ["--steps", "60", "--save-every", "7", "--eval-every", "10", "--dropout", "0.1"];
    succeed(&arguments(&data, &config, &whole, &more));
    let resume = [&more[..], &["--resume"]].concat();
    let mut ends = Vec::new();
    for (attempt, signal) in [libc::SIGKILL, libc::SIGTERM, libc::SIGKILL].into_iter().enumerate() {
        let mut run = Command::new(env!("CARGO_BIN_EXE_vitrine"))
            .args(arguments(&data, &config, &killed, &resume))
            .args(["--threads", ["1", "2", "3"][attempt]])
            .env("CUDA_VISIBLE_DEVICES", "")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built with the tests");
        // Until its log has grown by a few steps.
        let count = || fs::read_to_string(killed.join("metrics.jsonl")).map_or(0, |log| log.lines().count());
        let goal = 12 + 14 * attempt;
        for _ in 0..2000 {
            if count() >= goal || run.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // SAFETY: a signal to a child that has not been waited for; its number is still its own.
        unsafe { libc::kill(run.id() as libc::pid_t, signal) };
        let output = run.wait_with_output().unwrap();
        ends.push(output.status);
        if signal == libc::SIGTERM && !output.status.success() {
            let said = text(&output.stderr);
            assert!(said.contains("interrupted after step") && said.contains("--resume"), "{said}");
        }
        if attempt == 0 && !output.status.success() {
            // What is left is no model, and no other run overwrites it.
            refuse(1, &["fill-mask", "--model", path(&killed), "a [MASK]"], &[]);
            let fresh = arguments(&data, &config, &killed, &more);
            refuse(2, &fresh, &["unfinished run", "--resume"]);
            let other = [&resume[..], &["--seed", "7"]].concat();
            let output = vitrine(&arguments(&data, &config, &killed, &other));
            assert_eq!(output.status.code(), Some(1));
            assert!(text(&output.stderr).contains("seed"), "{}", text(&output.stderr));
        }
    }
    assert!(ends.iter().any(|end| !end.success()), "no run was stopped before its end");
    succeed(&arguments(&data, &config, &killed, &resume));
    let weights = |output: &Path| fs::read(output.join("model.safetensors")).expect("a model");
    assert!(weights(&whole) == weights(&killed), "other weights");
    assert_eq!(without_seconds(&whole), without_seconds(&killed));
    let before = snapshot(&killed);
    let done = vitrine(&arguments(&data, &config, &killed, &resume));
    assert!(done.status.success() && text(&done.stderr).contains("has finished"), "{}", text(&done.stderr));
    assert!(snapshot(&killed) == before, "a finished run was changed");
}

#[test]
fn misuse_of_pretrain() {
    let (folder, data) = texts();
    let config = config(folder.path());
    let output = folder.path().join("out");
    let test = folder.path().join("imdb_test.txt");
    fs::copy(&data, &test).unwrap();
    refuse(1, &arguments(&test, &config, &output, &[]), &["test data", "another name"]);
    for (length, words) in [("65", "64 positions"), ("2", "no room for text")] {
        let named = ["pretrain", "--data", path(&data), "--config", path(&config), "--output", path(&output)];
        refuse(2, &[&named[..], &["--max-length", length]].concat(), &["--max-length", words]);
    }
    let few = ["pretrain", "--data", path(&data), "--output", path(&output), "--vocab-size", "20"];
    refuse(1, &few, &["20 tokens are too few"]);
    let nothing = folder.path().join("nothing.txt");
    fs::write(&nothing, "\n \n").unwrap();
    refuse(1, &arguments(&nothing, &config, &output, &[]), &["no words"]);
    let missing = folder.path().join("missing.txt");
    refuse(1, &arguments(&missing, &config, &output, &[]), &["missing.txt"]);
    for more in [["--epochs", "2", "--steps", "3"], ["--steps", "3", "--minutes", "1"]] {
        let output = vitrine(&arguments(&data, &config, &output, &more));
        assert_eq!(output.status.code(), Some(2));
    }
    for (option, value) in
        [("--mask-share", "0"), ("--mask-share", "1"), ("--eval-every", "0"), ("--steps", "0")]
    {
        refuse(2, &arguments(&data, &config, &output, &[option, value]), &[option]);
    }
    let narrow = arguments(&data, &config, &output, &["--distill-from", "embedded"]);
    refuse(1, &narrow, &["--distill-from", "384 numbers"]);
    refuse(2, &arguments(&data, &config, &output, &["--distill-hidden", "1"]), &["--distill-from"]);
    assert!(!output.exists(), "a refused run leaves nothing");
}

/// A model learns from a larger one: it says so, and run.json has it.
#[test]
fn a_teacher_counts() {
    let (folder, data) = texts();
    let output = folder.path().join("out");
    let start =
        ["--init-from", "embedded", "--init-layers", "1", "--distill-from", "embedded", "--steps", "2"];
    let given = ["pretrain", "--data", path(&data), "--output", path(&output), "--batch-tokens", "256"];
    let ran = vitrine(&[&given[..], &start, &["--max-length", "32"]].concat());
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert!(text(&ran.stderr).contains("hidden states of embedded count, too"), "{}", text(&ran.stderr));
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(output.join("run.json")).unwrap()).unwrap();
    assert_eq!(report["settings"]["distill_from"], "embedded");
    assert_eq!(report["settings"]["distill_hidden"], 10.0);
    succeed(&["fill-mask", "--model", path(&output), "a [MASK]"]);
}

/// A folder: its training and unlabelled texts, and never those of its test split.
#[test]
fn a_folder_is_read_without_its_test_data() {
    let (folder, data) = texts();
    let config = config(folder.path());
    let set = folder.path().join("set");
    fs::create_dir(&set).unwrap();
    let lines = fs::read_to_string(&data).unwrap();
    let table = |rows: &[&str]| {
        format!("text\n{}", rows.iter().map(|row| format!("\"{row}\"\n")).collect::<String>())
    };
    let rows: Vec<&str> = lines.lines().collect();
    for (name, rows) in
        [("train.csv", &rows[..50]), ("unsupervised.csv", &rows[50..90]), ("test.csv", &rows[90..])]
    {
        fs::write(set.join(name), table(rows)).unwrap();
    }
    let output = folder.path().join("out");
    let report = succeed(&arguments(&set, &config, &output, &["--minutes", "0.01", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&report).expect("one object");
    assert_eq!(report["data"]["documents"], 90);
    assert!(report["notes"][0].as_str().unwrap().contains("test data stay unread"));
    assert!(report["train"]["steps"].as_u64().unwrap() >= 1);
}
