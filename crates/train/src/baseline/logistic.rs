//! [`Logistic`]: logistic regression with the L2 penalty, of two classes or more.
//!
//! Mirrors `LogisticRegression` of scikit-learn (`sklearn/linear_model/_logistic.py`): two classes share one column of weights,
//! more have one each (softmax); intercepts are not held back. With rows x, labels y, weights W and intercepts b it minimises
//!
//! `1/n sum_i -log p(y_i | x_i) + 1 / (2 C n) |W|^2`, `p = softmax(x W + b)`, or `p(1) = sigmoid(x w + b)`.

use super::lbfgs::{Convergence, dot, minimise};
use super::sparse::SparseRows;

/// The function is strongly convex in the weights with the modulus `1 / (C n)`, so a gradient of at most this share of
/// `|W| / (C n)` leaves the weights within this share of the optimum's.
const TOLERANCE: f64 = 1e-5;
/// Steps at most; reviews take about a hundred.
const STEPS: usize = 2000;

/// Fitted weights.
#[derive(Clone, Debug)]
pub struct Logistic {
    classes: usize,
    /// `[features, outputs]`, row-major, and then the intercepts.
    weights: Vec<f64>,
}

/// Columns of weights for so many classes.
pub fn outputs(classes: usize) -> usize {
    if classes == 2 { 1 } else { classes }
}

impl Logistic {
    /// Fits it to rows `x` and their labels below `classes`.
    pub fn fit(x: &SparseRows, labels: &[usize], classes: usize, c: f64) -> (Self, Convergence) {
        let (rows, outputs) = (x.rows() as f64, outputs(classes));
        let (penalty, split) = (1.0 / (c * rows), x.width * outputs);
        let transposed = x.transposed();
        let function = |weights: &[f64], gradient: &mut [f64]| {
            let logits = logits(x, weights, outputs);
            let (loss, residuals) = loss_and_residuals(logits, labels, outputs);
            let products = transposed.times(&residuals, outputs);
            for ((g, &product), &weight) in gradient.iter_mut().zip(&products).zip(weights) {
                *g = product / rows + penalty * weight;
            }
            for (output, g) in gradient[split..].iter_mut().enumerate() {
                *g = residuals.iter().skip(output).step_by(outputs).sum::<f64>() / rows;
            }
            loss / rows + penalty / 2.0 * dot(&weights[..split], &weights[..split])
        };
        let norm = |x: &[f64]| dot(x, x).sqrt();
        let is_over = |weights: &[f64], gradient: &[f64]| {
            let gradient = norm(gradient);
            gradient == 0.0 || gradient <= TOLERANCE * penalty * norm(&weights[..split])
        };
        let mut weights = vec![0.0; split + outputs];
        let convergence = minimise(&mut weights, function, is_over, STEPS);
        (Logistic { classes, weights }, convergence)
    }

    /// `x W + b`: `[rows, outputs]`.
    pub fn decision_function(&self, x: &SparseRows) -> Vec<f64> {
        logits(x, &self.weights, outputs(self.classes))
    }

    /// `[rows, classes]`.
    pub fn log_probabilities(&self, x: &SparseRows) -> Vec<f64> {
        let logits = self.decision_function(x);
        match outputs(self.classes) {
            1 => logits.iter().flat_map(|&z| [-softplus(z), -softplus(-z)]).collect(),
            classes => logits
                .chunks_exact(classes)
                .flat_map(|row| {
                    let log_sum = log_sum_exp(row);
                    row.iter().map(move |z| z - log_sum)
                })
                .collect(),
        }
    }

    /// The weight of each feature in the logit of a class; of two classes, the first has the other's with the sign turned.
    pub fn weights_of(&self, class: usize) -> Vec<f64> {
        let outputs = outputs(self.classes);
        let weights = &self.weights[..self.weights.len() - outputs];
        match outputs {
            1 if class == 0 => weights.iter().map(|weight| -weight).collect(),
            1 => weights.to_vec(),
            _ => weights.iter().skip(class).step_by(outputs).copied().collect(),
        }
    }
}

fn logits(x: &SparseRows, weights: &[f64], outputs: usize) -> Vec<f64> {
    let (weights, intercepts) = weights.split_at(x.width * outputs);
    let mut logits = x.times(weights, outputs);
    for row in logits.chunks_exact_mut(outputs) {
        row.iter_mut().zip(intercepts).for_each(|(z, intercept)| *z += intercept);
    }
    logits
}

/// The sum of the rows' losses, and its gradient by the logits, which it replaces.
fn loss_and_residuals(mut logits: Vec<f64>, labels: &[usize], outputs: usize) -> (f64, Vec<f64>) {
    let mut loss = 0.0;
    for (row, &label) in logits.chunks_exact_mut(outputs).zip(labels) {
        if let [z] = row {
            let y = label as f64;
            loss += softplus(*z) - y * *z;
            *z = 1.0 / (1.0 + (-*z).exp()) - y;
        } else {
            let log_sum = log_sum_exp(row);
            loss += log_sum - row[label];
            row.iter_mut().for_each(|z| *z = (*z - log_sum).exp());
            row[label] -= 1.0;
        }
    }
    (loss, logits)
}

/// `ln(1 + e^z)`.
fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

fn log_sum_exp(row: &[f64]) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + row.iter().map(|z| (z - max).exp()).sum::<f64>().ln()
}
