//! A run folder with known numbers.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use vitrine_report::{Run, trace};

/// The training loss of a step.
pub fn loss_of(step: i32, seed: i32) -> f64 {
    let noise = f64::from((step * 7919 + seed * 104_729) % 97) / 97.0 - 0.5;
    0.2 + 0.5 * (-f64::from(step) / 40.0).exp() + 0.12 * noise
}

/// A finished run.
pub fn fixture(folder: &Path, steps: i32, seed: i32) -> Run {
    run_with(folder, steps, seed, |_| {})
}

/// A run whose `run.json` is changed before it is written.
pub fn run_with(folder: &Path, steps: i32, seed: i32, change: impl FnOnce(&mut Value)) -> Run {
    fs::create_dir_all(folder).unwrap();
    let mut lines = Vec::new();
    for step in 1..=steps {
        let lr =
            2e-5 * (f64::from(step) / 12.0).min(f64::from(steps - step) / f64::from(steps - 12)).max(0.0);
        let lr = if step <= 12 { 2e-5 * f64::from(step) / 12.0 } else { lr };
        let grad_norm = 3.0 - f64::from((step - 1) % 10) / 10.0;
        let epoch = 3.0 * f64::from(step) / f64::from(steps);
        let loss = loss_of(step, seed);
        lines.push(json!({"step": step, "epoch": epoch, "loss": loss, "lr": lr, "grad_norm": grad_norm, "tokens": 3000, "seconds": 1.5}));
        if step % (steps / 3) == 0 && step < steps {
            let accuracy = 0.5 + 0.4 * f64::from(step) / f64::from(steps);
            let interval = [accuracy - 0.03, accuracy + 0.03];
            lines.push(json!({"step": step, "eval": {"accuracy": accuracy, "loss": 0.45, "accuracy_interval": interval, "examples": 500}}));
        }
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(folder.join("metrics.jsonl"), text).unwrap();
    let bin = |i: usize| {
        let (rows, confidence, accuracy) = match i {
            10 => (40, json!(0.7), json!(0.62)),
            13 => (100, json!(0.93), json!(0.9)),
            14 => (360, json!(0.99), json!(0.95)),
            _ => (0, Value::Null, Value::Null),
        };
        json!({"lower": i as f64 / 15.0, "upper": (i + 1) as f64 / 15.0, "rows": rows, "confidence": confidence, "accuracy": accuracy})
    };
    let review = "This was <script>document.title = 'owned'</script><br /><img src=x onerror=alert(1)> the \"best\" film & more. ";
    let wrong = |row: usize| json!({"row": row, "label": "negative", "predicted": "positive", "probability": 0.9991, "tokens": 312, "excerpt": review.repeat(2)});
    let mut run = json!({
        "command": "train",
        "state": "finished",
        "settings": {"model": "models/minilm", "data": "data/imdb", "recipe": null, "max_length": 512, "epochs": 3, "batch_size": 16, "lr": 2e-5, "seed": seed, "profile_step": 5},
        "resolved": {"dtype": "bf16", "dtype_reason": "as asked", "device": "cpu", "device_reason": "as asked", "isa": "amx", "threads": 8},
        "machine": {"processor": "A Processor 9000 with a Long Name @ 2.4 GHz", "cores": 8, "memory_bytes": 34359738368u64, "platform": "linux x86_64", "vitrine": "0.1.0"},
        "data": [
            {"split": "train", "source": "data/imdb/train.parquet", "rows": 1000, "classes": {"negative": 500, "positive": 500}, "tokens": 250_000, "truncated": 130, "truncated_share": 0.13, "lengths": {"width": 128, "counts": [100, 400, 300, 200]}},
            {"split": "test", "source": "data/imdb/test.parquet", "rows": 500, "classes": {"negative": 250, "positive": 250}, "tokens": 120_000, "truncated": 66, "truncated_share": 0.132, "lengths": {"width": 128, "counts": [50, 200, 150, 100]}},
        ],
        "train": {"steps": steps, "seconds": 2460.0, "tokens": 750_000, "tokens_per_second": 2016.4, "mean_loss": 0.4, "final_loss": 0.3},
        "peak_rss_bytes": 1_200_000_000u64,
        "seconds_total": 2600.0,
        "eval": {
            "loss": 0.31, "accuracy": 0.88, "precision": 0.88, "recall": 0.88, "f1": 0.88, "confusion_matrix": [[220, 30], [30, 220]],
            "examples": 500, "positive_class": "positive",
            "per_class": [
                {"class": "negative", "precision": 0.88, "recall": 0.88, "f1": 0.88, "support": 250},
                {"class": "positive", "precision": 0.88, "recall": 0.88, "f1": 0.88, "support": 250},
            ],
            "accuracy_interval": [0.8485, 0.9057], "f1_interval": [0.849, 0.908], "auroc": 0.945,
            "calibration": {"expected_calibration_error": 0.0412, "bins": (0..15).map(bin).collect::<Vec<_>>()},
            "accuracy_by_length": [
                {"from": 65, "to": 128, "rows": 60, "accuracy": 0.93, "interval": [0.84, 0.97]},
                {"from": 129, "to": 256, "rows": 250, "accuracy": 0.9, "interval": [0.857, 0.932]},
                {"from": 257, "to": 512, "rows": 190, "accuracy": 0.84, "interval": [0.781, 0.886]},
            ],
            "confidently_wrong": [wrong(17), wrong(4), wrong(499)],
            "seconds": 30.0, "tokens_per_second": 4000.0,
        },
    });
    let span = |track, name: &str, start, duration| {
        let (name, scope) = (name.to_owned(), String::new());
        trace::Span { track, name, start, duration, scope, shape: vec![4] }
    };
    let spans = [
        span("forward", "linear", 0.0, 310_000.0),
        span("forward", "attention", 310_000.0, 150_000.0),
        span("forward", "dropout_add_layer_norm", 460_000.0, 40_000.0),
        span("backward", "linear", 500_000.0, 650_000.0),
        span("backward", "attention", 1_150_000.0, 260_000.0),
        span("backward", "dropout_add_layer_norm", 1_400_000.0, 50_000.0),
        span("update", "optimizer", 1_450_000.0, 45_000.0),
    ];
    let mut file = Vec::new();
    trace::write(&mut file, "vitrine train", &spans).unwrap();
    fs::write(folder.join(trace::file_name(5)), file).unwrap();
    change(&mut run);
    fs::write(folder.join("run.json"), run.to_string()).unwrap();
    Run::read(folder).unwrap()
}
