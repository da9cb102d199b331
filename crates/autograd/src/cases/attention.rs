//! Rows of attention.
//!
//! Tolerance: a score is a sum over D and errs by sqrt(D) roundings of the largest score, a few units, which is what its
//! exponential errs by as well; the sums over keys and queries err by sqrt(S), and the elementwise rest by about eight.
//! Four times the sum is allowed.

use super::classification::softmax_of;
use super::{Cost, Input, Low, NaiveResults, OpCase, SITE, mask, one};
use crate::AttentionSettings;
use std::ops::Range;
use vitrine_tensor::ops::attention::Queries;
use vitrine_tensor::{Dropout, Offsets};

/// Attention of sequences with these lengths: `heads` heads of `size`, and dropout.
pub fn attention(
    lens: &[usize],
    heads: usize,
    size: usize,
    queries: Queries,
    dropout_p: Option<f64>,
) -> OpCase {
    let dropout = dropout_p.and_then(mask);
    let problem = Problem { lens: lens.into(), heads, size, queries, dropout };
    let longest = lens.iter().copied().max().unwrap_or(0);
    let total: usize = lens.iter().sum();
    let pairs: usize = match queries {
        Queries::All => lens.iter().map(|len| len * len).sum(),
        Queries::First => total,
    };
    let settings = AttentionSettings {
        heads,
        softmax_scale: problem.scale(),
        queries,
        dropout_p: dropout_p.unwrap_or(0.0),
        site: SITE,
        probabilities_for: Vec::new(),
    };
    let sequences = lens.to_vec();
    let lengths: Vec<String> = lens.iter().map(ToString::to_string).collect();
    let dropped = if dropout.is_some() { "_dropout" } else { "" };
    let rows = problem.rows();
    let bytes = 4 * (total * 3 + rows) * heads * size;
    OpCase {
        op: "attention",
        variant: format!("{}_{heads}x{size}_{queries:?}{dropped}", lengths.join("+")),
        inputs: vec![Input::new("qkv", &[total, 3 * heads * size])],
        roundings: 4.0 * ((size as f64).sqrt() + (longest as f64).sqrt() + 8.0),
        function: one(move |v| {
            let offsets = Offsets::from_lengths(sequences.iter().copied())?;
            Ok(v[0].attention(&offsets, &settings)?.0)
        }),
        naive: Box::new(move |inputs, douts| problem.naive(&inputs[0], &douts[0])),
        cost: Cost { bytes, flops: pairs * heads * (4 * size + 5) },
        backward_cost: Some(Cost { bytes: 2 * bytes, flops: 10 * pairs * heads * size }),
    }
}

struct Problem {
    lens: Vec<usize>,
    heads: usize,
    size: usize,
    queries: Queries,
    dropout: Option<Dropout>,
}

impl Problem {
    fn scale(&self) -> f64 {
        (self.size as f64).sqrt().recip()
    }

    /// Rows of the output.
    fn rows(&self) -> usize {
        match self.queries {
            Queries::All => self.lens.iter().sum(),
            Queries::First => self.lens.len(),
        }
    }

    /// The textbook version, with whole matrices of scores.
    fn naive(&self, qkv: &[Low], dout: &[Low]) -> NaiveResults {
        let zeros = |x: &[Low]| -> Vec<Low> { x.iter().map(|x| x.like(0.0)).collect() };
        let (mut out, mut dqkv) = (zeros(dout), zeros(qkv));
        let mut first = 0;
        for (sequence, &len) in self.lens.iter().enumerate() {
            let rows = first..first + len;
            let asked = match self.queries {
                Queries::All => rows.clone(),
                Queries::First => sequence..sequence + len.min(1),
            };
            for head in 0..self.heads {
                self.naive_head(
                    [sequence, head],
                    rows.clone(),
                    asked.clone(),
                    qkv,
                    dout,
                    &mut out,
                    &mut dqkv,
                );
            }
            first += len;
        }
        NaiveResults { outputs: vec![out], gradients: vec![dqkv] }
    }

    fn naive_head(
        &self,
        [sequence, head]: [usize; 2],
        rows: Range<usize>,
        asked: Range<usize>,
        qkv: &[Low],
        dout: &[Low],
        out: &mut [Low],
        dqkv: &mut [Low],
    ) {
        let (size, width) = (self.size, self.heads * self.size);
        let at = |which: usize, row: usize| {
            let start = ((rows.start + row) * 3 + which) * width + head * size;
            start..start + size
        };
        let out_at = |row: usize| {
            let start = (asked.start + row) * width + head * size;
            start..start + size
        };
        let x = |which, row| &qkv[at(which, row)];
        let column = |which, d: usize| -> Vec<Low> { (0..rows.len()).map(|row| x(which, row)[d]).collect() };
        let dot = |a: &[Low], b: &[Low]| Low::dot(a, b).unwrap_or(qkv[0].like(0.0));
        // Probabilities after dropout, and gradients of scores: a row a query.
        let (mut z, mut ds) = (Vec::new(), Vec::new());
        for i in 0..asked.len() {
            let keep: Vec<f64> = (0..rows.len()).map(|j| self.keep([sequence, head, i, j])).collect();
            let scores: Vec<Low> =
                (0..rows.len()).map(|j| dot(x(0, i), x(1, j)).map(|s| s * self.scale())).collect();
            let p = softmax_of(&scores);
            let dropped =
                |x: &[Low]| -> Vec<Low> { x.iter().zip(&keep).map(|(x, k)| x.map(|x| x * k)).collect() };
            let z_row = dropped(&p);
            for (d, out) in out[out_at(i)].iter_mut().enumerate() {
                *out = dot(&z_row, &column(2, d));
            }
            let dz: Vec<Low> = (0..rows.len()).map(|j| dot(&dout[out_at(i)], x(2, j))).collect();
            let dp = dropped(&dz);
            let delta = dot(&p, &dp);
            let ds_row: Vec<Low> =
                p.iter().zip(&dp).map(|(&p, &dp)| (p * (dp - delta)).map(|ds| ds * self.scale())).collect();
            for (d, dq) in dqkv[at(0, i)].iter_mut().enumerate() {
                *dq = dot(&ds_row, &column(1, d));
            }
            z.push(z_row);
            ds.push(ds_row);
        }
        for j in 0..rows.len() {
            let of = |matrix: &[Vec<Low>]| -> Vec<Low> { matrix.iter().map(|row| row[j]).collect() };
            let (z, ds) = (of(&z), of(&ds));
            for d in 0..size {
                let queries: Vec<Low> = (0..asked.len()).map(|i| x(0, i)[d]).collect();
                let douts: Vec<Low> = (0..asked.len()).map(|i| dout[out_at(i)][d]).collect();
                dqkv[at(1, j).start + d] = dot(&ds, &queries);
                dqkv[at(2, j).start + d] = dot(&z, &douts);
            }
        }
    }

    /// What a probability is multiplied by.
    fn keep(&self, [sequence, head, query, key]: [usize; 4]) -> f64 {
        let Some(dropout) = &self.dropout else { return 1.0 };
        let draw = dropout.attention_draw(head as u32, sequence as u32, query as u32, key as u32);
        if draw < dropout.threshold() { 0.0 } else { f64::from(dropout.scale()) }
    }
}
