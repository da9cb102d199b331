//! [`Probe`]: a linear classifier on states of a model, to see what they hold (Alain and Bengio 2016, arXiv 1610.01644).

use crate::prediction::finite;
use crate::{ExplainError, Result, Rows};
use std::collections::VecDeque;

/// Pairs of steps that L-BFGS remembers.
const MEMORY: usize = 10;
/// The gradient's largest element at which the optimum is found.
const FOUND: f64 = 1e-6;
/// Steps after which it gives up.
const MOST_STEPS: usize = 1000;

/// Multinomial logistic regression on standardised columns.
#[derive(Clone, Debug)]
pub struct Probe {
    classes: usize,
    /// Mean of each column in training, and what it is divided by.
    scale: Vec<(f64, f64)>,
    /// `[K, width + 1]`, the last column being the bias.
    weights: Vec<f64>,
    /// Steps that the solver took.
    pub steps: usize,
    /// Whether it found the optimum.
    pub converged: bool,
    /// The mean cross entropy in training, penalty included.
    pub loss: f64,
}

impl Probe {
    /// Fits `argmin mean cross entropy + l2 / 2 |W|^2` by L-BFGS over all rows (Nocedal and Wright 2006, algorithm 7.5), in f64 and from
    /// zero: the result is a function of rows and labels alone. Biases bear no penalty. With `l2 = 1 / rows` it is scikit-learn's
    /// multinomial `LogisticRegression(C=1)` on standardised columns.
    ///
    /// # Errors
    /// `Setting` for no row, another number of labels, a label that is no class, or an `l2` that is not above 0; `NotFinite`.
    pub fn fit(rows: &Rows, labels: &[u32], classes: usize, l2: f64) -> Result<Probe> {
        let setting = |name, expected, got: String| Err(ExplainError::Setting { name, expected, got });
        if rows.count() == 0 || rows.count() != labels.len() {
            let got = format!("{} rows and {} labels", rows.count(), labels.len());
            return setting("a probe's data", "rows with a label each", got);
        }
        if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
            return setting("a label", "a class", label.to_string());
        }
        if !(l2 > 0.0 && l2.is_finite()) {
            return setting("l2", "a number above 0", l2.to_string());
        }
        finite("a state", &rows.values)?;
        let scale = standard(rows);
        let problem = Problem { rows: &scaled(rows, &scale), labels, classes, l2 };
        let found = minimise(vec![0.0; classes * (rows.width + 1)], |weights| problem.loss(weights));
        let (weights, loss, steps, converged) = found;
        finite("a probe's loss", &[loss])?;
        Ok(Probe { classes, scale, weights, steps, converged, loss })
    }

    /// The class of each row; of equals the first.
    pub fn predict(&self, rows: &Rows) -> Vec<u32> {
        let rows = scaled(rows, &self.scale);
        let best = |row: &[f64]| {
            let scores = scores(&self.weights, row, self.classes);
            (0..self.classes).fold(0, |best, class| if scores[class] > scores[best] { class } else { best })
        };
        rows.iter().map(|row| best(row) as u32).collect()
    }
}

/// Mean and standard deviation of each column; 1 for one that does not vary.
fn standard(rows: &Rows) -> Vec<(f64, f64)> {
    let count = rows.count() as f64;
    let mut sums = vec![(0.0, 0.0); rows.width];
    rows.iter().for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, x)| sum.0 += x / count));
    for row in rows.iter() {
        sums.iter_mut().zip(row).for_each(|((mean, square), x)| *square += (x - *mean).powi(2) / count);
    }
    let scale = |(mean, square): (f64, f64)| (mean, if square > 0.0 { square.sqrt() } else { 1.0 });
    sums.into_iter().map(scale).collect()
}

fn scaled(rows: &Rows, scale: &[(f64, f64)]) -> Rows {
    let row = |row: &[f64]| row.iter().zip(scale).map(|(x, (mean, by))| (x - mean) / by).collect::<Vec<_>>();
    Rows { values: rows.iter().flat_map(row).collect(), width: rows.width }
}

/// Of each class the product of a row with its weights, and its bias.
fn scores(weights: &[f64], row: &[f64], classes: usize) -> Vec<f64> {
    let score = |weights: &[f64]| dot(&weights[..row.len()], row) + weights[row.len()];
    weights.chunks(weights.len() / classes).map(score).collect()
}

struct Problem<'a> {
    rows: &'a Rows,
    labels: &'a [u32],
    classes: usize,
    l2: f64,
}

impl Problem<'_> {
    /// The loss and its gradient.
    fn loss(&self, weights: &[f64]) -> (f64, Vec<f64>) {
        let (width, count) = (self.rows.width, self.rows.count() as f64);
        let mut gradient = vec![0.0; weights.len()];
        let mut loss = 0.0;
        for (row, &label) in self.rows.iter().zip(self.labels) {
            let scores = scores(weights, row, self.classes);
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - most).exp()).sum();
            loss += (most + sum.ln() - scores[label as usize]) / count;
            for (class, score) in scores.iter().enumerate() {
                let probability = (score - most).exp() / sum;
                let error = (probability - f64::from(u8::from(class == label as usize))) / count;
                let of_class = &mut gradient[class * (width + 1)..][..width + 1];
                of_class.iter_mut().zip(row).for_each(|(sum, x)| *sum += error * x);
                of_class[width] += error;
            }
        }
        for (gradient, weights) in gradient.chunks_mut(width + 1).zip(weights.chunks(width + 1)) {
            loss += 0.5 * self.l2 * dot(&weights[..width], &weights[..width]);
            gradient[..width].iter_mut().zip(weights).for_each(|(sum, weight)| *sum += self.l2 * weight);
        }
        (loss, gradient)
    }
}

/// L-BFGS with backtracking to a sufficient decrease. Returns the place, its loss, the steps, and whether the gradient vanished.
fn minimise(mut x: Vec<f64>, f: impl Fn(&[f64]) -> (f64, Vec<f64>)) -> (Vec<f64>, f64, usize, bool) {
    let (mut loss, mut gradient) = f(&x);
    let mut memory: VecDeque<(Vec<f64>, Vec<f64>)> = VecDeque::with_capacity(MEMORY);
    for step in 0..MOST_STEPS {
        if gradient.iter().all(|value| value.abs() <= FOUND) {
            return (x, loss, step, true);
        }
        let direction = descent(&gradient, &memory);
        let slope = dot(&direction, &gradient);
        // Armijo's condition; of a strictly convex loss some length meets it, down to rounding.
        let tried = (0..60).map(|halvings| 0.5f64.powi(halvings)).find_map(|length| {
            let next: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + length * d).collect();
            let (new, slopes) = f(&next);
            (new <= loss + 1e-4 * length * slope).then_some((next, new, slopes))
        });
        let Some((next, new, slopes)) = tried else { return (x, loss, step, false) };
        let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>();
        let (moved, turned) = (difference(&next, &x), difference(&slopes, &gradient));
        if dot(&moved, &turned) > 1e-12 * dot(&turned, &turned) {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back((moved, turned));
        }
        (x, loss, gradient) = (next, new, slopes);
    }
    (x, loss, MOST_STEPS, false)
}

/// Minus the gradient times the inverse Hessian as the memory has it: the two loops of Nocedal 1980.
fn descent(gradient: &[f64], memory: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|value| -value).collect();
    let mut factors = Vec::with_capacity(memory.len());
    for (moved, turned) in memory.iter().rev() {
        let factor = dot(moved, &direction) / dot(moved, turned);
        direction.iter_mut().zip(turned).for_each(|(d, turned)| *d -= factor * turned);
        factors.push(factor);
    }
    if let Some((moved, turned)) = memory.back() {
        let scale = dot(moved, turned) / dot(turned, turned);
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for ((moved, turned), factor) in memory.iter().zip(factors.iter().rev()) {
        let back = dot(turned, &direction) / dot(moved, turned);
        direction.iter_mut().zip(moved).for_each(|(d, moved)| *d += (factor - back) * moved);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that repeat after a long while (Knuth's MMIX generator), -1..1.
    fn noise(count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn data(count: usize, width: usize, seed: u64) -> Rows {
        Rows { values: noise(count * width, seed), width }
    }

    #[test]
    fn separable_classes_are_separated() {
        let [train, test] = [1, 2].map(|seed| data(300, 8, seed));
        // The largest of three linear scores.
        let label = |row: &[f64]| {
            let scores = [row[0] - row[3], row[5] + 0.2, row[1] + 0.5 * row[2]];
            (0..3).fold(0, |best, class| if scores[class] > scores[best] { class } else { best }) as u32
        };
        let labels = |rows: &Rows| rows.iter().map(label).collect::<Vec<_>>();
        let probe = Probe::fit(&train, &labels(&train), 3, 1e-4).unwrap();
        assert!(probe.converged, "{probe:?}");
        let right = |rows: &Rows| {
            let guessed = probe.predict(rows);
            guessed.iter().zip(labels(rows)).filter(|(a, b)| **a == *b).count() as f64 / 300.0
        };
        assert!(right(&train) > 0.98 && right(&test) > 0.93, "{} {}", right(&train), right(&test));
    }

    /// Where labels are drawn at random there is nothing to learn, and a held-out accuracy near one half says so.
    #[test]
    fn random_labels_are_not_learned() {
        let [train, test] = [3, 4].map(|seed| data(400, 5, seed));
        let labels = |seed| noise(400, seed).iter().map(|&x| u32::from(x > 0.0)).collect::<Vec<_>>();
        let probe = Probe::fit(&train, &labels(5), 2, 1e-2).unwrap();
        let right = probe.predict(&test).iter().zip(labels(6)).filter(|(a, b)| **a == *b).count();
        assert!((140..=260).contains(&right), "{right}");
    }

    /// At the optimum every derivative is zero, by central differences of the loss written anew.
    #[test]
    fn the_optimum_is_one() {
        const STEP: f64 = 1e-5;
        let rows = data(40, 3, 7);
        let labels: Vec<u32> = (0..40).map(|i| (i * 7 % 5 % 3) as u32).collect();
        let probe = Probe::fit(&rows, &labels, 3, 0.05).unwrap();
        let loss = |weights: &[f64]| {
            let mut total = 0.0;
            for (row, &label) in rows.iter().zip(&labels) {
                let score = |class: usize| {
                    let weights = &weights[class * 4..][..4];
                    let x = |c: usize| (row[c] - probe.scale[c].0) / probe.scale[c].1;
                    weights[0] * x(0) + weights[1] * x(1) + weights[2] * x(2) + weights[3]
                };
                let sum: f64 = (0..3).map(|class| score(class).exp()).sum();
                total -= (score(label as usize).exp() / sum).ln() / 40.0;
            }
            let penalised = weights.iter().enumerate().filter(|(i, _)| i % 4 != 3);
            total + 0.025 * penalised.map(|(_, w)| w * w).sum::<f64>()
        };
        assert!((loss(&probe.weights) - probe.loss).abs() < 1e-12);
        for place in 0..12 {
            let moved = |by: f64| {
                let mut weights = probe.weights.clone();
                weights[place] += by;
                loss(&weights)
            };
            let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            assert!(slope.abs() < 2e-6, "{place}: {slope}");
        }
    }

    /// Columns of other units change nothing, and a constant column divides by no zero.
    #[test]
    fn units_do_not_matter() {
        let rows = data(60, 4, 8);
        let labels: Vec<u32> = rows.iter().map(|row| u32::from(row[1] > 0.0)).collect();
        let other = |row: &[f64]| vec![1000.0 * row[0] + 5.0, -row[1], row[2] / 64.0, row[3], 3.0];
        let others = Rows { values: rows.iter().flat_map(other).collect(), width: 5 };
        let [a, b] = [&rows, &others].map(|rows| Probe::fit(rows, &labels, 2, 0.1).unwrap());
        assert!((a.loss - b.loss).abs() < 1e-9, "{} {}", a.loss, b.loss);
        assert_eq!(a.predict(&rows), b.predict(&others));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let rows = data(4, 2, 9);
        let refused =
            |rows: &Rows, labels: &[u32], l2| Probe::fit(rows, labels, 2, l2).unwrap_err().is_usage();
        assert!(refused(&rows, &[0, 1, 0], 1.0));
        assert!(refused(&rows, &[0, 1, 0, 2], 1.0));
        assert!(refused(&rows, &[0, 1, 0, 1], 0.0) && refused(&rows, &[0, 1, 0, 1], f64::NAN));
        assert!(refused(&Rows { values: vec![], width: 2 }, &[], 1.0));
        let bad = Rows { values: vec![f64::NAN, 0.0], width: 1 };
        assert!(Probe::fit(&bad, &[0, 1], 2, 1.0).is_err());
    }
}
