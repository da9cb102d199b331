//! The forward pass of one head of one sequence.

use super::Heads;
use super::pack::{PANEL, PackPanels, PackRows, Scratch, Unpack, padded};
use super::product::Product;
use super::scores::{KEYS, OnlineSoftmax, ScoreBlock, log_sum_exp};
use crate::Float;
use crate::cpu::gemm::MatrixMut;
use crate::cpu::isa::Available;
use crate::cpu::simd::{Real, run};
use std::marker::PhantomData;
use std::ops::Range;

/// Queries in a block: whole register tiles and whole blocks of dropout draws.
pub(super) const QUERIES: usize = 48;

/// Writes the output rows and the log-sum-exp of one head of one sequence.
pub(super) fn forward<E: Float>(
    problem: &Heads<'_, E>,
    sequence: usize,
    head: usize,
    out: &mut MatrixMut<'_, E>,
    lse: &mut MatrixMut<'_, E::Real>,
) {
    let [query, key, value] = problem.parts(sequence, head);
    let (keys, depth) = (key.rows.len(), problem.head_size);
    let stride = padded(depth);
    if keys == 0 {
        // Only the row of an empty sequence's absent first token, if any.
        for row in 0..out.rows() {
            out.row_mut(row).fill(E::default());
            lse.row_mut(0)[row] = E::Real::from_f64(f64::NEG_INFINITY);
        }
        return;
    }
    let isa = problem.isa;
    let mut draws = problem.draws(QUERIES);
    let mut scratch = Scratch::new([
        padded(keys) * stride,
        padded(keys) * stride,
        QUERIES * stride,
        QUERIES * stride,
        QUERIES * KEYS,
        QUERIES,
        QUERIES,
    ]);
    let [key_panels, values, queries, output, scores, maximum, sum] = scratch.pieces();
    // The keys' rows are needed only until they are transposed.
    run(isa, PackRows { source: key, factor: 1.0, out: values });
    run(isa, PackPanels { source: values, count: keys, stride, out: key_panels });
    run(isa, PackRows { source: value, factor: 1.0, out: values });
    for first_query in (0..query.rows.len()).step_by(QUERIES) {
        let count = QUERIES.min(query.rows.len() - first_query);
        let source = query.narrow(first_query..first_query + count);
        run(isa, PackRows { source, factor: problem.softmax_scale, out: queries });
        for first_key in (0..keys).step_by(KEYS) {
            let block = first_key..keys.min(first_key + KEYS);
            score_block(isa, queries, stride, count, key_panels, depth, block.clone(), scores);
            let softmax = OnlineSoftmax {
                block: ScoreBlock {
                    scores: &mut *scores,
                    queries: count,
                    keys: block.len(),
                    scale: 1.0,
                    dropout: problem.draw(
                        &mut draws,
                        [sequence, head],
                        [first_query, first_key],
                        count,
                        block.len(),
                    ),
                },
                maximum: &mut *maximum,
                sum: &mut *sum,
                output: &mut *output,
                output_stride: stride,
                first: first_key == 0,
                results: PhantomData::<E::Real>,
            };
            run(isa, softmax);
            let product = Product {
                rows: count,
                depth: block.len(),
                columns: stride,
                a: &*scores,
                a_row_stride: KEYS,
                a_column_stride: 1,
                b: &values[first_key * stride..],
                b_row_stride: stride,
                c: &mut *output,
                c_row_stride: stride,
                accumulate: first_key > 0,
            };
            run(isa, product);
        }
        let scale = problem.dropout.map_or(1.0, |dropout| dropout.scale().into());
        let lse = &mut lse.row_mut(0)[first_query..first_query + count];
        for ((lse, sum), maximum) in lse.iter_mut().zip(sum.iter_mut()).zip(maximum.iter()) {
            *lse = log_sum_exp(*maximum, *sum);
            *sum = E::Real::from_f64(scale / sum.to_f64());
        }
        run(isa, Unpack { source: output, factors: &sum[..count], first_row: first_query, out });
    }
}

/// `scores = a k^T` for `count` packed rows `a` and the keys `block` of transposed panels.
pub(super) fn score_block<R: Real>(
    isa: Available,
    a: &[R],
    a_stride: usize,
    count: usize,
    panels: &[R],
    depth: usize,
    block: Range<usize>,
    scores: &mut [R],
) {
    for start in block.clone().step_by(PANEL) {
        let width = padded(PANEL.min(block.end - start));
        let product = Product {
            rows: count,
            depth,
            columns: width,
            a,
            a_row_stride: a_stride,
            a_column_stride: 1,
            b: &panels[start * a_stride..],
            b_row_stride: width,
            c: &mut scores[start - block.start..],
            c_row_stride: KEYS,
            accumulate: false,
        };
        run(isa, product);
    }
}
