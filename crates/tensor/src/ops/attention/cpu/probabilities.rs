//! Probabilities of chosen heads, to be looked at: computed again from the scores and lse.

use super::Heads;
use super::forward::{QUERIES, score_block};
use super::pack::{PackPanels, PackRows, Scratch, padded};
use super::query_rows;
use super::scores::KEYS;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes, Real, run};
use crate::{Device, Float, Result, Tensor};

/// `[heads, queries, keys]` for each sequence, before dropout. Empty if no head is chosen.
pub(super) fn probabilities<E: Float>(
    problem: &Heads<'_, E>,
    heads: &[usize],
    lse: &Tensor,
) -> Result<Vec<Tensor>> {
    if heads.is_empty() {
        return Ok(Vec::new());
    }
    let rows = query_rows(problem.queries, problem.offsets);
    let lse = lse.as_slice::<E::Real>()?;
    let mut results = Vec::with_capacity(problem.offsets.sequences());
    for (sequence, query_rows) in problem.query_rows().into_iter().enumerate() {
        let keys = problem.offsets.range(sequence).len();
        let queries = query_rows.len().min(keys);
        let mut result = Tensor::empty(&[heads.len(), queries, keys], E::DTYPE.accumulator(), Device::Cpu)?;
        let pieces = result.as_mut_slice::<E::Real>()?.chunks_mut((queries * keys).max(1));
        parallel::for_each(pieces.zip(heads), |_, (piece, &head)| {
            head_probabilities(problem, sequence, head, &lse[head * rows + query_rows.start..], piece);
        });
        results.push(result);
    }
    Ok(results)
}

fn head_probabilities<E: Float>(
    problem: &Heads<'_, E>,
    sequence: usize,
    head: usize,
    lse: &[E::Real],
    out: &mut [E::Real],
) {
    let [query, key, _] = problem.parts(sequence, head);
    let (keys, depth) = (key.rows.len(), problem.head_size);
    let stride = padded(depth);
    let mut scratch =
        Scratch::new([padded(keys) * stride, padded(keys) * stride, QUERIES * stride, QUERIES * KEYS]);
    let [key_rows, key_panels, queries, scores] = scratch.pieces();
    run(problem.isa, PackRows { source: key, factor: 1.0, out: key_rows });
    run(problem.isa, PackPanels { source: key_rows, count: keys, stride, out: key_panels });
    for first_query in (0..query.rows.len()).step_by(QUERIES) {
        let query_rows = first_query..query.rows.len().min(first_query + QUERIES);
        let source = query.narrow(query_rows.clone());
        run(problem.isa, PackRows { source, factor: problem.softmax_scale, out: queries });
        for first_key in (0..keys).step_by(KEYS) {
            let block = first_key..keys.min(first_key + KEYS);
            score_block(
                problem.isa,
                queries,
                stride,
                query_rows.len(),
                key_panels,
                depth,
                block.clone(),
                scores,
            );
            for (scores, query) in scores.chunks_exact(KEYS).zip(query_rows.clone()) {
                let scores = &scores[..block.len()];
                let out = &mut out[query * keys..][block.clone()];
                run(problem.isa, Exponentials { scores, lse: lse[query], out });
            }
        }
    }
}

/// `out = exp(scores - lse)`.
struct Exponentials<'a, R> {
    scores: &'a [R],
    lse: R,
    out: &'a mut [R],
}

impl<R: Real> Kernel<R> for Exponentials<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = R>>(self) {
        let lse = L::splat(self.lse);
        simd::map(self.scores, self.out, |score: L| (score - lse).exp());
    }
}
