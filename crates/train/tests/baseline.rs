//! The bag-of-words classifier against scikit-learn (`goldens/make_baseline.py`).

use serde_json::Value;
use vitrine_tensor::cpu::parallel::with_threads;
use vitrine_train::TrainError;
use vitrine_train::baseline::{BagOfWords, BagOfWordsSettings};
use vitrine_train::data::{Dataset, Example};

fn golden() -> Value {
    serde_json::from_str(include_str!("goldens/baseline.json")).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn dataset(rows: &[(&str, u32)], names: &[&str]) -> Dataset {
    Dataset {
        examples: rows.iter().map(|&(text, label)| Example { text: text.to_owned(), label }).collect(),
        label_names: names.iter().map(|&name| name.to_owned()).collect(),
        ..Dataset::default()
    }
}

/// The golden's rows of the first so many classes.
fn rows(golden: &Value, classes: u64) -> Dataset {
    let labels = golden["labels"].as_array().unwrap().iter().map(|label| label.as_u64().unwrap());
    let texts = strings(&golden["texts"]);
    let rows: Vec<(&str, u32)> = texts
        .iter()
        .zip(labels)
        .filter(|(_, label)| *label < classes)
        .map(|(text, label)| (text.as_str(), label as u32))
        .collect();
    dataset(&rows, &["good", "bad", "mixed"][..classes as usize])
}

fn settings(case: &Value) -> BagOfWordsSettings {
    BagOfWordsSettings {
        ngrams: case["ngrams"].as_u64().unwrap() as usize,
        min_df: case["min_df"].as_u64().unwrap() as usize,
        max_features: case["max_features"].as_u64().map(|most| most as usize),
        sublinear_tf: case["sublinear_tf"].as_bool().unwrap(),
        c: case["c"].as_f64().unwrap(),
    }
}

/// Both within 1e-4 of the largest expected magnitude; NaN is not.
fn close(got: &[f64], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= 1e-4 * scale, "{what} {index}: {got} is not {expected}");
    }
}

#[test]
fn terms_weights_and_decisions_are_those_of_scikit_learn() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let classes = case["classes"].as_u64().unwrap();
        let rows = rows(&golden, classes);
        let (model, fitted) = BagOfWords::fit(&rows, &settings(case)).unwrap();
        assert!(fitted.convergence.converged, "{fitted:?}");
        assert_eq!(model.terms(), strings(&case["terms"]));
        assert_eq!(fitted.features, model.terms().len());
        let idf = numbers(&case["idf"]);
        assert_eq!(model.idf().len(), idf.len());
        for (got, expected) in model.idf().iter().zip(&idf) {
            // The same formula; the two logarithms may round the last bit otherwise.
            assert!((got - expected).abs() <= 4.0 * f64::EPSILON * expected, "{got} is not {expected}");
        }
        let held_out = strings(&golden["held_out"]);
        let texts: Vec<&str> = rows
            .examples
            .iter()
            .map(|row| row.text.as_str())
            .chain(held_out.iter().map(String::as_str))
            .collect();
        close(&model.decision_function(&texts), &numbers(&case["decisions"]), "decision");

        let telling = model.most_telling(usize::MAX);
        assert_eq!(telling.len(), classes as usize);
        for (place, coefficients) in case["coefficients"].as_array().unwrap().iter().enumerate() {
            let class = if classes == 2 { 1 } else { place };
            let mut weights = vec![f64::NAN; model.terms().len()];
            for term in &telling[class].1 {
                weights[model.terms().binary_search(&term.term).unwrap()] = term.weight;
            }
            close(&weights, &numbers(coefficients), "weight");
            assert!(telling[class].1.windows(2).all(|pair| pair[0].weight >= pair[1].weight));
        }
        if classes == 2 {
            assert_eq!(telling[0].1.last().unwrap().weight, -telling[1].1[0].weight);
        }
    }
}

#[test]
fn a_fit_has_the_same_bits_for_any_number_of_threads() {
    let golden = golden();
    let rows = rows(&golden, 3);
    // Enough rows for several pieces of parallel work.
    let rows = rows.subset(&(0..900).map(|row| row % rows.len()).collect::<Vec<_>>());
    let fit = |threads: usize| {
        with_threads(threads, || {
            BagOfWords::fit(&rows, &BagOfWordsSettings::default()).unwrap().0.most_telling(50)
        })
    };
    let one = fit(1);
    assert_eq!(one[0].1.len(), 50);
    assert_eq!(one, fit(3));
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let words = [("good good film", 0), ("bad film", 1)];
    let fit = |rows: &[(&str, u32)], names: &[&str], settings: BagOfWordsSettings| match BagOfWords::fit(
        &dataset(rows, names),
        &settings,
    ) {
        Err(error @ TrainError::Technique { .. }) => error.to_string(),
        other => panic!("{:?}", other.map(|(_, fitted)| fitted)),
    };
    let settings = BagOfWordsSettings::default();
    let said = fit(&words, &["a", "b"], BagOfWordsSettings { min_df: 3, ..settings });
    assert!(said.contains("no word is in 3 texts") && said.contains("--min-df 1"), "{said}");
    let said = fit(&[("a b", 0), ("c !", 1)], &["a", "b"], BagOfWordsSettings { min_df: 1, ..settings });
    assert!(said.contains("no words of two or more letters"), "{said}");
    let said = fit(&[("good film", 0), ("bad film", 0)], &["a", "b"], settings);
    assert!(said.contains("same label"), "{said}");
}

#[test]
fn a_class_without_training_rows_has_a_probability_all_the_same() {
    let rows =
        dataset(&[("good film", 0), ("bad film", 2), ("good plot", 0), ("bad plot", 2)], &["a", "b", "c"]);
    let (model, _) = BagOfWords::fit(&rows, &BagOfWordsSettings { min_df: 1, ..Default::default() }).unwrap();
    let logs = model.log_probabilities(&["good", "bad", "unseen"]);
    assert!(logs[0] > logs[2] && logs[5] > logs[3] && (logs[6] - logs[8]).abs() < 1e-9, "{logs:?}");
    assert!((logs[1].exp() - 1e-15).abs() < 1e-17);
    let test = dataset(&[("a good film", 0), ("a bad film", 2), ("bad", 1)], &["a", "b", "c"]);
    let found = model.evaluate(&test).unwrap();
    assert_eq!(found.metrics.confusion_matrix, [[1, 0, 0], [0, 0, 1], [0, 0, 1]]);
    assert!((found.metrics.accuracy - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(found.confidently_wrong[0].excerpt.as_deref(), Some("bad"));
}
