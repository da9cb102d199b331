//! Gauss-Legendre quadrature over 0..1.

use std::f64::consts::PI;

/// `n` places in 0..1 and their weights, which sum to 1: `integral f = sum weight f(place)`, exact for polynomials of degree
/// `2 n - 1`. Places are the roots of the Legendre polynomial `P_n`, by Newton's method (Abramowitz and Stegun 1964, 25.4.30). As
/// `numpy.polynomial.legendre.leggauss`, moved from -1..1, and so as captum's `gausslegendre`.
pub(crate) fn gauss_legendre(n: usize) -> Vec<(f64, f64)> {
    let mut rule: Vec<(f64, f64)> = (0..n).map(|i| root(n, i)).collect();
    rule.reverse();
    rule
}

/// The `i`-th largest root of `P_n` and its weight, moved to 0..1.
fn root(n: usize, i: usize) -> (f64, f64) {
    let mut x = (PI * (i as f64 + 0.75) / (n as f64 + 0.5)).cos();
    let mut slope = 1.0;
    // It converges quadratically from there; more steps change no bit.
    for _ in 0..8 {
        let (value, derivative) = legendre(n, x);
        x -= value / derivative;
        slope = derivative;
    }
    // On -1..1 the weight is twice that.
    let weight = 1.0 / ((1.0 - x * x) * slope * slope);
    (0.5 * (1.0 + x), weight)
}

/// `P_n(x)` and its derivative, by Bonnet's recursion.
fn legendre(n: usize, x: f64) -> (f64, f64) {
    let (mut before, mut value) = (1.0, x);
    for k in 2..=n {
        let k = k as f64;
        (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
    }
    (value, n as f64 * (x * value - before) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_integrated_exactly() {
        for n in [1, 2, 3, 5, 16, 50, 256] {
            let rule = gauss_legendre(n);
            assert!(rule.is_sorted_by(|a, b| a.0 < b.0) && rule.iter().all(|r| r.0 > 0.0 && r.0 < 1.0));
            for degree in [0, 1, 2 * n - 1] {
                let integral: f64 = rule.iter().map(|(x, w)| w * x.powi(degree as i32)).sum();
                let exact = 1.0 / (degree as f64 + 1.0);
                assert!((integral - exact).abs() < 1e-13, "{n} {degree}: {integral} {exact}");
            }
        }
    }

    /// `numpy.polynomial.legendre.leggauss(3)`: 0.5 (1 +- sqrt(3/5)), weights 5/18, 4/9, 5/18.
    #[test]
    fn three_places_are_the_textbooks() {
        let rule = gauss_legendre(3);
        let expected =
            [(0.5 - 0.15f64.sqrt(), 5.0 / 18.0), (0.5, 4.0 / 9.0), (0.5 + 0.15f64.sqrt(), 5.0 / 18.0)];
        for (got, expected) in rule.iter().zip(expected) {
            assert!((got.0 - expected.0).abs() < 1e-15 && (got.1 - expected.1).abs() < 1e-15, "{rule:?}");
        }
    }
}
