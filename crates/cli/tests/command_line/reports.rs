//! What a run leaves for people and other programs: logs, predictions, trace, report and model card.

use crate::common::{path, refuse, succeed, tiny, train};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

fn event_files(folder: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.to_string_lossy().contains("events.out.tfevents.")).collect()
}

#[test]
fn a_run_leaves_logs_predictions_a_report_and_a_card() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("out");
    let report = train(&output, &["--profile-step", "2", "--log-gradient-norms"]);

    let rows = lines(&output.join("predictions.jsonl"));
    assert_eq!(rows.len(), 32);
    let right = rows.iter().filter(|row| row["label"] == row["predicted"]).count();
    assert_eq!(report["eval"]["accuracy"].as_f64().unwrap(), right as f64 / 32.0);
    assert!(rows.iter().enumerate().all(|(i, row)| row["row"] == i), "in the order of the data");

    let metrics = lines(&output.join("metrics.jsonl"));
    let norms: Vec<&Value> = metrics.iter().filter(|line| line["gradient_norms"].is_object()).collect();
    let steps: Vec<&Value> = metrics.iter().filter(|line| line["loss"].is_number()).collect();
    assert_eq!((norms.len(), steps.len()), (4, 4));
    for (norms, step) in norms.iter().zip(steps) {
        let parts = norms["gradient_norms"].as_object().unwrap();
        let names: Vec<&str> = parts.keys().map(String::as_str).collect();
        assert_eq!(names, ["embeddings", "layer.0", "layer.1", "head"]);
        let whole = parts.values().map(|norm| norm.as_f64().unwrap().powi(2)).sum::<f64>().sqrt();
        let (global, step) = (step["grad_norm"].as_f64().unwrap(), &step["step"]);
        assert!((whole - global).abs() <= 1e-5 * global, "step {step}: {whole} of parts, {global} of all");
        assert_eq!(&norms["step"], step);
    }

    let trace: Value =
        serde_json::from_slice(&fs::read(output.join("trace-step-00000002.json")).unwrap()).unwrap();
    let events: Vec<&Value> = trace.as_array().unwrap().iter().filter(|event| event["ph"] == "X").collect();
    let of = |track: &str| events.iter().filter(|event| event["cat"] == track).count();
    assert!(of("forward") > 10 && of("backward") > 10 && of("update") == 1, "{trace}");
    let attention = events.iter().find(|event| event["name"] == "attention").unwrap();
    assert!(attention["args"]["scope"].as_str().unwrap().contains("layer.0"), "{attention}");
    // One thing after another: the tracks follow each other and nothing overlaps within one.
    for pair in events.windows(2) {
        let end = pair[0]["ts"].as_f64().unwrap() + pair[0]["dur"].as_f64().unwrap();
        assert!(pair[1]["ts"].as_f64().unwrap() >= end - 1.0, "{} {}", pair[0], pair[1]);
    }

    let page = fs::read_to_string(output.join("report.html")).unwrap();
    let accuracy = format!("{:.4}", report["eval"]["accuracy"].as_f64().unwrap());
    assert!(page.contains(&accuracy) && page.contains("Time by operation"), "the report has the figures");
    let card = fs::read_to_string(output.join("README.md")).unwrap();
    assert!(card.starts_with("---\n") && card.contains("model-index:"), "{card}");
    assert_eq!(event_files(&output).len(), 1);

    // A new run replaces all of it, but not what a person has written.
    fs::write(output.join("README.md"), "# Mine\n").unwrap();
    let report = train(&output, &["--overwrite", "--seed", "7"]);
    assert_eq!(fs::read_to_string(output.join("README.md")).unwrap(), "# Mine\n");
    assert_eq!(event_files(&output).len(), 1, "the events of the run before are gone");
    let page = fs::read_to_string(output.join("report.html")).unwrap();
    assert!(!page.contains("Time by operation"), "the trace of another run is not this one's");
    let right =
        lines(&output.join("predictions.jsonl")).iter().filter(|r| r["label"] == r["predicted"]).count();
    assert_eq!(report["eval"]["accuracy"].as_f64().unwrap(), right as f64 / 32.0);
}

#[test]
fn reports_are_made_of_runs_and_misuse_is_said() {
    let folder = TempDir::new().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    train(&a, &[]);
    train(&b, &["--lr", "0.002"]);
    let page = folder.path().join("both.html");
    let stdout = succeed(&["report", path(&a), path(&b), "--output", path(&page)]);
    assert_eq!(stdout.trim(), path(&page));
    let text = fs::read_to_string(&page).unwrap();
    assert!(text.contains("Of 2 runs") && text.contains("0.002"), "both are in it, and what differs");
    fs::remove_file(a.join("report.html")).unwrap();
    succeed(&["report", path(&a)]);
    assert!(a.join("report.html").is_file());

    let mine = folder.path().join("mine.html");
    fs::write(&mine, "<p>mine</p>").unwrap();
    refuse(2, &["report", path(&a), "--output", path(&mine)], &["mine.html", "no report of vitrine"]);
    assert_eq!(fs::read_to_string(&mine).unwrap(), "<p>mine</p>");
    refuse(2, &["report", path(&a), "--output", path(&b)], &["folder"]);
    refuse(1, &["report", path(folder.path())], &["run.json", "metrics.jsonl"]);
    fs::write(a.join("run.json"), "{\"data\": 3}").unwrap();
    refuse(1, &["report", path(&a)], &["run.json", "line 1"]);
    let output = folder.path().join("c");
    refuse(
        2,
        &[
            "train",
            "--model",
            tiny(),
            "--output",
            path(&output),
            "--train-samples",
            "64",
            "--epochs",
            "1",
            "--profile-step",
            "99",
        ],
        &["--profile-step 99", "steps"],
    );

    let data = folder.path().join("data.jsonl");
    fs::write(
        &data,
        "{\"text\":\"good\",\"label\":\"positive\"}\n{\"text\":\"bad\",\"label\":\"negative\"}\n",
    )
    .unwrap();
    let predictions = folder.path().join("p.jsonl");
    succeed(&["eval", "--model", path(&b), "--data", path(&data), "--predictions", path(&predictions)]);
    assert_eq!(
        lines(&predictions).iter().map(|row| &row["label"]).collect::<Vec<_>>(),
        ["positive", "negative"]
    );
    let nowhere = folder.path().join("no/where.jsonl");
    refuse(
        2,
        &["eval", "--model", path(&b), "--data", path(&data), "--predictions", path(&nowhere)],
        &["--predictions"],
    );
}
