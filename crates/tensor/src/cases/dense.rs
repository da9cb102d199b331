//! Rows of matrix products and linear layers.
//!
//! Tolerances: a product of K terms errs by about sqrt(K) roundings, gradients of weights by sqrt(T); an activation
//! adds its own four to eight units.

use super::elementwise::{gelu_erf_of, gelu_tanh_of};
use super::{Cost, Forward, Forwarded, Input, Low, Naive, NaiveResults, OpCase, Values};
use crate::ops::linear as linear_op;
use crate::ops::linear::{Activation, LinearNeeds};
use crate::ops::matmul as matmul_op;

/// `f` and its derivative applied to x and dy, rounded once each.
fn apply(f: fn(f64) -> (f64, f64), x: &[Low], dy: &[Low]) -> (Vec<Low>, Vec<Low>) {
    let y = x.iter().map(|x| x.map(|x| f(x).0)).collect();
    (y, x.iter().zip(dy).map(|(x, &dy)| x.map(|x| f(x).1) * dy).collect())
}

/// Textbook `a b` of `[m, k]` and `[k, n]` matrices.
fn product(a: &[Low], b: &[Low], [m, k, n]: [usize; 3]) -> Vec<Low> {
    let column = |j: usize| -> Vec<Low> { (0..k).map(|l| b[l * n + j]).collect() };
    let columns: Vec<Vec<Low>> = (0..n).map(column).collect();
    let zero = Low::new(0.0, crate::DType::F64);
    (0..m * n).map(|i| Low::dot(&a[i / n * k..][..k], &columns[i % n]).unwrap_or(zero)).collect()
}

/// The transpose of an `[m, n]` matrix.
fn transposed(a: &[Low], m: usize, n: usize) -> Vec<Low> {
    (0..m * n).map(|i| a[i % m * n + i / m]).collect()
}

/// `[m, k]` times `[k, n]`.
pub fn matmul(m: usize, k: usize, n: usize) -> OpCase {
    OpCase {
        op: "matmul",
        variant: format!("{m}x{k}x{n}"),
        inputs: vec![Input::new("a", &[m, k]), Input::new("b", &[k, n])],
        roundings: 2.0 * (m.max(k).max(n) as f64).sqrt() + 8.0,
        forward: Box::new(|inputs| {
            Ok(Forwarded { outputs: vec![matmul_op::matmul(&inputs[0], &inputs[1])?], saved: vec![] })
        }),
        backward: Some(Box::new(|inputs, _, douts| {
            let d = matmul_op::matmul_backward(&douts[0], &inputs[0], &inputs[1])?;
            Ok(vec![Some(d.da), Some(d.db)])
        })),
        naive: Some(Box::new(move |inputs, douts| {
            let (a, b, dy) = (&inputs[0], &inputs[1], &douts[0]);
            let da = product(dy, &transposed(b, k, n), [m, n, k]);
            let db = product(&transposed(a, m, k), dy, [k, m, n]);
            NaiveResults { outputs: vec![product(a, b, [m, k, n])], gradients: vec![Some(da), Some(db)] }
        })),
        cost: Cost { bytes: 4 * (m * k + k * n + m * n), flops: 2 * m * k * n },
        backward_cost: Cost { bytes: 8 * (m * k + k * n + m * n), flops: 4 * m * k * n },
    }
}

/// A linear layer from `k` to `n` features with bias, for `rows` rows.
pub fn linear(rows: usize, k: usize, n: usize, activation: Activation) -> OpCase {
    let std = 1.0 / (k.max(1) as f64).sqrt();
    let f: fn(f64) -> (f64, f64) = match activation {
        Activation::None => |x| (x, 1.0),
        Activation::GeluErf => gelu_erf_of,
        Activation::GeluTanh => gelu_tanh_of,
        Activation::Relu => |x| (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }),
        Activation::Tanh => |x| (x.tanh(), 1.0 - x.tanh().powi(2)),
    };
    OpCase {
        op: "linear",
        variant: format!("{rows}x{k}x{n}_{activation:?}").to_lowercase(),
        inputs: vec![
            Input::new("x", &[rows, k]),
            Input::new("weight", &[n, k]).values(Values::Normal { mean: 0.0, std }),
            Input::new("bias", &[n]).parameter(),
        ],
        roundings: 2.0 * (rows.max(k).max(n) as f64).sqrt() + 24.0,
        forward: Box::new(move |inputs| {
            let x = inputs[0].to_dtype(inputs[1].dtype())?;
            let out = linear_op::linear(&x, &inputs[1], Some((&inputs[2]).into()), activation, true)?;
            let saved = out.pre_activation.unwrap_or_else(|| out.y.clone());
            Ok(Forwarded { outputs: vec![out.y], saved: vec![saved] })
        }),
        backward: Some(Box::new(move |inputs, saved, douts| {
            let needs = LinearNeeds { x: Some(inputs[0].dtype()), weight: true, bias: true };
            let (x, weight) = (inputs[0].to_dtype(inputs[1].dtype())?, &inputs[1]);
            let (saved, so_far) = (saved.first(), douts.get(1));
            let d = linear_op::linear_backward(&douts[0], &x, weight, activation, saved, needs, so_far)?;
            Ok(vec![d.dx, d.dweight, d.dbias])
        })),
        naive: Some(Box::new(move |inputs, douts| {
            let (x, weight, bias) = (&inputs[0], &inputs[1], &inputs[2]);
            let xw = product(x, &transposed(weight, n, k), [rows, k, n]);
            let pre: Vec<Low> = xw.iter().enumerate().map(|(i, &y)| y + bias[i % n]).collect();
            let (y, dpre) = apply(f, &pre, &douts[0]);
            let dx = product(&dpre, weight, [rows, n, k]);
            let dweight = product(&transposed(&dpre, rows, n), x, [n, rows, k]);
            let column = |j: usize| Low::sum(dpre.iter().skip(j).step_by(n).copied());
            let dbias = (0..n).map(|j| column(j).unwrap_or(bias[j].like(0.0))).collect();
            NaiveResults { outputs: vec![y], gradients: vec![Some(dx), Some(dweight), Some(dbias)] }
        })),
        cost: Cost { bytes: 4 * (rows * k + n * k + rows * n), flops: 2 * rows * k * n },
        backward_cost: Cost { bytes: 8 * (rows * k + n * k + rows * n), flops: 4 * rows * k * n },
    }
}

/// A linear layer beside a residual connection: x itself is a result too, so that dx comes on top of that one's gradient.
/// In half precision x stays in F32.
pub fn linear_beside_residual(rows: usize, k: usize, n: usize, activation: Activation) -> OpCase {
    let OpCase { forward, naive, variant, .. } = linear(rows, k, n, activation);
    let forward: Forward = Box::new(move |inputs| {
        let mut out = forward(inputs)?;
        out.outputs.push(inputs[0].clone());
        Ok(out)
    });
    let naive: Option<Naive> = naive.map(|naive| -> Naive {
        Box::new(move |inputs, douts| {
            let mut results = naive(inputs, douts);
            results.outputs.push(inputs[0].clone());
            let dx = results.gradients[0].iter_mut().flatten();
            dx.zip(&douts[1]).for_each(|(dx, &so_far)| *dx = *dx + so_far);
            results
        })
    });
    let variant = variant + "_beside_residual";
    OpCase { forward, naive, variant, ..linear(rows, k, n, activation) }.with_wide("x")
}
