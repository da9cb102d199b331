//! The measures that need every row: against scikit-learn and numpy, and against closed forms.
//! `goldens/make_predictions.py` made the numbers.

use serde::Deserialize;
use vitrine_train::metrics::{
    Accumulator, Calibration, Predictions, accuracy_by_length, auroc, confidently_wrong, f1_interval,
};

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    names: Vec<String>,
    labels: Vec<u32>,
    logits: Vec<f32>,
    auroc: f64,
    expected_calibration_error: f64,
    bin_rows: Vec<u64>,
    f1: f64,
    f1_interval: (f64, f64),
}

fn goldens() -> Vec<Case> {
    let goldens: Goldens = serde_json::from_str(include_str!("goldens/predictions.json")).unwrap();
    assert_eq!(goldens.cases.len(), 3);
    goldens.cases
}

fn predictions(names: &[String], labels: &[u32], logits: &[f32]) -> Predictions {
    let rows: Vec<usize> = (0..labels.len()).collect();
    let tokens = rows.iter().map(|&row| row as u32 + 2).collect();
    let mut predictions = Predictions::new(names.to_vec(), labels.to_vec(), tokens);
    predictions.set(&rows, logits).unwrap();
    predictions
}

fn named(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn assert_close(what: &str, got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{what}: got {got}, want {want}");
}

#[test]
fn ranking_and_calibration_are_those_of_scikit_learn() {
    for case in goldens() {
        let predictions = predictions(&case.names, &case.labels, &case.logits);
        // Exponentials of two libraries may differ in the last bit of f32, which can break a tie: one pair in thousands.
        assert_close("auroc", auroc(&predictions).unwrap(), case.auroc, 1e-4);
        let calibration = Calibration::of(&predictions);
        let error = calibration.expected_calibration_error;
        assert_close("ece", error, case.expected_calibration_error, 1e-6);
        let rows: Vec<u64> = calibration.bins.iter().map(|bin| bin.rows).collect();
        assert_eq!(rows, case.bin_rows);
    }
}

#[test]
fn the_bootstrap_interval_is_that_of_drawing_rows() {
    for case in goldens() {
        let mut accumulator = Accumulator::new(case.names.clone());
        accumulator.add(&case.logits, &case.labels).unwrap();
        let metrics = accumulator.finish().unwrap();
        assert_close("f1", metrics.f1, case.f1, 1e-12);
        let (low, high) = metrics.f1_interval();
        // The standard error of a 2.5 % quantile of 1,000 draws is sqrt(0.025 * 0.975 / 1000) / density: with the normal density
        // at -1.96 sigma, 0.0585 / sigma, that is 0.084 sigma, 0.022 of the width of 3.92 sigma. Four of them, and numpy's own.
        let tolerance = 0.1 * (case.f1_interval.1 - case.f1_interval.0);
        assert_close("low", low, case.f1_interval.0, tolerance);
        assert_close("high", high, case.f1_interval.1, tolerance);
        assert!(low < metrics.f1 && metrics.f1 < high);
        assert_eq!(metrics.f1_interval(), (low, high), "the interval is a function of the counts");
    }
    assert_eq!(f1_interval(&[vec![0, 0], vec![0, 0]], Some(1)), (0.0, 0.0));
    assert_eq!(f1_interval(&[vec![5, 0], vec![0, 5]], None), (1.0, 1.0));
    assert_eq!(f1_interval(&[vec![5, 0], vec![5, 0]], Some(1)), (0.0, 0.0));
}

#[test]
fn ties_count_half_and_a_missing_class_has_no_ranking() {
    let names = named(&["negative", "positive"]);
    // Scores of the positive class: 0, 1, 1, 2 with labels 0, 0, 1, 1: of 4 pairs three are in order and one is equal.
    let logits = [0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 2.0];
    assert_eq!(auroc(&predictions(&names, &[0, 0, 1, 1], &logits)), Some(3.5 / 4.0));
    // The other order of names ranks the other way round, and measures the same.
    let swapped = named(&["positive", "negative"]);
    assert_eq!(auroc(&predictions(&swapped, &[0, 0, 1, 1], &logits)), Some(3.5 / 4.0));
    assert_eq!(auroc(&predictions(&names, &[1, 1, 1, 1], &logits)), None);
    assert_eq!(auroc(&predictions(&names, &[], &[])), None);
}

#[test]
fn calibration_of_known_confidences() {
    // Logits ln 3 apart: a confidence of 3/4. Three of four rows right: perfect; none right: off by 3/4.
    let names = named(&["a", "b"]);
    let logits = [3f32.ln(), 0.0].repeat(4);
    let good = Calibration::of(&predictions(&names, &[0, 0, 0, 1], &logits));
    assert_close("ece", good.expected_calibration_error, 0.0, 1e-7);
    let bad = Calibration::of(&predictions(&names, &[1, 1, 1, 1], &logits));
    assert_close("ece", bad.expected_calibration_error, 0.75, 1e-7);
    // 3/4 is in (11/15, 12/15].
    assert_eq!(bad.bins[11].rows, 4);
    assert_eq!(bad.bins[11].accuracy, Some(0.0));
    assert_eq!(bad.bins[10].confidence, None);
    // A certainty of 1 is in the last bin.
    let sure = Calibration::of(&predictions(&names, &[0], &[1000.0, 0.0]));
    assert_eq!(sure.bins[14].rows, 1);
}

#[test]
fn lengths_and_the_surest_errors() {
    let names = named(&["a", "b"]);
    // Row i says b with growing confidence; rows have 2, 3, .. tokens; the odd ones are a.
    let labels: Vec<u32> = (0..100).map(|row| 1 - row % 2).collect();
    let logits: Vec<f32> = (0..100).flat_map(|row| [0.0, 0.1 + row as f32 / 100.0]).collect();
    let predictions = predictions(&names, &labels, &logits);
    let wrong = confidently_wrong(&predictions);
    assert_eq!(wrong.iter().map(|wrong| wrong.row).take(3).collect::<Vec<_>>(), [99, 97, 95]);
    assert_eq!(wrong.len(), 10);
    assert_eq!((wrong[0].label.as_str(), wrong[0].predicted.as_str(), wrong[0].tokens), ("a", "b", 101));
    let buckets = accuracy_by_length(&predictions);
    let rows: Vec<(u32, u32, u64)> = buckets.iter().map(|b| (b.from, b.to, b.rows)).collect();
    assert_eq!(rows, [(1, 32, 31), (33, 64, 32), (65, 128, 37)]);
    assert_eq!(buckets[1].accuracy, 0.5);
    assert!(buckets[1].interval.0 < 0.5 && buckets[1].interval.1 > 0.5);
}

#[test]
fn a_line_a_row_in_the_order_of_the_data() {
    let names = named(&["bad", "good"]);
    let mut predictions = Predictions::new(names, vec![0, 1], vec![3, 7]);
    predictions.set(&[1], &[0.0, 3f32.ln()]).unwrap();
    predictions.set(&[0], &[0.0, 0.0]).unwrap();
    let mut file = Vec::new();
    predictions.write_jsonl(&mut file).unwrap();
    let text = String::from_utf8(file).unwrap();
    assert_eq!(
        text,
        "{\"row\":0,\"label\":\"bad\",\"predicted\":\"bad\",\"probabilities\":[0.5,0.5],\"tokens\":3}\n\
         {\"row\":1,\"label\":\"good\",\"predicted\":\"good\",\"probabilities\":[0.25,0.75],\"tokens\":7}\n"
    );
    assert!(predictions.set(&[0], &[f32::NAN, 0.0]).is_err());
    assert!(predictions.set(&[0], &[0.0]).is_err());
}
