//! Rows of matrix products and linear layers.
//!
//! Tolerances: a product of K terms errs by about sqrt(K) roundings, gradients of weights by sqrt(T), a gradient of an operand
//! that is repeated over a batch by the square root of that, too; an activation adds its own four to eight units.

use super::elementwise::{broadcast_shape, collected, gelu_erf_of, gelu_tanh_of, sources};
use super::{Cost, Function, Input, Low, Naive, NaiveResults, OpCase, Values, one};
use vitrine_tensor::DType;
use vitrine_tensor::ops::linear::Activation;

/// A function and its derivative.
type WithDerivative = fn(f64) -> (f64, f64);

/// `f` and its derivative applied to x and dy, rounded once each.
fn apply(f: WithDerivative, x: &[Low], dy: &[Low]) -> (Vec<Low>, Vec<Low>) {
    let y = x.iter().map(|x| x.map(|x| f(x).0)).collect();
    (y, x.iter().zip(dy).map(|(x, &dy)| x.map(|x| f(x).1) * dy).collect())
}

/// Textbook `a b` of `[m, k]` and `[k, n]` matrices.
fn product(a: &[Low], b: &[Low], [m, k, n]: [usize; 3]) -> Vec<Low> {
    let column = |j: usize| -> Vec<Low> { (0..k).map(|l| b[l * n + j]).collect() };
    let columns: Vec<Vec<Low>> = (0..n).map(column).collect();
    let zero = Low::new(0.0, DType::F64);
    (0..m * n).map(|i| Low::dot(&a[i / n * k..][..k], &columns[i % n]).unwrap_or(zero)).collect()
}

/// The transpose of an `[m, n]` matrix.
fn transposed(a: &[Low], m: usize, n: usize) -> Vec<Low> {
    (0..m * n).map(|i| a[i % m * n + i / m]).collect()
}

/// `[m, k]` times `[k, n]`.
pub fn matmul(m: usize, k: usize, n: usize) -> OpCase {
    matmul_of(&[m, k], &[k, n]).named(&format!("{m}x{k}x{n}"))
}

/// Products of batches of matrices, `[.., M, K]` times `[.., K, N]`, whose batches broadcast.
///
/// # Panics
/// For shapes that do not multiply.
pub fn matmul_of(a: &[usize], b: &[usize]) -> OpCase {
    let ([a_batch @ .., m, k], [b_batch @ .., _, n]) = (a, b) else { panic!("{a:?} times {b:?}") };
    let (m, k, n) = (*m, *k, *n);
    let batch = broadcast_shape(a_batch, b_batch);
    let (from_a, from_b) = (sources(a_batch, &batch), sources(b_batch, &batch));
    let count: usize = batch.iter().product();
    let [of_a, of_b] = [a, b].map(|dims| dims.iter().product::<usize>());
    let repeats = [a_batch, b_batch].map(|own| count / own.iter().product::<usize>().max(1));
    let longest = (m * repeats[1]).max(n * repeats[0]).max(k);
    // The elements of a matrix of the product come from those of one matrix of each operand.
    let elements = |from: &[usize], size: usize| -> Vec<usize> {
        from.iter().flat_map(|&matrix| matrix * size..(matrix + 1) * size).collect()
    };
    let (elements_a, elements_b) = (elements(&from_a, m * k), elements(&from_b, k * n));
    OpCase {
        op: "matmul",
        variant: format!("{a:?}_{b:?}").replace(", ", "x"),
        inputs: vec![Input::new("a", a), Input::new("b", b)],
        roundings: 2.0 * (longest as f64).sqrt() + 8.0,
        function: one(|v| v[0].matmul(&v[1])),
        naive: Box::new(move |inputs, douts| {
            let (mut y, mut da, mut db) = (Vec::new(), Vec::new(), Vec::new());
            for (index, (&at_a, &at_b)) in from_a.iter().zip(&from_b).enumerate() {
                let a = &inputs[0][at_a * m * k..][..m * k];
                let b = &inputs[1][at_b * k * n..][..k * n];
                let dy = &douts[0][index * m * n..][..m * n];
                y.extend(product(a, b, [m, k, n]));
                da.extend(product(dy, &transposed(b, k, n), [m, n, k]));
                db.extend(product(&transposed(a, m, k), dy, [k, m, n]));
            }
            let gradients =
                vec![collected(&inputs[0], &elements_a, &da), collected(&inputs[1], &elements_b, &db)];
            NaiveResults { outputs: vec![y], gradients }
        }),
        cost: Cost { bytes: 4 * (of_a + of_b + count * m * n), flops: 2 * count * m * k * n },
        backward_cost: Some(Cost { bytes: 8 * (of_a + of_b + count * m * n), flops: 4 * count * m * k * n }),
    }
}

/// A linear layer from `k` to `n` features with bias, for `rows` rows.
pub fn linear(rows: usize, k: usize, n: usize, activation: Activation) -> OpCase {
    let std = 1.0 / (k.max(1) as f64).sqrt();
    // The function and its derivative, and the FLOPs of the function.
    let (f, flops): (WithDerivative, usize) = match activation {
        Activation::None => (|x| (x, 1.0), 0),
        Activation::GeluErf => (gelu_erf_of, 5),
        Activation::GeluTanh => (gelu_tanh_of, 9),
        Activation::Relu => (|x| (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }), 1),
        Activation::Tanh => (|x| (x.tanh(), 1.0 - x.tanh().powi(2)), 1),
    };
    OpCase {
        op: "linear",
        variant: format!("{rows}x{k}x{n}_{activation:?}").to_lowercase(),
        inputs: vec![
            Input::new("x", &[rows, k]),
            Input::new("weight", &[n, k]).values(Values::Normal { mean: 0.0, std }).parameter(),
            Input::new("bias", &[n]).parameter(),
        ],
        roundings: 2.0 * (rows.max(k).max(n) as f64).sqrt() + 24.0,
        function: one(move |v| v[0].linear(&v[1], v.get(2), activation)),
        naive: Box::new(move |inputs, douts| {
            let (x, weight) = (&inputs[0], &inputs[1]);
            let xw = product(x, &transposed(weight, n, k), [rows, k, n]);
            let add_bias = |(i, &y): (usize, &Low)| inputs.get(2).map_or(y, |bias| y + bias[i % n]);
            let pre: Vec<Low> = xw.iter().enumerate().map(add_bias).collect();
            let (y, dpre) = apply(f, &pre, &douts[0]);
            let dx = product(&dpre, weight, [rows, n, k]);
            let dweight = product(&transposed(&dpre, rows, n), x, [n, rows, k]);
            let column = |j: usize| Low::sum(dpre.iter().skip(j).step_by(n).copied());
            let zero = Low::new(0.0, DType::F64);
            let dbias = inputs.get(2).map(|_| (0..n).map(|j| column(j).unwrap_or(zero)).collect());
            NaiveResults { outputs: vec![y], gradients: [dx, dweight].into_iter().chain(dbias).collect() }
        }),
        cost: Cost { bytes: 4 * (rows * k + n * k + rows * n), flops: rows * n * (2 * k + flops) },
        backward_cost: Some(Cost { bytes: 8 * (rows * k + n * k + rows * n), flops: 4 * rows * k * n }),
    }
}

/// [`linear`] without a bias.
pub fn linear_without_bias(rows: usize, k: usize, n: usize, activation: Activation) -> OpCase {
    let mut row = linear(rows, k, n, activation);
    row.inputs.truncate(2);
    row.variant += "_no_bias";
    row
}

/// A linear layer beside a residual connection: x itself is a result too, so that dx comes on top of that one's gradient.
/// In half precision x stays in F32.
pub fn linear_beside_residual(rows: usize, k: usize, n: usize, activation: Activation) -> OpCase {
    let OpCase { function, naive, variant, .. } = linear(rows, k, n, activation);
    let function: Function = Box::new(move |v| {
        let mut outputs = function(v)?;
        outputs.push(v[0].clone());
        Ok(outputs)
    });
    let naive: Naive = Box::new(move |inputs, douts| {
        let mut results = naive(inputs, douts);
        results.outputs.push(inputs[0].clone());
        let dx = results.gradients[0].iter_mut();
        dx.zip(&douts[1]).for_each(|(dx, &so_far)| *dx = *dx + so_far);
        results
    });
    let variant = variant + "_beside_residual";
    OpCase { function, naive, variant, ..linear(rows, k, n, activation) }.with_wide("x")
}
