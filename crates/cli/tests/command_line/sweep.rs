//! `vitrine sweep`.

use crate::common::{path, refuse, refused, succeed, text, tiny, vitrine};
use serde_json::{Value, json};
use std::path::Path;

const SMALL: [&str; 6] = ["--train-samples", "64", "--test-samples", "32", "--epochs", "1"];

fn report(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("sweep.json")).unwrap()).unwrap()
}

fn run(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(name).join("run.json")).unwrap()).unwrap()
}

/// Makes of a finished run what one leaves that was killed: its report and its metrics, and no model.
fn killed(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if entry.is_file() && !["run.json", "metrics.jsonl"].contains(&name.as_str()) {
            std::fs::remove_file(&entry).unwrap();
        }
    }
    let path = folder.join("run.json");
    let mut report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    (report["state"], report["train"], report["eval"]) = ("running".into(), Value::Null, Value::Null);
    std::fs::write(path, report.to_string()).unwrap();
}

#[test]
fn every_setting_runs_with_every_seed_and_a_second_call_does_only_what_lacks() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("sweep");
    let sweep = |more: &[&str]| {
        vitrine(
            &[
                &["sweep", "--grid", "lr=1e-3,1e-4", "--model", tiny(), "--output", path(&folder), "-q"],
                &SMALL[..],
                more,
            ]
            .concat(),
        )
    };
    let output = sweep(&["--seeds", "2"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("lr=1e-3") && shown.contains("2/2") && shown.contains(" ± "), "{shown}");
    for (name, lr, seed) in [("lr=1e-3,seed=1", 1e-3, 1), ("lr=1e-4,seed=2", 1e-4, 2)] {
        let settings = &run(&folder, name)["settings"];
        assert_eq!((settings["lr"].as_f64(), settings["seed"].as_u64()), (Some(lr), Some(seed)));
    }
    let found = report(&folder);
    let accuracies: Vec<f64> = (1..=2)
        .map(|seed| run(&folder, &format!("lr=1e-3,seed={seed}"))["eval"]["accuracy"].as_f64().unwrap())
        .collect();
    let mean = found["settings"][0]["accuracy"]["mean"].as_f64().unwrap();
    assert!((mean - (accuracies[0] + accuracies[1]) / 2.0).abs() < 1e-12);
    assert_eq!(found["settings"][0]["accuracy"]["runs"], 2);

    // One is missing, one is half-done, and there is a seed more: the others stay as they are.
    let time =
        |name: &str| std::fs::metadata(folder.join(name).join("run.json")).unwrap().modified().unwrap();
    let kept = time("lr=1e-3,seed=1");
    std::fs::remove_dir_all(folder.join("lr=1e-3,seed=2")).unwrap();
    killed(&folder.join("lr=1e-4,seed=1"));
    let output = sweep(&["--seeds", "3", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(time("lr=1e-3,seed=1"), kept);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, report(&folder));
    assert!(printed["settings"].as_array().unwrap().iter().all(|setting| setting["accuracy"]["runs"] == 3));

    // With other options, the runs that are there would not be of this sweep.
    let other = sweep(&["--batch-size", "8"]);
    refused(2, &[], &["batch-size 16 there, 8 now", "--output"], &other);
}

#[test]
fn a_run_that_fails_is_named_and_the_others_go_on() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("sweep");
    // A folder in use by another: a file stands where a run's folder should be.
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("seed=1"), "in the way").unwrap();
    let arguments =
        [&["sweep", "--seeds", "2", "--model", tiny(), "--output", path(&folder)], &SMALL[..]].concat();
    let output = vitrine(&arguments);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("1 of 2 runs failed: seed=1;") && said.contains("seed=2: accuracy"), "{said}");
    let found = report(&folder);
    let runs = found["settings"][0]["runs"].as_array().unwrap();
    assert!(runs[0]["state"]["failed"]["why"].as_str().unwrap().contains("exit code 2"), "{runs:?}");
    assert_eq!(
        (&runs[1]["state"], &found["settings"][0]["accuracy"]["runs"]),
        (&"finished".into(), &1.into())
    );
}

/// A run as it stands in its folder: of 40 rows, `right` says which are predicted rightly.
fn finished(folder: &Path, right: impl Fn(usize) -> bool, hash: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let accuracy = (0..40).filter(|&row| right(row)).count() as f64 / 40.0;
    let run = json!({
        "command": "train", "state": "finished", "seconds_total": 1.0, "rows": {"test_hash": hash},
        "train": {}, "eval": {"accuracy": accuracy, "f1": accuracy},
    });
    std::fs::write(folder.join("run.json"), run.to_string()).unwrap();
    let names = ["no", "yes"];
    let lines: String = (0..40)
        .map(|row| {
            let predicted = if right(row) { row % 2 } else { 1 - row % 2 };
            json!({"row": row, "label": names[row % 2], "predicted": names[predicted], "probabilities": [0.5, 0.5], "tokens": 9})
                .to_string()
                + "\n"
        })
        .collect();
    std::fs::write(folder.join("predictions.jsonl"), lines).unwrap();
}

#[test]
fn settings_are_compared_row_by_row() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("sweep");
    // Seed 1: 1 row only the first has right, 9 only the second. Seed 2: 0 and 5.
    finished(&folder.join("lr=1e-3,seed=1"), |row| row >= 9, "x");
    finished(&folder.join("lr=1e-4,seed=1"), |row| row != 20, "x");
    finished(&folder.join("lr=1e-3,seed=2"), |row| row >= 5, "x");
    finished(&folder.join("lr=1e-4,seed=2"), |_| true, "x");
    let sweep = ["sweep", "--seeds", "2", "--grid", "lr=1e-3,1e-4", "--output", path(&folder)];
    let shown = succeed(&sweep);
    assert!(shown.contains("only A right") && shown.contains("2.15e-2"), "{shown}");
    let found = report(&folder);
    let pair = &found["comparisons"][0];
    let test = &pair["mcnemar"][0];
    assert_eq!(
        (&test["only_first"], &test["only_second"], &test["rows"]),
        (&1.into(), &9.into(), &40.into())
    );
    // statsmodels: mcnemar([[.., 1], [9, ..]], exact=True).pvalue = 0.021484375; Holm of (0.0215, 0.0625): twice the smaller.
    assert!((test["p"].as_f64().unwrap() - 22.0 / 1024.0).abs() < 1e-12);
    assert!((test["p_holm"].as_f64().unwrap() - 44.0 / 1024.0).abs() < 1e-12);
    assert!((pair["mcnemar"][1]["p"].as_f64().unwrap() - 0.0625).abs() < 1e-12);
    // Differences -0.2 and -0.125: t = 0.1625 / (0.0530 / sqrt 2) = 4.333, one degree of freedom.
    let p = pair["paired_t"].as_f64().unwrap();
    assert!((p - (1.0 - 2.0 / std::f64::consts::PI * (0.1625f64 / 0.0375).atan())).abs() < 1e-9, "{p}");

    // Other rows are not compared, and a damaged file is said.
    finished(&folder.join("lr=1e-4,seed=1"), |_| true, "y");
    std::fs::write(folder.join("lr=1e-4,seed=2/predictions.jsonl"), "{\"row\": 0}\n").unwrap();
    let output = vitrine(&sweep);
    assert!(output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("different rows") && said.contains("predictions.jsonl:1:"), "{said}");
    assert_eq!(report(&folder)["comparisons"][0]["mcnemar"], json!([]));
}

#[test]
fn what_cannot_be_swept_is_refused_before_anything_runs() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("sweep");
    let output = path(&folder);
    refuse(2, &["sweep"], &["--output"]);
    for (grid, word) in [
        ("lr", "OPTION=VALUE"),
        ("lr=", "OPTION=VALUE"),
        ("lr=1e-5,1e-5", "twice"),
        ("lr=1e-5,fast", "must be a number above 0"),
        ("learning=1", "no option"),
        ("output=a,b", "no option"),
        ("seed=1,2", "--seeds"),
        ("no-shuffle=yes", "true and false"),
        ("model=a/b,a-b", "--grid"),
    ] {
        refuse(2, &["sweep", "--output", output, "--grid", grid, "--train-samples", "64"], &[word]);
    }
    refuse(2, &["sweep", "--output", output, "--lr", "1", "--grid", "lr=1,2"], &["of all runs, too"]);
    refuse(2, &["sweep", "--output", output, "--grid", "lr=1,2", "--grid", "lr=3"], &["there twice"]);
    refuse(2, &["sweep", "--output", output, "--overwrite"], &["--output"]);
    refuse(2, &["sweep", "--output", output, "--seeds", "20000"], &["more than 10000"]);
    assert!(!folder.exists());
    let grid = ["sweep", "--seeds", "1", "--grid", "no-shuffle=true,false"];
    let flags = [&grid[..], &["--model", tiny(), "--output", output, "-q"]].concat();
    succeed(&[&flags[..], &SMALL[..]].concat());
    assert_eq!(run(&folder, "no-shuffle=true,seed=1")["settings"]["shuffle"], false);
    assert_eq!(run(&folder, "no-shuffle=false,seed=1")["settings"]["shuffle"], true);
}

#[cfg(unix)]
#[test]
fn an_interrupted_sweep_stops_its_run_and_goes_on_later() {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("sweep");
    let arguments = [
        "sweep",
        "--seeds",
        "2",
        "--model",
        tiny(),
        "--train-samples",
        "2000",
        "--epochs",
        "1",
        "--batch-size",
        "4",
        "--output",
        path(&folder),
    ];
    let mut sweep = Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .args(arguments)
        .env("CUDA_VISIBLE_DEVICES", "")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Until the first run says that it trains.
    let mut said = String::new();
    let mut stderr = std::io::BufReader::new(sweep.stderr.take().unwrap());
    while !said.contains("train 1/") {
        assert!(std::io::BufRead::read_line(&mut stderr, &mut said).unwrap() > 0, "{said}");
    }
    // SAFETY: `kill` takes two numbers, and the sweep has not been waited for.
    assert_eq!(unsafe { libc::kill(sweep.id() as libc::pid_t, libc::SIGINT) }, 0);
    let asked = Instant::now();
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    let status = sweep.wait().unwrap();
    assert!(!status.success() && asked.elapsed() < Duration::from_secs(30), "{said}");
    assert!(
        said.contains("give the same command again to go on") && said.contains("seed=2: not started"),
        "{said}"
    );
    // Nothing runs on: the folder of the run is free.
    let output = vitrine(&[&arguments[..], &["-q"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(report(&folder)["settings"][0]["accuracy"]["runs"], 2);
}
