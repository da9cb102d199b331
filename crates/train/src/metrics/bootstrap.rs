//! The bootstrap interval of F1.

use super::{class_metrics, mean_over};
use vitrine_tensor::random::philox;

/// Resamples: the ends of a 95 % interval then move by a few hundredths of its width from seed to seed.
const RESAMPLES: u32 = 1000;
/// The interval is a function of the counts alone.
const SEED: u32 = 42;

/// The 95 % percentile bootstrap interval of F1 (Efron and Tibshirani 1993, chapter 13): rows are drawn with replacement, as many
/// as there are, 1,000 times; the interval is between the 2.5 % and the 97.5 % quantile (interpolated linearly, as numpy does). F1
/// depends on the counts of `confusion_matrix[true class][predicted class]` alone, so a row is drawn as its cell.
///
/// `positive` is the class of the F1; none for the mean over the classes that occur in the resample. (0, 0) for no rows.
pub fn f1_interval(confusion_matrix: &[Vec<u64>], positive: Option<usize>) -> (f64, f64) {
    let classes = confusion_matrix.len();
    let cells: Vec<u32> = confusion_matrix
        .iter()
        .flatten()
        .enumerate()
        .flat_map(|(cell, &count)| std::iter::repeat_n(cell as u32, count as usize))
        .collect();
    if cells.is_empty() {
        return (0.0, 0.0);
    }
    let mut scores: Vec<f64> = (0..RESAMPLES)
        .map(|resample| {
            let mut matrix = vec![vec![0u64; classes]; classes];
            for first in (0..cells.len()).step_by(4) {
                let block = (first / 4) as u64;
                let words = philox([block as u32, (block >> 32) as u32, resample, 0], [SEED, 0]);
                for word in words.into_iter().take(cells.len() - first) {
                    // The upper half of the product is uniform below the number of rows, up to rows / 2^32.
                    let cell = cells[((u64::from(word) * cells.len() as u64) >> 32) as usize] as usize;
                    matrix[cell / classes][cell % classes] += 1;
                }
            }
            match positive {
                Some(class) => class_metrics(&matrix, class, "").f1,
                None => {
                    let scores: Vec<f64> =
                        (0..classes).map(|class| class_metrics(&matrix, class, "").f1).collect();
                    mean_over(&matrix, None, |class| scores[class])
                }
            }
        })
        .collect();
    scores.sort_by(f64::total_cmp);
    (quantile(&scores, 0.025), quantile(&scores, 0.975))
}

/// A quantile of sorted values, interpolated linearly.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (place - place.floor()) * (sorted[above] - sorted[below])
}
