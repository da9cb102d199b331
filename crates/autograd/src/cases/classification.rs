//! Rows of softmax and cross entropy.
//!
//! Tolerances: an exponential is within two roundings of the exact one at its own rounded argument, and the argument
//! x - max is one rounding of at most 150 away from exact, which is at most 150 roundings of a result; but results whose
//! argument is that far below the maximum are e^-150 of the largest. `z e^-z < 0.37` bounds the product. The sum over C and the
//! elementwise rest are as in LayerNorm. Logarithms are compared with the largest logarithm.

use super::{Cost, Input, Low, NaiveResults, OpCase, one};

fn roundings(width: usize) -> f64 {
    2.0 * ((width as f64).sqrt() + 8.0)
}

/// Softmax of `[rows, width]`.
pub fn softmax(rows: usize, width: usize) -> OpCase {
    OpCase {
        op: "softmax",
        variant: format!("{rows}x{width}"),
        inputs: vec![Input::new("x", &[rows, width])],
        roundings: roundings(width),
        function: one(|v| v[0].softmax()),
        naive: Box::new(move |inputs, douts| {
            let (mut y, mut dx) = (Vec::new(), Vec::new());
            for (x, dy) in inputs[0].chunks(width).zip(douts[0].chunks(width)) {
                let row = softmax_of(x);
                let Some(dot) = Low::dot(dy, &row) else { continue };
                dx.extend(dy.iter().zip(&row).map(|(&dy, &y)| y * (dy - dot)));
                y.extend(row);
            }
            NaiveResults { outputs: vec![y], gradients: vec![dx] }
        }),
        cost: Cost { bytes: 8 * rows * width, flops: 5 * rows * width },
        backward_cost: Some(Cost { bytes: 12 * rows * width, flops: 4 * rows * width }),
    }
}

/// Textbook softmax of a row.
pub(super) fn softmax_of(x: &[Low]) -> Vec<Low> {
    let max = x.iter().fold(f64::NEG_INFINITY, |max, x| max.max(x.get()));
    let exponentials: Vec<Low> = x.iter().map(|&x| (x - x.like(max)).map(f64::exp)).collect();
    match Low::sum(exponentials.iter().copied()) {
        Some(sum) => exponentials.into_iter().map(|e| e / sum).collect(),
        None => exponentials,
    }
}

/// Logarithm of the softmax of `[rows, width]`.
pub fn log_softmax(rows: usize, width: usize) -> OpCase {
    OpCase {
        op: "log_softmax",
        variant: format!("{rows}x{width}"),
        inputs: vec![Input::new("x", &[rows, width])],
        roundings: roundings(width),
        function: one(|v| v[0].log_softmax()),
        naive: Box::new(move |inputs, douts| {
            let (mut y, mut dx) = (Vec::new(), Vec::new());
            for (x, dy) in inputs[0].chunks(width).zip(douts[0].chunks(width)) {
                let max = x.iter().fold(f64::NEG_INFINITY, |max, x| max.max(x.get()));
                let shifted: Vec<Low> = x.iter().map(|&x| x - x.like(max)).collect();
                let Some(sum) = Low::sum(shifted.iter().map(|x| x.map(f64::exp))) else { continue };
                let row: Vec<Low> = shifted.iter().map(|&x| x - sum.map(f64::ln)).collect();
                let Some(sum) = Low::sum(dy.iter().copied()) else { continue };
                dx.extend(dy.iter().zip(&row).map(|(&dy, y)| dy - y.map(f64::exp) * sum));
                y.extend(row);
            }
            NaiveResults { outputs: vec![y], gradients: vec![dx] }
        }),
        cost: Cost { bytes: 8 * rows * width, flops: 5 * rows * width },
        backward_cost: Some(Cost { bytes: 12 * rows * width, flops: 4 * rows * width }),
    }
}

/// Mean cross entropy of `[rows, classes]`.
pub fn cross_entropy(rows: usize, classes: usize) -> OpCase {
    let labels: std::sync::Arc<[u32]> = (0..rows).map(|row| (row * 7 % classes) as u32).collect();
    let naive_labels = labels.clone();
    OpCase {
        op: "cross_entropy",
        variant: format!("{rows}x{classes}"),
        inputs: vec![Input::new("logits", &[rows, classes])],
        roundings: roundings(classes),
        function: one(move |v| v[0].cross_entropy(&labels)),
        naive: Box::new(move |inputs, douts| {
            let (mut losses, mut dlogits) = (Vec::new(), Vec::new());
            let scale = douts[0][0].map(|d| d / rows as f64);
            for (x, &label) in inputs[0].chunks(classes).zip(naive_labels.iter()) {
                let probabilities = softmax_of(x);
                let max = x.iter().fold(f64::NEG_INFINITY, |max, x| max.max(x.get()));
                let exponentials = x.iter().map(|&x| (x - x.like(max)).map(f64::exp));
                let Some(sum) = Low::sum(exponentials) else { continue };
                losses.push(sum.map(f64::ln) - (x[label as usize] - x[0].like(max)));
                dlogits.extend(probabilities.iter().enumerate().map(|(class, &p)| {
                    let target = if class == label as usize { 1.0 } else { 0.0 };
                    scale * (p - p.like(target))
                }));
            }
            let loss = Low::sum(losses).into_iter().map(|sum| sum.map(|sum| sum / rows as f64)).collect();
            NaiveResults { outputs: vec![loss], gradients: vec![dlogits] }
        }),
        cost: Cost { bytes: 8 * rows * classes, flops: 5 * rows * classes },
        backward_cost: Some(Cost { bytes: 8 * rows * classes, flops: 2 * rows * classes }),
    }
}
