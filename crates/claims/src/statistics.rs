//! Intervals: the percentile bootstrap, with draws that are a function of the seed.

use crate::evidence::Valued;
use vitrine_tensor::random::philox;
pub use vitrine_train::metrics::wilson_interval;

/// Resamples of an interval.
pub const RESAMPLES: u32 = 2000;
/// What the draws are a function of.
pub const SEED: u64 = 20;
/// How such an interval is called.
pub const BOOTSTRAP: &str = "95 %, percentile bootstrap, 2,000 resamples";
/// How that of a share is called.
pub const WILSON: &str = "95 %, Wilson";

/// The 95 % percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13) of a statistic of `units` that were drawn
/// independently. `statistic` is given the chosen units. None where one of the resamples has no finite statistic, or there are fewer
/// than two units.
pub fn bootstrap(units: usize, statistic: impl Fn(&[usize]) -> f64) -> Option<(f64, f64)> {
    if units < 2 {
        return None;
    }
    let mut chosen = vec![0; units];
    let mut values = Vec::with_capacity(RESAMPLES as usize);
    for resample in 0..RESAMPLES {
        for (block, places) in chosen.chunks_mut(4).enumerate() {
            let words = philox([block as u32, 0, resample, 0], [SEED as u32, 0]);
            for (place, word) in places.iter_mut().zip(words) {
                // The upper half of the product is uniform below the number of units, up to units / 2^32.
                *place = ((u64::from(word) * units as u64) >> 32) as usize;
            }
        }
        let value = statistic(&chosen);
        if !value.is_finite() {
            return None;
        }
        values.push(value);
    }
    values.sort_by(f64::total_cmp);
    Some((quantile(&values, 0.025), quantile(&values, 0.975)))
}

/// A quantile of sorted values, interpolated linearly.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (place - place.floor()) * (sorted[above] - sorted[below])
}

/// The mean of some of the values; NaN of none.
pub fn mean_of(values: &[f64], chosen: &[usize]) -> f64 {
    chosen.iter().map(|&index| values[index]).sum::<f64>() / chosen.len() as f64
}

/// Mean and its bootstrap interval.
pub fn mean(values: &[f64]) -> Valued {
    let all: Vec<usize> = (0..values.len()).collect();
    (mean_of(values, &all), bootstrap(values.len(), |chosen| mean_of(values, chosen)))
}

/// The mean of `above` divided by the mean of `below`, of the same units, and its interval.
pub fn ratio(above: &[f64], below: &[f64]) -> Valued {
    let of = |chosen: &[usize]| mean_of(above, chosen) / mean_of(below, chosen);
    let all: Vec<usize> = (0..above.len()).collect();
    (of(&all), bootstrap(above.len(), of))
}

/// The share of rows that are right, and its Wilson interval.
pub fn share(right: &[bool]) -> Valued {
    let count = right.iter().filter(|&&right| right).count();
    let share = count as f64 / right.len() as f64;
    (share, (!right.is_empty()).then(|| wilson_interval(share, right.len() as u64)))
}

/// How much larger the share is in `first` than in `second`, of the same rows, and its interval.
pub fn paired(first: &[bool], second: &[bool]) -> Valued {
    let number = |right: bool| f64::from(u8::from(right));
    let differences: Vec<f64> = first.iter().zip(second).map(|(&a, &b)| number(a) - number(b)).collect();
    mean(&differences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_what_theory_says() {
        // 400 numbers with mean 0.5 and standard deviation 0.5: the mean's is 0.025.
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let (value, interval) = mean(&values);
        let (low, high) = interval.unwrap();
        assert_eq!(value, 0.5);
        assert!((low - 0.451).abs() < 0.006 && (high - 0.549).abs() < 0.006, "{low} {high}");
        assert_eq!(mean(&values).1, interval, "the same draws each time");
        assert_eq!(ratio(&values, &values), (1.0, Some((1.0, 1.0))));
        assert_eq!(ratio(&values, &vec![0.0; 400]).1, None);
        assert_eq!((mean(&[1.0]).1, mean(&[f64::NAN, 1.0]).1), (None, None));
        let right: Vec<bool> = (0..100).map(|i| i < 90).collect();
        assert_eq!(share(&right).1, Some(wilson_interval(0.9, 100)));
        assert_eq!(paired(&right, &right), (0.0, Some((0.0, 0.0))));
        assert_eq!(paired(&right, &[false; 100]).0, 0.9);
        assert_eq!(share(&[]).1, None);
    }
}
