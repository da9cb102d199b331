//! Rows of attention with open heads: their probabilities, blocked edges, patched probabilities, factors of heads.
//!
//! Tolerance: as attention's, and two more roundings of the largest element.

use super::classification::softmax_of;
use super::{Cost, Input, Low, NaiveResults, OpCase, SITE, mask};
use crate::{AttentionMatrix, AttentionSettings, BlockedEdges, Blocking, Edge, Var};
use std::ops::Range;
use vitrine_tensor::ops::attention::Queries;
use vitrine_tensor::{Dropout, Offsets};

/// What is done to the open heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Nothing.
    None,
    /// Some edges are blocked before the softmax.
    Renormalise,
    /// Some edges are blocked after the softmax.
    KnockOut,
    /// Their probabilities are an input, whose gradient is that of the probabilities.
    Replace,
    /// All heads' outputs are multiplied by factors, which are an input.
    Scale,
}

/// Whether a row blocks an edge: never all of a query's.
fn blocked(query: usize, key: usize) -> bool {
    (query + 2 * key) % 5 == 1
}

/// Attention of sequences with these lengths, of `heads` heads of `size`, of which these are open. The outputs are the result, and
/// the open heads' probabilities by sequence, so that gradients come from both.
pub fn open_attention(
    lens: &[usize],
    heads: usize,
    size: usize,
    queries: Queries,
    dropout_p: Option<f64>,
    open: &[usize],
    edit: Edit,
) -> OpCase {
    let dropout = dropout_p.and_then(mask);
    let problem = Problem { lens: lens.into(), heads, size, queries, dropout, open: open.into(), edit };
    let (longest, total) = (lens.iter().copied().max().unwrap_or(0), lens.iter().sum::<usize>());
    let (pairs, rows) = (problem.pairs(), problem.out_rows());
    let settings = AttentionSettings {
        heads,
        softmax_scale: problem.scale(),
        queries,
        dropout_p: dropout_p.unwrap_or(0.0),
        site: SITE,
        probabilities_for: Vec::new(),
    };
    let mut inputs = vec![Input::new("qkv", &[total, 3 * heads * size])];
    match edit {
        Edit::Replace => inputs.push(Input::new("probabilities", &[pairs * open.len()])),
        Edit::Scale => inputs.push(Input::new("factors", &[heads]).wide()),
        _ => {}
    }
    let lengths: Vec<String> = lens.iter().map(ToString::to_string).collect();
    let dropped = if dropout.is_some() { "_dropout" } else { "" };
    let variant = format!("{}_{heads}x{size}_{queries:?}_{edit:?}{dropped}", lengths.join("+"));
    let (sequences, opened) = (lens.to_vec(), open.to_vec());
    let bytes = 4 * (total * 3 + rows) * heads * size;
    OpCase {
        op: "open_attention",
        variant,
        inputs,
        roundings: 4.0 * ((size as f64).sqrt() + (longest as f64).sqrt() + 10.0),
        function: Box::new(move |v| run(v, &sequences, &settings, &opened, edit)),
        cost: Cost { bytes, flops: problem.flops() },
        backward_cost: Some(Cost { bytes: 2 * bytes, flops: 10 * pairs * heads * size }),
        naive: Box::new(move |inputs, douts| problem.naive(inputs, douts)),
    }
}

/// What a row does on the tape.
fn run<'t>(
    v: &[Var<'t>],
    lens: &[usize],
    settings: &AttentionSettings,
    open: &[usize],
    edit: Edit,
) -> crate::Result<Vec<Var<'t>>> {
    let offsets = Offsets::from_lengths(lens.iter().copied())?;
    let blocking = if edit == Edit::KnockOut { Blocking::KnockOut } else { Blocking::Renormalise };
    let edges = |(sequence, &len): (usize, &usize)| {
        let all = (0..len * len)
            .map(move |edge| (edge / len, edge % len))
            .filter(|&(query, key)| blocked(query, key));
        all.map(move |(query, key)| Edge { sequence: Some(sequence), head: None, query, key })
    };
    let edges = BlockedEdges { edges: lens.iter().enumerate().flat_map(edges).collect(), blocking };
    let mut place = 0;
    let mut maps = Vec::new();
    let mut look = |matrix, sequence, x: Var<'t>| {
        let blocks = matches!(edit, Edit::Renormalise | Edit::KnockOut) && matrix == edges.matrix();
        let mut x = if blocks { edges.apply(&x, sequence, open)? } else { x };
        if matrix == AttentionMatrix::Probabilities {
            if edit == Edit::Replace {
                let numel = x.value().numel();
                x = v[1].narrow(0, place, numel)?.reshape(x.dims())?.to_dtype(x.value().dtype())?;
                place += numel;
            }
            maps.push(x.reshape(&[x.value().numel()])?);
        }
        Ok(x)
    };
    let mut out = v[0].open_attention(&offsets, settings, open, &mut look)?;
    if edit == Edit::Scale {
        out = out.scale_heads(&v[1])?;
    }
    let maps = maps[0].cat(&maps[1..].iter().collect::<Vec<_>>(), 0)?;
    Ok(vec![out, maps])
}

struct Problem {
    lens: Vec<usize>,
    heads: usize,
    size: usize,
    queries: Queries,
    dropout: Option<Dropout>,
    open: Vec<usize>,
    edit: Edit,
}

impl Problem {
    fn scale(&self) -> f64 {
        (self.size as f64).sqrt().recip()
    }

    /// How many rows of a sequence are query rows.
    fn queries_of(&self, len: usize) -> usize {
        if self.queries == Queries::First { len.min(1) } else { len }
    }

    fn pairs(&self) -> usize {
        self.lens.iter().map(|&len| self.queries_of(len) * len).sum()
    }

    fn query_rows(&self) -> usize {
        self.lens.iter().map(|&len| self.queries_of(len)).sum()
    }

    /// Rows of the output: under `First` an empty sequence has one.
    fn out_rows(&self) -> usize {
        if self.queries == Queries::First { self.lens.len() } else { self.lens.iter().sum() }
    }

    /// The scaled queries, both products, the softmax and what is done to matrices; the other heads as attention counts them.
    fn flops(&self) -> usize {
        let (open, others) = (self.open.len(), self.heads - self.open.len());
        let edits = usize::from(self.dropout.is_some())
            + usize::from(matches!(self.edit, Edit::Renormalise | Edit::KnockOut));
        let fused_pairs = if self.queries == Queries::First { self.lens.iter().sum() } else { self.pairs() };
        // The kernel computes all heads.
        let fused = if others > 0 { fused_pairs * self.heads * (4 * self.size + 5) } else { 0 };
        let scaled = if self.edit == Edit::Scale { self.out_rows() * self.heads * self.size } else { 0 };
        let of_open = open * (self.query_rows() * self.size + self.pairs() * (4 * self.size + 5 + edits));
        of_open + fused + scaled
    }

    fn naive(&self, inputs: &[Vec<Low>], douts: &[Vec<Low>]) -> NaiveResults {
        let zeros = |x: &[Low]| -> Vec<Low> { x.iter().map(|x| x.like(0.0)).collect() };
        let mut results = NaiveResults {
            outputs: douts.iter().map(|dout| zeros(dout)).collect(),
            gradients: inputs.iter().map(|input| zeros(input)).collect(),
        };
        let (mut first, mut map) = (0, 0);
        for (sequence, &len) in self.lens.iter().enumerate() {
            let asked = match self.queries {
                Queries::All => first..first + len,
                Queries::First => sequence..sequence + len.min(1),
            };
            for head in 0..self.heads {
                let maps = self.open.contains(&head).then(|| map..map + asked.len() * len);
                map = maps.as_ref().map_or(map, |maps| maps.end);
                self.naive_head(
                    [sequence, head],
                    first..first + len,
                    asked.clone(),
                    maps.as_ref(),
                    inputs,
                    douts,
                    &mut results,
                );
            }
            first += len;
        }
        results
    }

    /// One head of one sequence; `maps` is where its probabilities are among the open ones.
    fn naive_head(
        &self,
        [sequence, head]: [usize; 2],
        rows: Range<usize>,
        asked: Range<usize>,
        maps: Option<&Range<usize>>,
        inputs: &[Vec<Low>],
        douts: &[Vec<Low>],
        results: &mut NaiveResults,
    ) {
        let (size, width, len, qkv) = (self.size, self.heads * self.size, rows.len(), &inputs[0]);
        let at = |which: usize, row: usize| ((rows.start + row) * 3 + which) * width + head * size;
        let out_at = |row: usize| (asked.start + row) * width + head * size;
        let zero = |x: &[Low]| x[0].like(0.0);
        let edit = maps.map_or(Edit::None, |_| self.edit);
        let factor = if self.edit == Edit::Scale { inputs[1][head].get() } else { 1.0 };
        for i in 0..asked.len() {
            let is_blocked = |kind: Edit, j: usize| edit == kind && blocked(i, j);
            let scores: Vec<Low> = (0..len)
                .map(|j| {
                    let dot =
                        Low::dot(&qkv[at(0, i)..][..size], &qkv[at(1, j)..][..size]).unwrap_or(zero(qkv));
                    let open = dot.map(|s| s * self.scale());
                    if is_blocked(Edit::Renormalise, j) { open.like(f64::NEG_INFINITY) } else { open }
                })
                .collect();
            let softmax = softmax_of(&scores);
            let row = |maps: &Range<usize>| maps.start + i * len;
            let p: Vec<Low> = match (maps, edit) {
                (Some(maps), Edit::Replace) => inputs[1][row(maps)..][..len].to_vec(),
                _ => (0..len)
                    .map(|j| if is_blocked(Edit::KnockOut, j) { softmax[j].like(0.0) } else { softmax[j] })
                    .collect(),
            };
            let keep: Vec<f64> = (0..len).map(|j| self.keep([sequence, head, i, j])).collect();
            let z: Vec<Low> = p.iter().zip(&keep).map(|(p, keep)| p.map(|p| p * keep)).collect();
            let dout: Vec<Low> =
                douts[0][out_at(i)..][..size].iter().map(|d| d.map(|d| d * factor)).collect();
            for d in 0..size {
                let column: Vec<Low> = (0..len).map(|j| qkv[at(2, j) + d]).collect();
                let out = Low::dot(&z, &column).unwrap_or(zero(qkv));
                results.outputs[0][out_at(i) + d] = out.map(|out| out * factor);
                if self.edit == Edit::Scale {
                    let share = douts[0][out_at(i) + d] * out;
                    let so_far = &mut results.gradients[1][head];
                    *so_far = *so_far + share;
                }
            }
            let mut dp: Vec<Low> = (0..len)
                .map(|j| {
                    let dz = Low::dot(&dout, &qkv[at(2, j)..][..size]).unwrap_or(zero(qkv));
                    dz.map(|dz| dz * keep[j])
                })
                .collect();
            if let Some(maps) = maps {
                for j in 0..len {
                    results.outputs[1][row(maps) + j] = p[j];
                    dp[j] = dp[j] + douts[1][row(maps) + j];
                }
            }
            for j in 0..len {
                let gradients = &mut results.gradients[0];
                for d in 0..size {
                    gradients[at(2, j) + d] = gradients[at(2, j) + d] + z[j] * dout[d];
                }
            }
            if edit == Edit::Replace {
                if let Some(maps) = maps {
                    results.gradients[1][row(maps)..][..len].copy_from_slice(&dp);
                }
                continue;
            }
            for (j, dp) in dp.iter_mut().enumerate() {
                *dp = if is_blocked(Edit::KnockOut, j) { dp.like(0.0) } else { *dp };
            }
            let delta = Low::dot(&softmax, &dp).unwrap_or(zero(qkv));
            for j in 0..len {
                let ds = (softmax[j] * (dp[j] - delta)).map(|ds| ds * self.scale());
                let gradients = &mut results.gradients[0];
                for d in 0..size {
                    gradients[at(0, i) + d] = gradients[at(0, i) + d] + ds * qkv[at(1, j) + d];
                    gradients[at(1, j) + d] = gradients[at(1, j) + d] + ds * qkv[at(0, i) + d];
                }
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
