//! Comparing runs: mean and standard deviation over seeds, and paired tests between two settings.

/// Mean and standard deviation of a few runs.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// Runs.
    pub runs: usize,
    /// Their mean.
    pub mean: f64,
    /// The sample standard deviation (divided by runs - 1); none of a single run.
    pub standard_deviation: Option<f64>,
}

impl Spread {
    /// Of these values; none of no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let runs = values.len();
        let mean = values.iter().sum::<f64>() / runs as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let standard_deviation = (runs > 1).then(|| (squares / (runs - 1) as f64).sqrt());
        (runs > 0).then_some(Spread { runs, mean, standard_deviation })
    }
}

/// McNemar's test of two classifiers on the same rows: the two-sided probability that the rows which only one of them gets right
/// split at least as unevenly, if both were equally good.
///
/// Each of the `n = only_first + only_second` discordant rows is then a fair coin, so this is the exact binomial test, for any
/// number of rows: `2 sum_(k <= min) C(n, k) / 2^n`, at most 1. McNemar 1947, *Psychometrika* 12; `mcnemar(exact=True)` in
/// statsmodels.
pub fn mcnemar(only_first: usize, only_second: usize) -> f64 {
    let n = only_first + only_second;
    let least = only_first.min(only_second);
    // ln C(n, least) - n ln 2: the term itself may be below the smallest f64.
    let largest: f64 = (0..least).map(|i| ((n - i) as f64 / (i + 1) as f64).ln()).sum::<f64>()
        - n as f64 * std::f64::consts::LN_2;
    // From the largest term down, each as a share of it.
    let (mut share, mut sum) = (1.0, 1.0);
    for k in (1..=least).rev() {
        share *= k as f64 / (n - k + 1) as f64;
        sum += share;
    }
    (2.0 * sum * largest.exp()).min(1.0)
}

/// The paired t-test of differences, such as of two settings' accuracies seed by seed: the two-sided probability of a mean that is
/// at least as far from 0. None of fewer than two; of equal differences, 0 or, if they are 0, 1.
pub fn paired_t(differences: &[f64]) -> Option<f64> {
    let spread = Spread::of(differences)?;
    let deviation = spread.standard_deviation?;
    if spread.mean == 0.0 {
        return Some(1.0);
    }
    let t = spread.mean.abs() / (deviation / (spread.runs as f64).sqrt());
    Some(two_sided_t(t, spread.runs - 1))
}

/// `P(|T| >= t)` with so many degrees of freedom: Abramowitz and Stegun, 26.7.3 and 26.7.4.
fn two_sided_t(t: f64, freedom: usize) -> f64 {
    let theta = (t / (freedom as f64).sqrt()).atan();
    let (sin, cos) = theta.sin_cos();
    let is_odd = freedom % 2 == 1;
    let (mut term, mut sum) = if is_odd { (cos, cos) } else { (1.0, 1.0) };
    let mut k = if is_odd { 1 } else { 0 };
    while k + 2 < freedom {
        // Odd: cos + 2/3 cos^3 + ..; even: 1 + 1/2 cos^2 + ..
        term *= cos * cos * (k + 1) as f64 / (k + 2) as f64;
        sum += term;
        k += 2;
    }
    let inside = match (is_odd, freedom) {
        (true, 1) => 2.0 / std::f64::consts::PI * theta,
        (true, _) => 2.0 / std::f64::consts::PI * (theta + sin * sum),
        (false, _) => sin * sum,
    };
    (1.0 - inside).clamp(0.0, 1.0)
}

/// Holm's adjustment of probabilities for the number of tests (Holm 1979, *Scandinavian Journal of Statistics* 6): below `alpha`
/// are those that reject with at most `alpha` of any false rejection.
pub fn holm(probabilities: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
    let mut adjusted = vec![0.0; probabilities.len()];
    let mut largest = 0f64;
    for (rank, &test) in order.iter().enumerate() {
        largest = largest.max((probabilities.len() - rank) as f64 * probabilities[test]).min(1.0);
        adjusted[test] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() <= 1e-9 * expected.abs().max(1e-9), "{got} is not {expected}");
    }

    #[test]
    fn mcnemar_is_the_binomial_test() {
        close(mcnemar(0, 0), 1.0);
        close(mcnemar(5, 5), 1.0);
        close(mcnemar(0, 1), 1.0);
        // 2 (1 + 10) / 2^10, and the same the other way round.
        close(mcnemar(1, 9), 22.0 / 1024.0);
        close(mcnemar(9, 1), 22.0 / 1024.0);
        close(mcnemar(0, 20), 2.0 / f64::from(1 << 20));
        // Every sum by whole numbers.
        for n in 1..60u64 {
            let mut row = vec![1u128];
            for k in 0..n {
                let next = row[k as usize] * u128::from(n - k) / u128::from(k + 1);
                row.push(next);
            }
            for least in 0..=n / 2 {
                let sum: u128 = row[..=least as usize].iter().sum();
                let exact = (2.0 * sum as f64 / 2f64.powi(n as i32)).min(1.0);
                let got = mcnemar(least as usize, (n - least) as usize);
                assert!((got - exact).abs() < 1e-12, "{least} of {n}: {got} {exact}");
            }
        }
    }

    #[test]
    fn mcnemar_of_many_rows_is_near_chi_squared() {
        // (|600 - 500| - 1)^2 / 1100 = 8.91: chi-squared with one degree of freedom gives 0.00284.
        let p = mcnemar(600, 500);
        assert!((p - 0.00284).abs() < 5e-5, "{p}");
        let p = mcnemar(0, 20_000);
        assert!((0.0..1e-300).contains(&p), "{p}");
    }

    #[test]
    fn t_tests_of_tables() {
        // Quantiles of Student's distribution for a two-sided 5 %, from any table.
        for (freedom, quantile) in [
            (1, 12.7062),
            (2, 4.30265),
            (3, 3.18245),
            (4, 2.77645),
            (5, 2.57058),
            (9, 2.26216),
            (30, 2.04227),
        ] {
            let p = two_sided_t(quantile, freedom);
            assert!((p - 0.05).abs() < 2e-6, "{freedom}: {p}");
        }
        assert_eq!(paired_t(&[0.5]), None);
        assert_eq!(paired_t(&[0.0, 0.0]), Some(1.0));
        assert_eq!(paired_t(&[0.25, 0.25]), Some(0.0));
        // t = 2 / (1 / sqrt 3) = 3.4641 with 2 degrees of freedom: p = 1 - t / sqrt(t^2 + 2).
        close(paired_t(&[1.0, 2.0, 3.0]).unwrap(), 1.0 - (12f64 / 14.0).sqrt());
    }

    #[test]
    fn spreads_and_adjustments() {
        let spread = Spread::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        close(spread.mean, 5.0);
        close(spread.standard_deviation.unwrap(), (32f64 / 7.0).sqrt());
        assert_eq!(Spread::of(&[3.0]).unwrap().standard_deviation, None);
        assert_eq!(Spread::of(&[]), None);
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (got, expected) in adjusted.into_iter().zip([0.03, 0.06, 0.06, 0.02]) {
            close(got, expected);
        }
        assert!(holm(&[]).is_empty());
    }
}
