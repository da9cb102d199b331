//! [`minimise`]: limited-memory BFGS for smooth, strongly convex functions.
//!
//! Nocedal and Wright, *Numerical Optimization* (2006), algorithms 7.4 and 7.5. A step is halved until the function falls enough
//! (Armijo). Close to the optimum the fall is smaller than the function's rounding; there the slope decides, by the approximate Wolfe
//! condition of Hager and Zhang (2005, *SIAM Journal on Optimization* 16).

use serde::Serialize;
use std::collections::VecDeque;
use vitrine_tensor::cpu::parallel;

/// Pairs of steps and changes of the gradient that stand for the curvature.
const HISTORY: usize = 10;
/// Halvings of a step; after so many, the function no longer falls in f64.
const HALVINGS: usize = 40;
/// The share of the fall that the slope promises, which a step has to reach.
const ARMIJO: f64 = 1e-4;
/// The relative rounding of a sum of many terms.
const ROUNDING: f64 = 1e-12;
/// Numbers in one piece of a sum, so that sums do not depend on threads.
const PIECE: usize = 1 << 14;

/// How an optimisation ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Convergence {
    /// Steps.
    pub iterations: usize,
    /// Whether the gradient became as small as was wanted.
    pub converged: bool,
}

/// Goes from `x` to the minimum of `function`, which returns its value and writes its gradient. `is_over(x, gradient)` ends it; so
/// does a step that can no longer be improved in f64, or `most` steps.
pub fn minimise(
    x: &mut Vec<f64>,
    mut function: impl FnMut(&[f64], &mut [f64]) -> f64,
    is_over: impl Fn(&[f64], &[f64]) -> bool,
    most: usize,
) -> Convergence {
    let mut gradient = vec![0.0; x.len()];
    let mut value = function(x, &mut gradient);
    let mut history: VecDeque<Pair> = VecDeque::with_capacity(HISTORY);
    let (mut next, mut next_gradient) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    for iterations in 0..most {
        if is_over(x, &gradient) {
            return Convergence { iterations, converged: true };
        }
        let direction = direction(&gradient, &history);
        let slope = dot(&direction, &gradient);
        // Before there is a history, a step of length 1.
        let mut step = if history.is_empty() { 1.0 / dot(&gradient, &gradient).sqrt() } else { 1.0 };
        let mut halvings = 0;
        let next_value = loop {
            next.iter_mut().zip(&*x).zip(&direction).for_each(|((next, x), d)| *next = x + step * d);
            let next_value = function(&next, &mut next_gradient);
            let falls = next_value <= value + ARMIJO * step * slope;
            let is_close = (next_value - value).abs() <= ROUNDING * value.abs();
            if falls || is_close && dot(&next_gradient, &direction).abs() <= 0.8 * slope.abs() {
                break next_value;
            }
            halvings += 1;
            if halvings > HALVINGS {
                return Convergence { iterations, converged: false };
            }
            step /= 2.0;
        };
        let pair = Pair::of(x, &next, &gradient, &next_gradient);
        if pair.curvature > 0.0 {
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(pair);
        }
        std::mem::swap(x, &mut next);
        std::mem::swap(&mut gradient, &mut next_gradient);
        value = next_value;
    }
    Convergence { iterations: most, converged: is_over(x, &gradient) }
}

/// A step `s`, the gradient's change `y`, and `s . y`.
struct Pair {
    s: Vec<f64>,
    y: Vec<f64>,
    curvature: f64,
}

impl Pair {
    fn of(x: &[f64], next: &[f64], gradient: &[f64], next_gradient: &[f64]) -> Self {
        let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
        let (s, y) = (minus(next, x), minus(next_gradient, gradient));
        let curvature = dot(&s, &y);
        Pair { s, y, curvature }
    }
}

/// Minus the approximate inverse Hessian times the gradient: the two loops of algorithm 7.4.
fn direction(gradient: &[f64], history: &VecDeque<Pair>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(history.len());
    for Pair { s, y, curvature } in history.iter().rev() {
        let alpha = dot(s, &q) / curvature;
        add(&mut q, -alpha, y);
        alphas.push(alpha);
    }
    if let Some(Pair { y, curvature, .. }) = history.back() {
        let scale = curvature / dot(y, y);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for (Pair { s, y, curvature }, alpha) in history.iter().zip(alphas.into_iter().rev()) {
        let beta = dot(y, &q) / curvature;
        add(&mut q, alpha - beta, s);
    }
    q
}

/// `a . b`, in an order that does not depend on threads.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let piece =
        |range: std::ops::Range<usize>| a[range.clone()].iter().zip(&b[range]).map(|(a, b)| a * b).sum();
    parallel::map_reduce(a.len(), PIECE, piece, |a: f64, b| a + b).unwrap_or(0.0)
}

/// `to += factor x`.
fn add(to: &mut [f64], factor: f64, x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += factor * x);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badly_scaled_quadratic() {
        // sum of k (x_k - k)^2 / 2 for k = 1, 10, 100, .., 1e5.
        let scales: Vec<f64> = (0..6).map(|power| 10f64.powi(power)).collect();
        let function = |x: &[f64], gradient: &mut [f64]| {
            let mut value = 0.0;
            for ((g, &x), &k) in gradient.iter_mut().zip(x).zip(&scales) {
                *g = k * (x - k);
                value += *g * (x - k) / 2.0;
            }
            value
        };
        let mut x = vec![0.0; 6];
        let is_over = |_: &[f64], gradient: &[f64]| dot(gradient, gradient).sqrt() < 1e-6;
        let ended = minimise(&mut x, function, is_over, 500);
        assert!(ended.converged && ended.iterations < 200, "{ended:?}");
        for (x, k) in x.iter().zip(&scales) {
            assert!((x - k).abs() <= 1e-5, "{x} is not {k}");
        }
        let ended = minimise(&mut vec![0.0; 6], function, is_over, 2);
        assert_eq!(ended, Convergence { iterations: 2, converged: false });
    }
}
