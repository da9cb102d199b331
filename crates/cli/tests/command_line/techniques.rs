//! The options of `vitrine train` for schedule, optimizer, loss and what is trained, and `vitrine replay`.

use crate::common::{path, refuse, succeed, text, tiny, train, vitrine};
use serde_json::Value;
use tempfile::TempDir;

/// A run of four steps, and what it said.
fn run(more: &[&str]) -> (TempDir, Value, String) {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("out");
    let rows = [
        "--train-samples",
        "64",
        "--test-samples",
        "16",
        "--batch-size",
        "16",
        "--epochs",
        "1",
        "--dtype",
        "f32",
    ];
    let rate = if more.contains(&"--lr") { &[][..] } else { &["--lr", "1e-3"] };
    let always = ["train", "--model", tiny(), "--output", path(&output), "--json"];
    let done = vitrine(&[&always[..], rate, &rows[..], more].concat());
    let stderr = text(&done.stderr);
    assert!(done.status.success(), "{more:?}: {stderr}");
    let report = serde_json::from_slice(&done.stdout).unwrap();
    (folder, report, stderr)
}

fn lrs(folder: &TempDir) -> Vec<f64> {
    let metrics = std::fs::read_to_string(folder.path().join("out/metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line["lr"].as_f64()).collect()
}

#[test]
fn schedules_move_the_learning_rate() {
    let polynomial =
        ["--schedule", "polynomial", "--power", "2", "--lr-end", "0", "--warmup-steps", "0", "--lr", "0.001"];
    let (folder, report, stderr) = run(&polynomial);
    for (lr, remaining) in lrs(&folder).iter().zip([1.0f64, 0.75, 0.5, 0.25]) {
        assert!((lr - 0.001 * remaining * remaining).abs() < 1e-15, "{lr}");
    }
    assert_eq!(report["settings"]["schedule"], "polynomial");
    assert_eq!(report["settings"]["power"], 2.0);
    assert!(stderr.contains("polynomial of power 2 to 0.00e0; 0 of 4 steps warm up"), "{stderr}");
    let wsd = [
        "--schedule",
        "wsd",
        "--decay-steps",
        "2",
        "--decay-shape",
        "linear",
        "--warmup-ratio",
        "0.25",
        "--lr",
        "1",
    ];
    let (folder, report, stderr) = run(&wsd);
    assert_eq!(lrs(&folder), [0.0, 1.0, 1.0, 0.5]);
    assert_eq!(report["settings"]["schedule"], "wsd");
    assert!(
        stderr.contains("wsd, 1 steps at the peak and 2 of decay to 0.00e0; 1 of 4 steps warm up"),
        "{stderr}"
    );
    let (_folder, report, stderr) = run(&["--schedule", "wsd", "--decay-steps", "9"]);
    assert!(stderr.contains("take more than the run's 4 steps"), "{stderr}");
    assert_eq!(report["schedule_warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn techniques_are_printed_and_stored() {
    let (_folder, report, stderr) =
        run(&["--layer-decay", "0.5", "--freeze", "embeddings", "--label-smoothing", "0.1"]);
    for words in [
        "optimizer adamw (betas 0.9 and 0.999, eps 1e-8); weight decay 0.01 on 10 matrices",
        "are trained",
        "frozen: embeddings",
        "head 1.0000, layer 1 0.5000, layer 0 0.2500, embeddings 0.1250",
        "label smoothing 0.1",
    ] {
        assert!(stderr.contains(words), "expected {words:?} in {stderr}");
    }
    assert_eq!(report["settings"]["layer_decay"], 0.5);
    assert_eq!(report["settings"]["freeze"], "embeddings");
    assert_eq!(report["settings"]["label_smoothing"], 0.1);
    assert_eq!(report["settings"]["optimizer"], "adamw");
    assert_eq!(report["groups"]["places"][0]["trained"], 0);
    assert_eq!(report["training_warnings"], serde_json::json!([]));
    let (_folder, report, stderr) =
        run(&["--optimizer", "sgd", "--class-weights", "balanced", "--ema", "0.9", "--reinit-layers", "2"]);
    for words in [
        "optimizer sgd (momentum 0.9)",
        "class weights, in the loss of training alone: negative 1.0000, positive 1.0000",
        "decay 0.9 (about 10 steps): it is evaluated and saved; the run is shorter",
        "layers 0 to 1 and the pooler start from random weights",
    ] {
        assert!(stderr.contains(words), "expected {words:?} in {stderr}");
    }
    assert_eq!(report["settings"]["class_weights"], serde_json::json!([1.0, 1.0]));
}

/// What is evaluated is what is saved: `vitrine eval` finds the same.
#[test]
fn the_averaged_and_the_merged_weights_are_saved() {
    for technique in [&["--ema", "0.5"][..], &["--lora-rank", "4", "--lr", "0.01"]] {
        let folder = TempDir::new().unwrap();
        let (model, data) = (folder.path().join("model"), folder.path().join("data.csv"));
        let rows: String =
            (0..12).map(|i| format!("a {} film,{}\n", ["bad", "good"][i % 2], i % 2)).collect();
        std::fs::write(&data, format!("text,label\n{rows}")).unwrap();
        let base = folder.path().join("base");
        train(&base, &[]);
        let data = path(&data);
        let options = [
            "--output",
            path(&model),
            "--data",
            data,
            "--test-data",
            data,
            "--epochs",
            "2",
            "--batch-size",
            "4",
        ];
        let stdout = succeed(
            &[&["train", "--json", "--dtype", "f32", "--model", path(&base)], &options[..], technique]
                .concat(),
        );
        let report: Value = serde_json::from_str(&stdout).unwrap();
        let eval = succeed(&["eval", "--model", path(&model), "--data", data, "--json", "--dtype", "f32"]);
        let eval: Value = serde_json::from_str(&eval).unwrap();
        let loss =
            |value: &Value| value["loss"].as_f64().unwrap_or_else(|| value["eval"]["loss"].as_f64().unwrap());
        assert!((loss(&report["eval"]) - loss(&eval)).abs() < 1e-6, "{technique:?}: {report} {eval}");
        assert_eq!(model.join("adapter/adapter_model.safetensors").exists(), technique[0] == "--lora-rank");
        // Another run in the same place takes the adapter with it.
        let options = [&options[..], &["--overwrite", "--model", path(&base)]].concat();
        succeed(&[&["train"], &options[..]].concat());
        assert!(!model.join("adapter").exists());
    }
}

#[test]
fn a_step_that_breaks_is_replayed() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("out");
    let rows =
        ["--train-samples", "64", "--batch-size", "16", "--epochs", "1", "--dtype", "f32", "--lr", "1e30"];
    let done = vitrine(&[&["train", "--model", tiny(), "--output", path(&output)], &rows[..]].concat());
    let stderr = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    for words in
        ["step 3: the loss is NaN", "`encoder.layer.0.attention` made the first number", "vitrine replay"]
    {
        assert!(stderr.contains(words), "expected {words:?} in {stderr}");
    }
    assert!(!output.join("model.safetensors").exists());
    let stdout = succeed(&["replay", path(&output.join("replay"))]);
    assert!(stdout.contains("step 3, 16 rows: linear in `encoder.layer.0.attention`"), "{stdout}");
    assert!(stdout.contains("the run found the same"), "{stdout}");
    let json: Value = serde_json::from_str(&succeed(&["replay", path(&output), "--json"])).unwrap();
    assert_eq!(json["same"], true);
    refuse(1, &["replay", path(folder.path())], &["no step is saved there"]);
    std::fs::write(output.join("replay/step.json"), "{}").unwrap();
    refuse(1, &["replay", path(&output)], &["step.json", "not a saved step"]);
}

#[test]
fn nonsense_is_refused() {
    let cases: &[(&[&str], &str)] = &[
        (&["--power", "2"], "--schedule polynomial"),
        (&["--decay-steps", "2"], "--schedule wsd"),
        (&["--schedule", "polynomial", "--lr-end", "1"], "not below the peak"),
        (&["--schedule", "polinomial"], "polynomial"),
        (&["--momentum", "0.5"], "--optimizer sgd"),
        (&["--optimizer", "sgd", "--adam-beta1", "0.5"], "--optimizer adamw"),
        (&["--freeze", "0-7"], "layers 0 to 1"),
        (&["--freeze", "top"], "embeddings"),
        (&["--reinit-layers", "3"], "2 layers"),
        (&["--layer-decay", "1.5"], "at most 1"),
        (&["--label-smoothing", "1"], "below 1"),
        (&["--class-weights", "1,2,3"], "3 weights for 2 classes"),
        (&["--class-weights", "1,0"], "above 0"),
        (&["--ema", "1"], "below 1"),
        (&["--lora-rank", "999"], "smaller side"),
        (&["--lora-rank", "4", "--lora-targets", "q_proj"], "self.query"),
        (&["--lora-targets", "query"], "--lora-rank"),
    ];
    for (options, words) in cases {
        let folder = TempDir::new().unwrap();
        let output = folder.path().join("out");
        refuse(2, &[&["train", "--model", tiny(), "--output", path(&output)], *options].concat(), &[words]);
        assert!(!output.exists(), "{options:?}");
    }
}
