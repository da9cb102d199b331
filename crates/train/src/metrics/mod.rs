//! Evaluation metrics, accumulated batch by batch from logits and labels.
//!
//! With two classes, precision, recall and F1 are those of the positive class: the one named so, else class 1 (scikit-learn's
//! `average="binary"`). With more they are unweighted means over the classes that occur among the labels or the
//! predictions (`average="macro"`). A ratio without a denominator counts as 0 (`zero_division=0`).

//!
//! What needs every row is made from [`Predictions`]: calibration, the area under the ROC curve, accuracy by length, and the rows
//! that are wrong although the model was sure.

mod bootstrap;
mod calibration;
mod predictions;
mod ranking;
mod rows;

pub use bootstrap::f1_interval;
pub use calibration::{Calibration, CalibrationBin};
pub use predictions::Predictions;
pub use ranking::auroc;
pub use rows::{LengthBucket, WrongRow, accuracy_by_length, confidently_wrong};

use crate::data::classes::positive;
use crate::{Result, TrainError};
use serde::Serialize;

/// The figures of one class against all others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassMetrics {
    /// Its name.
    pub class: String,
    /// True positives over predicted positives.
    pub precision: f64,
    /// True positives over actual positives.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
    /// Rows of this class.
    pub support: u64,
}

/// The figures of one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Mean negative log-likelihood of the true classes, in nats.
    pub loss: f64,
    /// Share of rows whose largest logit (the first of equals) is the true class.
    pub accuracy: f64,
    /// True positives over predicted positives; see the module for more than two classes.
    pub precision: f64,
    /// True positives over actual positives; see the module for more than two classes.
    pub recall: f64,
    /// Harmonic mean of precision and recall; see the module for more than two classes.
    pub f1: f64,
    /// `confusion_matrix[true class][predicted class]`: rows counted.
    pub confusion_matrix: Vec<Vec<u64>>,
    /// Number of evaluated rows.
    pub examples: u64,
    /// Of two classes the one that precision, recall and F1 are of; `None` where they are means.
    pub positive_class: Option<String>,
    /// Every class, by index.
    pub per_class: Vec<ClassMetrics>,
}

impl Metrics {
    /// The 95 % Wilson score interval of the accuracy (Wilson 1927): it stays within [0, 1] and is honest near both ends.
    pub fn accuracy_interval(&self) -> (f64, f64) {
        wilson_interval(self.accuracy, self.examples)
    }

    /// The 95 % bootstrap interval of F1: see [`f1_interval`].
    pub fn f1_interval(&self) -> (f64, f64) {
        let names = self.per_class.iter().map(|class| class.class.as_str());
        let positive = self.positive_class.as_deref().and_then(|name| names.clone().position(|n| n == name));
        f1_interval(&self.confusion_matrix, positive)
    }
}

/// The 95 % Wilson score interval of a proportion `p` seen in `n` trials; (0, 1) for no trials.
pub fn wilson_interval(p: f64, n: u64) -> (f64, f64) {
    /// The 97.5 % quantile of the standard normal distribution.
    const Z: f64 = 1.959_963_984_540_054;
    if n == 0 {
        return (0.0, 1.0);
    }
    let n = n as f64;
    let scale = 1.0 / (1.0 + Z * Z / n);
    let center = scale * (p + Z * Z / (2.0 * n));
    let half = scale * Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    // It always holds p; rounding must not say otherwise when p is 0 or 1.
    ((center - half).clamp(0.0, p), (center + half).clamp(p, 1.0))
}

/// Collects predictions; [`finish`](Accumulator::finish) turns them into [`Metrics`].
#[derive(Clone, Debug)]
pub struct Accumulator {
    names: Vec<String>,
    /// `[true class][predicted class]`, row-major.
    confusion: Vec<u64>,
    nll: f64,
    rows: usize,
}

impl Accumulator {
    /// An empty evaluation over the classes of these names.
    pub fn new(names: Vec<String>) -> Accumulator {
        let confusion = vec![0; names.len() * names.len()];
        Accumulator { names, confusion, nll: 0.0, rows: 0 }
    }

    /// Adds a batch: `logits` is `[B, classes]` row-major, `labels` is `[B]`. The loss is summed in f64, with the row's largest
    /// logit taken out of the exponentials.
    ///
    /// # Errors
    /// When the lengths do not fit, a label is not a class, or a logit is NaN or infinite: such a row would count as a
    /// prediction of class 0. On an error nothing of the batch is counted.
    pub fn add(&mut self, logits: &[f32], labels: &[u32]) -> Result<()> {
        let classes = self.names.len();
        if classes == 0 || logits.len() != labels.len() * classes {
            return Err(TrainError::MetricsShape { logits: logits.len(), labels: labels.len(), classes });
        }
        let mut nll = 0.0;
        let mut cells = Vec::with_capacity(labels.len());
        for (i, (row, &label)) in logits.chunks_exact(classes).zip(labels).enumerate() {
            if let Some(&value) = row.iter().find(|value| !value.is_finite()) {
                return Err(TrainError::NonFiniteLogits { row: self.rows + i, value });
            }
            let target = label as usize;
            if target >= classes {
                return Err(TrainError::LabelRange { row: self.rows + i, label, classes });
            }
            let predicted = predictions::largest(row);
            let max = f64::from(row[predicted]);
            let sum: f64 = row.iter().map(|&value| (f64::from(value) - max).exp()).sum();
            nll += sum.ln() + max - f64::from(row[target]);
            cells.push(target * classes + predicted);
        }
        for cell in cells {
            self.confusion[cell] += 1;
        }
        self.nll += nll;
        self.rows += labels.len();
        Ok(())
    }

    /// The figures over everything added.
    ///
    /// # Errors
    /// When nothing was added: no figure would mean anything.
    pub fn finish(&self) -> Result<Metrics> {
        if self.rows == 0 {
            return Err(TrainError::Empty { data: "evaluation".to_owned() });
        }
        let matrix: Vec<Vec<u64>> =
            self.confusion.chunks_exact(self.names.len()).map(<[u64]>::to_vec).collect();
        let correct: u64 = (0..self.names.len()).map(|class| matrix[class][class]).sum();
        let per_class: Vec<ClassMetrics> =
            self.names.iter().enumerate().map(|(class, name)| class_metrics(&matrix, class, name)).collect();
        let positive = positive(&self.names);
        let mean = |figure: fn(&ClassMetrics) -> f64| {
            mean_over(&matrix, positive, |class| figure(&per_class[class]))
        };
        let [precision, recall, f1] = [mean(|c| c.precision), mean(|c| c.recall), mean(|c| c.f1)];
        Ok(Metrics {
            loss: self.nll / self.rows as f64,
            accuracy: correct as f64 / self.rows as f64,
            precision,
            recall,
            f1,
            confusion_matrix: matrix,
            examples: self.rows as u64,
            positive_class: positive.map(|class| self.names[class].clone()),
            per_class,
        })
    }
}

/// A figure of the positive class, or without one its mean over the classes that occur among the labels or the predictions.
fn mean_over(matrix: &[Vec<u64>], positive: Option<usize>, figure: impl Fn(usize) -> f64) -> f64 {
    if let Some(class) = positive {
        return figure(class);
    }
    let occurs =
        |class: &usize| matrix[*class].iter().any(|&n| n > 0) || matrix.iter().any(|row| row[*class] > 0);
    let occurring: Vec<usize> = (0..matrix.len()).filter(occurs).collect();
    occurring.iter().map(|&class| figure(class)).sum::<f64>() / occurring.len() as f64
}

/// One class against the others.
fn class_metrics(matrix: &[Vec<u64>], class: usize, name: &str) -> ClassMetrics {
    let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    let true_positives = matrix[class][class];
    let predicted: u64 = matrix.iter().map(|row| row[class]).sum();
    let support: u64 = matrix[class].iter().sum();
    ClassMetrics {
        class: name.to_owned(),
        precision: ratio(true_positives, predicted),
        recall: ratio(true_positives, support),
        // 2 TP / (2 TP + FP + FN), the harmonic mean without its division by zero.
        f1: ratio(2 * true_positives, predicted + support),
        support,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Logits that predict the given classes.
    fn one_hot(predicted: &[usize], classes: usize) -> Vec<f32> {
        predicted.iter().flat_map(|&p| (0..classes).map(move |c| if c == p { 1.0 } else { 0.0 })).collect()
    }

    fn names(classes: usize) -> Vec<String> {
        (0..classes).map(|class| class.to_string()).collect()
    }

    fn metrics(predicted: &[usize], labels: &[u32], classes: usize) -> Metrics {
        let mut accumulator = Accumulator::new(names(classes));
        accumulator.add(&one_hot(predicted, classes), labels).unwrap();
        accumulator.finish().unwrap()
    }

    fn assert_close(what: &str, got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-12, "{what}: got {got}, want {want}");
    }

    #[test]
    fn binary_figures() {
        // 3 true positives, 1 false positive, 2 false negatives, 4 true negatives.
        let m = metrics(&[1, 1, 1, 1, 0, 0, 0, 0, 0, 0], &[1, 1, 1, 0, 1, 1, 0, 0, 0, 0], 2);
        assert_eq!(m.confusion_matrix, [[4, 1], [2, 3]]);
        assert_eq!(m.examples, 10);
        assert_close("accuracy", m.accuracy, 0.7);
        assert_close("precision", m.precision, 0.75);
        assert_close("recall", m.recall, 0.6);
        assert_close("f1", m.f1, 2.0 * 0.75 * 0.6 / (0.75 + 0.6));
        // Every row has a margin of one.
        let (right, wrong) = ((1.0 + (-1.0f64).exp()).ln(), (1.0 + 1.0f64.exp()).ln());
        assert_close("loss", m.loss, 0.7 * right + 0.3 * wrong);
    }

    #[test]
    fn macro_figures_of_three_classes() {
        let m = metrics(&[0, 0, 1, 2, 2, 2], &[0, 1, 1, 2, 2, 0], 3);
        assert_eq!(m.confusion_matrix, [[1, 0, 1], [1, 1, 0], [0, 0, 2]]);
        assert_close("precision", m.precision, (0.5 + 1.0 + 2.0 / 3.0) / 3.0);
        assert_close("recall", m.recall, (0.5 + 0.5 + 1.0) / 3.0);
        assert_close("f1", m.f1, (0.5 + 2.0 / 3.0 + 0.8) / 3.0);
    }

    #[test]
    fn macro_figures_are_over_the_classes_that_occur() {
        // sklearn 1.7: precision_recall_fscore_support([0, 0, 1], [0, 1, 1], average="macro") over classes 0 and 1 of 4;
        // and ([0, 0, 0], [0, 2, 0]), where class 2 occurs among the predictions alone.
        let m = metrics(&[0, 1, 1], &[0, 0, 1], 4);
        assert_close("precision", m.precision, 0.75);
        assert_close("recall", m.recall, 0.75);
        assert_close("f1", m.f1, 2.0 / 3.0);
        let m = metrics(&[0, 2, 0], &[0, 0, 0], 4);
        assert_close("precision", m.precision, 0.5);
        assert_close("recall", m.recall, 1.0 / 3.0);
        assert_close("f1", m.f1, 0.4);
        assert_eq!(m.positive_class, None);
        assert_eq!(m.per_class.iter().map(|class| class.support).collect::<Vec<_>>(), [3, 0, 0, 0]);
    }

    #[test]
    fn the_positive_class_is_found_by_name() {
        let mut accumulator = Accumulator::new(["positive", "negative"].map(str::to_owned).to_vec());
        accumulator.add(&one_hot(&[0, 0, 0, 1], 2), &[0, 0, 1, 1]).unwrap();
        let m = accumulator.finish().unwrap();
        assert_eq!(m.positive_class.as_deref(), Some("positive"));
        assert_close("precision", m.precision, 2.0 / 3.0);
        assert_close("recall", m.recall, 1.0);
        assert_eq!(m.per_class[1].class, "negative");
        assert_close("recall of the other", m.per_class[1].recall, 0.5);
    }

    #[test]
    fn a_model_that_never_says_positive_scores_zero() {
        let m = metrics(&[0, 0, 0, 0], &[0, 0, 1, 1], 2);
        assert_eq!((m.precision, m.recall, m.f1, m.accuracy), (0.0, 0.0, 0.0, 0.5));
    }

    #[test]
    fn json_keys_are_the_documented_ones() {
        let json = serde_json::to_value(metrics(&[1, 0], &[1, 0], 2)).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "loss",
                "accuracy",
                "precision",
                "recall",
                "f1",
                "confusion_matrix",
                "examples",
                "positive_class",
                "per_class"
            ]
        );
        assert_eq!(json["per_class"][1]["support"], 1);
    }

    #[test]
    fn extreme_logits_have_a_finite_loss() {
        let mut accumulator = Accumulator::new(names(2));
        accumulator.add(&[3e38, -3e38, 0.0, 0.0], &[0, 1]).unwrap();
        assert_close("loss", accumulator.finish().unwrap().loss, 2f64.ln() / 2.0);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_not_counted() {
        let mut accumulator = Accumulator::new(names(2));
        accumulator.add(&[0.0, 1.0], &[1]).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = accumulator.add(&[0.0, 1.0, 0.0, bad], &[1, 1]).unwrap_err();
            assert!(matches!(error, TrainError::NonFiniteLogits { row: 2, .. }), "{error}");
        }
        assert!(matches!(
            accumulator.add(&[0.0, 1.0], &[2]),
            Err(TrainError::LabelRange { row: 1, label: 2, .. })
        ));
        assert!(matches!(accumulator.add(&[0.0], &[0]), Err(TrainError::MetricsShape { .. })));
        assert_eq!(accumulator.finish().unwrap().examples, 1);
        assert!(Accumulator::new(names(2)).finish().is_err());
        assert!(Accumulator::new(names(0)).add(&[], &[]).is_err());
    }

    #[test]
    fn wilson_interval_of_known_cases() {
        // Newcombe 1998, table I: 81 of 263 and 0 of 20.
        let (low, high) = wilson_interval(81.0 / 263.0, 263);
        assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
        let (low, high) = wilson_interval(0.0, 20);
        assert!(low == 0.0 && (high - 0.1611).abs() < 5e-5, "{low} {high}");
        assert_eq!(wilson_interval(0.0, 0), (0.0, 1.0));
    }

    proptest! {
        #[test]
        fn cutting_into_batches_changes_nothing(
            rows in prop::collection::vec(([-30f32..30.0, -30f32..30.0, -30f32..30.0], 0u32..3), 1..60), cut in 0usize..60
        ) {
            let logits: Vec<f32> = rows.iter().flat_map(|(row, _)| *row).collect();
            let labels: Vec<u32> = rows.iter().map(|&(_, label)| label).collect();
            let cut = cut.min(rows.len());
            let mut whole = Accumulator::new(names(3));
            whole.add(&logits, &labels).unwrap();
            let mut parts = Accumulator::new(names(3));
            parts.add(&logits[..3 * cut], &labels[..cut]).unwrap();
            parts.add(&logits[3 * cut..], &labels[cut..]).unwrap();
            let (whole, parts) = (whole.finish().unwrap(), parts.finish().unwrap());
            prop_assert!((whole.loss - parts.loss).abs() <= 1e-12 * whole.loss.max(1.0));
            prop_assert_eq!(&whole.confusion_matrix, &parts.confusion_matrix);
            prop_assert!(whole.loss >= 0.0 && whole.f1.is_finite());
            let (low, high) = whole.accuracy_interval();
            prop_assert!(low <= whole.accuracy && whole.accuracy <= high);
        }
    }
}
