//! Calibration: whether a model that is 80 % sure is right in 80 % of the rows.

use super::Predictions;
use serde::Serialize;

/// Bins of the expected calibration error, as in the paper.
const BINS: usize = 15;

/// The rows whose confidence is in `(lower, upper]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalibrationBin {
    /// Confidences above this.
    pub lower: f64,
    /// Confidences up to this.
    pub upper: f64,
    /// Rows in the bin.
    pub rows: u64,
    /// Mean probability of the predicted class; none without rows.
    pub confidence: Option<f64>,
    /// Share of the rows that are right; none without rows.
    pub accuracy: Option<f64>,
}

/// The expected calibration error of Guo et al. 2017 (arXiv 1706.04599): the mean over rows of the distance between confidence and
/// accuracy of their bin, with 15 bins of equal width. Confidence is the probability of the predicted class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// In [0, 1]; 0 is perfect.
    pub expected_calibration_error: f64,
    /// The bins, from low to high confidence.
    pub bins: Vec<CalibrationBin>,
}

impl Calibration {
    /// Of all rows; an error of 0 for none.
    pub fn of(predictions: &Predictions) -> Self {
        let mut sums = [(0u64, 0.0, 0u64); BINS];
        for row in 0..predictions.len() {
            let confidence = f64::from(predictions.confidence(row));
            // The upper edge belongs to the bin: 1 to the last, 0.5 of two classes to the bin that ends above it.
            let bin = (confidence * BINS as f64).ceil().clamp(1.0, BINS as f64) as usize - 1;
            let (rows, sum, correct) = &mut sums[bin];
            *rows += 1;
            *sum += confidence;
            *correct += u64::from(predictions.is_correct(row));
        }
        let all = predictions.len().max(1) as f64;
        let error =
            sums.iter().map(|&(_, confidence, correct)| (correct as f64 - confidence).abs() / all).sum();
        let bins = sums.iter().enumerate().map(|(i, &(rows, confidence, correct))| CalibrationBin {
            lower: i as f64 / BINS as f64,
            upper: (i + 1) as f64 / BINS as f64,
            rows,
            confidence: (rows > 0).then(|| confidence / rows as f64),
            accuracy: (rows > 0).then(|| correct as f64 / rows as f64),
        });
        Calibration { expected_calibration_error: error, bins: bins.collect() }
    }
}
