//! The area under the ROC curve.

use super::Predictions;
use crate::data::classes::positive;

/// The area under the ROC curve, as scikit-learn's `roc_auc_score` of the probabilities: of two classes that of the positive one
/// (see the module above), of more the unweighted mean of each class against the others (`multi_class="ovr", average="macro"`).
/// None where a class has no row, or all: then there is nothing to rank.
pub fn auroc(predictions: &Predictions) -> Option<f64> {
    let classes = match (positive(&predictions.names), predictions.names.len()) {
        (Some(class), _) => class..class + 1,
        (None, classes) => 0..classes,
    };
    let count = classes.len();
    let sum = classes.map(|class| one_against_rest(predictions, class)).sum::<Option<f64>>()?;
    (count > 0).then(|| sum / count as f64)
}

/// The rank statistic of Mann and Whitney: the share of pairs of a row of the class and another row in which the first has the
/// larger probability; equal ones count half.
fn one_against_rest(predictions: &Predictions, class: usize) -> Option<f64> {
    let classes = predictions.names.len();
    let mut rows: Vec<(f32, bool)> = (0..predictions.len())
        .map(|row| {
            (predictions.probabilities[row * classes + class], predictions.labels[row] as usize == class)
        })
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = rows.iter().filter(|row| row.1).count() as f64;
    let negatives = rows.len() as f64 - positives;
    // Negatives below the group of equals; pairs are counted twice, so that halves are whole numbers.
    let (mut below, mut twice_pairs) = (0.0, 0.0);
    for equals in rows.chunk_by(|a, b| a.0 == b.0) {
        let here = equals.iter().filter(|row| row.1).count() as f64;
        let others = equals.len() as f64 - here;
        twice_pairs += here * (2.0 * below + others);
        below += others;
    }
    (positives > 0.0 && negatives > 0.0).then(|| twice_pairs / (2.0 * positives * negatives))
}
