//! Rows of LayerNorm, RMSNorm, dropout, and the embeddings.
//!
//! Tolerances: a sum of n terms errs by about sqrt(n) roundings of its magnitude, as roundings are as often up as down.
//! `mean` and `rstd` and the two means of backward hold sums over C, gradients of parameters sums over T; the elementwise
//! rest adds about eight roundings. Twice the sum of these is allowed.

use super::{Cost, Input, Low, NaiveResults, OpCase, SITE, Values, mask, one};
use crate::{EmbedParameters, TokenIds, Var};
use std::sync::Arc;
use vitrine_tensor::{DType, Dropout, Offsets, random};

/// BERT's `layer_norm_eps` is 1e-12; this one is large enough that rows without variance stay within half precision.
const EPS: f64 = 1e-5;

fn roundings(rows: usize, width: usize) -> f64 {
    2.0 * ((width as f64).sqrt() + (rows as f64).sqrt() + 8.0)
}

fn parameters(width: usize) -> [Input; 2] {
    let around_one = Values::Normal { mean: 1.0, std: 0.3 };
    [
        Input::new("weight", &[width]).parameter().values(around_one),
        Input::new("bias", &[width]).parameter().values(Values::Normal { mean: 0.0, std: 0.3 }),
    ]
}

/// LayerNorm of `[rows, width]`.
pub fn layer_norm(rows: usize, width: usize) -> OpCase {
    let [weight, bias] = parameters(width);
    OpCase {
        op: "layer_norm",
        variant: format!("{rows}x{width}"),
        inputs: vec![Input::new("x", &[rows, width]), weight, bias],
        roundings: roundings(rows, width),
        function: one(|v| v[0].layer_norm(&v[1], &v[2], EPS)),
        naive: Box::new(|inputs, douts| {
            let n = layer_norm_of(&inputs[0], &inputs[1], &inputs[2], &douts[0]);
            NaiveResults { outputs: vec![n.y], gradients: vec![n.dx, n.dweight, n.dbias] }
        }),
        cost: Cost { bytes: 8 * rows * width, flops: 8 * rows * width },
        backward_cost: Some(Cost { bytes: 12 * rows * width, flops: 14 * rows * width }),
    }
}

/// What [`layer_norm_of`] returns.
pub struct NaiveLayerNorm {
    /// The normalised rows.
    pub y: Vec<Low>,
    /// Gradient of x.
    pub dx: Vec<Low>,
    /// Gradient of the weight.
    pub dweight: Vec<Low>,
    /// Gradient of the bias.
    pub dbias: Vec<Low>,
}

/// Textbook LayerNorm of rows as long as `weight`, forward and backward.
pub fn layer_norm_of(x: &[Low], weight: &[Low], bias: &[Low], dy: &[Low]) -> NaiveLayerNorm {
    let width = weight.len();
    let zero = weight[0].like(0.0);
    let mean = |terms: &[Low]| Low::sum(terms.iter().copied()).unwrap_or(zero).map(|sum| sum / width as f64);
    let product = |a: &[Low], b: &[Low]| -> Vec<Low> { a.iter().zip(b).map(|(&a, &b)| a * b).collect() };
    let (mut y, mut dx) = (Vec::new(), Vec::new());
    // Terms of the gradients of parameters, row by row.
    let (mut weight_terms, mut bias_terms) = (vec![Vec::new(); width], vec![Vec::new(); width]);
    for (x, dy) in x.chunks(width).zip(dy.chunks(width)) {
        let centre = mean(x);
        let centred: Vec<Low> = x.iter().map(|&x| x - centre).collect();
        let variance = mean(&product(&centred, &centred));
        let rstd = variance.map(|v| 1.0 / (v + EPS).sqrt());
        let x_hat: Vec<Low> = centred.iter().map(|&x| x * rstd).collect();
        y.extend(product(&x_hat, weight).iter().zip(bias).map(|(&y, &bias)| y + bias));
        let g = product(dy, weight);
        let (mean_g, mean_gx) = (mean(&g), mean(&product(&g, &x_hat)));
        dx.extend(g.iter().zip(&x_hat).map(|(&g, &x_hat)| rstd * (g - mean_g - x_hat * mean_gx)));
        for c in 0..width {
            weight_terms[c].push(dy[c] * x_hat[c]);
            bias_terms[c].push(dy[c]);
        }
    }
    let sums = |terms: Vec<Vec<Low>>| terms.into_iter().map(|t| Low::sum(t).unwrap_or(zero)).collect();
    NaiveLayerNorm { y, dx, dweight: sums(weight_terms), dbias: sums(bias_terms) }
}

/// RMSNorm of `[rows, width]`. Tolerance: as LayerNorm's; `rstd` and the mean of backward hold sums over C, dweight one over T.
pub fn rms_norm(rows: usize, width: usize) -> OpCase {
    let [weight, _] = parameters(width);
    OpCase {
        op: "rms_norm",
        variant: format!("{rows}x{width}"),
        inputs: vec![Input::new("x", &[rows, width]), weight],
        roundings: roundings(rows, width),
        function: one(|v| v[0].rms_norm(&v[1], EPS)),
        naive: Box::new(move |inputs, douts| {
            let (weight, zero) = (&inputs[1], inputs[1][0].like(0.0));
            let mean = |terms: Vec<Low>| Low::sum(terms).unwrap_or(zero).map(|sum| sum / width as f64);
            let (mut y, mut dx, mut terms) = (Vec::new(), Vec::new(), vec![Vec::new(); width]);
            for (x, dy) in inputs[0].chunks(width).zip(douts[0].chunks(width)) {
                let rstd = mean(x.iter().map(|&x| x * x).collect()).map(|mean| 1.0 / (mean + EPS).sqrt());
                let x_hat: Vec<Low> = x.iter().map(|&x| x * rstd).collect();
                let g: Vec<Low> = dy.iter().zip(weight).map(|(&dy, &weight)| dy * weight).collect();
                let mean_gx = mean(g.iter().zip(&x_hat).map(|(&g, &x_hat)| g * x_hat).collect());
                y.extend(x_hat.iter().zip(weight).map(|(&x_hat, &weight)| x_hat * weight));
                dx.extend(g.iter().zip(&x_hat).map(|(&g, &x_hat)| rstd * (g - x_hat * mean_gx)));
                (0..width).for_each(|c| terms[c].push(dy[c] * x_hat[c]));
            }
            let dweight = terms.into_iter().map(|terms| Low::sum(terms).unwrap_or(zero)).collect();
            NaiveResults { outputs: vec![y], gradients: vec![dx, dweight] }
        }),
        cost: Cost { bytes: 8 * rows * width, flops: 4 * rows * width },
        backward_cost: Some(Cost { bytes: 12 * rows * width, flops: 9 * rows * width }),
    }
}

/// `rows` tokens as a long sequence, an empty one and one of a single token.
pub(super) fn offsets(rows: usize) -> crate::Result<Offsets> {
    Ok(Offsets::from_lengths([rows.saturating_sub(1), 0, rows.min(1)])?)
}

/// What the mask multiplies the elements of `[rows, width]` by, from the scalar definition; 1 without dropout.
pub(super) fn factors(dropout_p: f64, rows: usize, width: usize) -> Vec<f64> {
    mask(dropout_p).map_or(vec![1.0; rows * width], |dropout| mask_factors(&dropout, rows, width))
}

fn mask_factors(dropout: &Dropout, rows: usize, width: usize) -> Vec<f64> {
    let keep = |row: usize, c: usize| {
        let last = row + 1 == rows;
        let (position, sequence) = if last { (0, 2) } else { (row, 0) };
        let draw = dropout.hidden_draws(position as u32, sequence, (c / 8) as u32)[c % 8];
        if draw < dropout.threshold() { 0.0 } else { f64::from(dropout.scale()) }
    };
    (0..rows * width).map(|i| keep(i / width, i % width)).collect()
}

pub(super) fn masked(x: &[Low], factors: &[f64]) -> Vec<Low> {
    x.iter().zip(factors).map(|(&x, &factor)| x.map(|x| x * factor)).collect()
}

/// Dropout with probability 0.3 of `[rows, width]`. One multiplication by a rounded scale: two roundings.
pub fn dropout(rows: usize, width: usize) -> OpCase {
    OpCase {
        op: "dropout",
        variant: format!("{rows}x{width}"),
        inputs: vec![Input::new("x", &[rows, width])],
        roundings: 2.0,
        function: one(move |v| v[0].dropout(0.3, SITE, &offsets(rows)?)),
        naive: Box::new(move |inputs, douts| {
            let factors = factors(0.3, rows, width);
            NaiveResults {
                outputs: vec![masked(&inputs[0], &factors)],
                gradients: vec![masked(&douts[0], &factors)],
            }
        }),
        cost: Cost { bytes: 8 * rows * width, flops: rows * width },
        backward_cost: Some(Cost { bytes: 8 * rows * width, flops: rows * width }),
    }
}

/// `LayerNorm(residual + dropout(x))` of `[rows, width]`; `dropout_p` 0 stands for inference, without dropout.
pub fn dropout_add_layer_norm(rows: usize, width: usize, dropout_p: f64) -> OpCase {
    let [weight, bias] = parameters(width);
    OpCase {
        op: "dropout_add_layer_norm",
        variant: format!("{rows}x{width}_p{dropout_p}"),
        inputs: vec![Input::new("x", &[rows, width]), Input::new("residual", &[rows, width]), weight, bias],
        roundings: roundings(rows, width),
        function: one(move |v| {
            v[0].dropout_add_layer_norm(&v[1], &v[2], &v[3], EPS, (dropout_p, SITE), &offsets(rows)?)
        }),
        naive: Box::new(move |inputs, douts| {
            let factors = factors(dropout_p, rows, width);
            let dropped = masked(&inputs[0], &factors);
            let sum: Vec<Low> = dropped.iter().zip(&inputs[1]).map(|(&x, &residual)| x + residual).collect();
            let n = layer_norm_of(&sum, &inputs[2], &inputs[3], &douts[0]);
            let dx = masked(&n.dx, &factors);
            NaiveResults { outputs: vec![n.y], gradients: vec![dx, n.dx, n.dweight, n.dbias] }
        }),
        cost: Cost { bytes: 16 * rows * width, flops: (9 + usize::from(dropout_p > 0.0)) * rows * width },
        backward_cost: Some(Cost { bytes: 16 * rows * width, flops: 15 * rows * width }),
    }
}

/// `count` ids below `rows`, some of them often and some never.
fn ids(count: usize, rows: usize, seed: u64) -> Vec<u32> {
    let word = |i: usize| random::philox([i as u32, 0, 0, 0], random::key(seed))[0];
    (0..count).map(|i| (u64::from(word(i)) * u64::from(word(i / 3)) % rows as u64) as u32).collect()
}

/// The textbook gradient of a look-up.
fn scatter(dy: &[Low], ids: &[u32], rows: usize, width: usize) -> Vec<Low> {
    let terms = |v: usize, c: usize| {
        let tokens = ids.iter().enumerate().filter(move |&(_, &id)| id as usize == v);
        tokens.map(move |(t, _)| dy[t * width + c])
    };
    let zero = || Low::new(0.0, DType::F64);
    (0..rows * width).map(|i| Low::sum(terms(i / width, i % width)).unwrap_or_else(zero)).collect()
}

/// Look-up of `tokens` ids in `[rows, width]`. Forward copies; backward sums the tokens of an id.
pub fn embedding(tokens: usize, rows: usize, width: usize) -> OpCase {
    let ids: Arc<[u32]> = ids(tokens, rows, 1).into();
    let naive_ids = ids.clone();
    OpCase {
        op: "embedding",
        variant: format!("{tokens}of{rows}x{width}"),
        inputs: vec![Input::new("table", &[rows, width]).parameter()],
        roundings: roundings(tokens, 0),
        function: one(move |v| v[0].embedding(&ids)),
        naive: Box::new(move |inputs, douts| {
            let row = |&id: &u32| inputs[0][id as usize * width..(id as usize + 1) * width].to_vec();
            NaiveResults {
                outputs: vec![naive_ids.iter().flat_map(row).collect()],
                gradients: vec![scatter(&douts[0], &naive_ids, rows, width)],
            }
        }),
        cost: Cost { bytes: 8 * tokens * width, flops: 0 },
        backward_cost: Some(Cost { bytes: 4 * (tokens + rows) * width, flops: tokens * width }),
    }
}

/// BERT's embeddings of `tokens` ids: a vocabulary of `rows`, 2 token types, as many positions as tokens up to 512.
pub fn embed_layer_norm(tokens: usize, rows: usize, width: usize) -> OpCase {
    let [weight, bias] = parameters(width);
    let positions = tokens.clamp(1, 512);
    let sizes = [rows, positions, 2];
    let naive_indices = [ids(tokens, rows, 1), ids(tokens, positions, 2), ids(tokens, 2, 3)];
    let [words, positions_of, types] = naive_indices.clone().map(Arc::from);
    let tokens_of = TokenIds { ids: words, token_types: types, positions: positions_of };
    OpCase {
        op: "embed_layer_norm",
        variant: format!("{tokens}of{rows}x{width}"),
        inputs: vec![
            Input::new("word", &[rows, width]).parameter(),
            Input::new("position", &[positions, width]).parameter(),
            Input::new("token_type", &[2, width]).parameter(),
            weight,
            bias,
        ],
        roundings: roundings(tokens, width),
        function: one(move |v| {
            let [word, position, token_type, weight, bias] = [0, 1, 2, 3, 4].map(|i| &v[i]);
            let parameters = EmbedParameters { word, position, token_type, weight, bias, eps: EPS };
            Var::embed_layer_norm(&tokens_of, &parameters)
        }),
        naive: Box::new(move |inputs, douts| {
            let element = |table: usize, t: usize, c: usize| {
                inputs[table][naive_indices[table][t] as usize * width + c]
            };
            let at = |i: usize| (i / width, i % width);
            let sum: Vec<Low> = (0..tokens * width)
                .map(at)
                .map(|(t, c)| element(0, t, c) + element(2, t, c) + element(1, t, c))
                .collect();
            let n = layer_norm_of(&sum, &inputs[3], &inputs[4], &douts[0]);
            let tables = naive_indices.iter().zip(sizes);
            let mut gradients: Vec<_> = tables.map(|(ids, rows)| scatter(&n.dx, ids, rows, width)).collect();
            gradients.extend([n.dweight, n.dbias]);
            NaiveResults { outputs: vec![n.y], gradients }
        }),
        cost: Cost { bytes: 16 * tokens * width, flops: 10 * tokens * width },
        backward_cost: Some(Cost {
            bytes: 4 * (5 * tokens + rows + positions) * width,
            flops: 17 * tokens * width,
        }),
    }
}
