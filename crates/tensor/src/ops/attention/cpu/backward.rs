//! The backward pass of one head of one sequence.

use super::Heads;
use super::forward::{QUERIES, score_block};
use super::pack::{PackPanels, PackRows, Part, Scratch, Unpack, padded};
use super::product::Product;
use super::scores::{KEYS, ProbabilityGradients, ScoreBlock, ScoreGradients, divide};
use crate::Float;
use crate::cpu::gemm::MatrixMut;
use crate::cpu::simd::run;

/// Where one head of one sequence writes its gradients.
pub(super) struct Gradients<'a, E> {
    pub dquery: MatrixMut<'a, E>,
    pub dkey: MatrixMut<'a, E>,
    pub dvalue: MatrixMut<'a, E>,
}

/// Writes the gradients of one head's queries, keys and values in one sequence.
pub(super) fn backward<E: Float>(
    problem: &Heads<'_, E>,
    sequence: usize,
    head: usize,
    dout: &Part<'_, E>,
    lse: &[E::Real],
    gradients: &mut Gradients<'_, E>,
) {
    let [query, key, value] = problem.parts(sequence, head);
    let (keys, depth) = (key.rows.len(), problem.head_size);
    let stride = padded(depth);
    if keys == 0 {
        return;
    }
    // Rows that did not ask.
    for row in query.rows.len()..keys {
        gradients.dquery.row_mut(row).fill(E::default());
    }
    let isa = problem.isa;
    let blocks = keys.div_ceil(KEYS);
    let mut draws = problem.draws(QUERIES);
    let mut scratch = Scratch::new([
        padded(keys) * stride,
        padded(keys) * stride,
        padded(keys) * stride,
        keys * stride,
        keys * stride,
        QUERIES * stride,
        QUERIES * stride,
        QUERIES * stride,
        blocks * QUERIES * KEYS,
        blocks * QUERIES * KEYS,
        QUERIES,
        QUERIES,
        QUERIES.max(keys),
    ]);
    let [
        key_panels,
        value_panels,
        key_rows,
        dkey,
        dvalue,
        queries,
        douts,
        dquery,
        scores,
        dscores,
        delta,
        sums,
        factors,
    ] = scratch.pieces();
    for (source, panels) in [(value, &mut *value_panels), (key, &mut *key_panels)] {
        // The values' rows are needed only until they are transposed; the keys' stay.
        run(isa, PackRows { source, factor: 1.0, out: key_rows });
        run(isa, PackPanels { source: key_rows, count: keys, stride, out: panels });
    }
    for first_query in (0..query.rows.len()).step_by(QUERIES) {
        let query_rows = first_query..query.rows.len().min(first_query + QUERIES);
        let count = query_rows.len();
        let dout = dout.narrow(query_rows.clone());
        run(
            isa,
            PackRows {
                source: query.narrow(query_rows.clone()),
                factor: problem.softmax_scale,
                out: queries,
            },
        );
        run(isa, PackRows { source: dout, factor: 1.0, out: douts });
        let pieces = || (0..keys).step_by(KEYS).map(|first_key| first_key..keys.min(first_key + KEYS));
        let matrices = scores.chunks_exact_mut(QUERIES * KEYS).zip(dscores.chunks_exact_mut(QUERIES * KEYS));
        for (block, (scores, dscores)) in pieces().zip(matrices) {
            let first_key = block.start;
            score_block(isa, queries, stride, count, key_panels, depth, block.clone(), scores);
            score_block(isa, douts, stride, count, value_panels, depth, block.clone(), dscores);
            let place = [sequence, head];
            let dropout = problem.draw(&mut draws, place, [first_query, first_key], count, block.len());
            let step = ProbabilityGradients {
                block: ScoreBlock { scores, queries: count, keys: block.len(), scale: 1.0, dropout },
                gradients: dscores,
                lse: &lse[query_rows.clone()],
                sums: [&mut *delta, &mut *sums],
                first: first_key == 0,
            };
            run(isa, step);
        }
        divide(&mut delta[..count], sums);
        let matrices = scores.chunks_exact_mut(QUERIES * KEYS).zip(dscores.chunks_exact_mut(QUERIES * KEYS));
        for (block, (scores, dscores)) in pieces().zip(matrices) {
            let first_key = block.start;
            let step = ScoreGradients {
                scores: &mut *scores,
                gradients: &mut *dscores,
                delta: &delta[..count],
                keys: block.len(),
                kept: problem.dropout.map_or(1.0, |dropout| dropout.scale().into()),
            };
            run(isa, step);
            // dV += Z^T dO, and dK += dS^T Q, where Q has the scale.
            for (a, b, c) in [(&*scores, &*douts, &mut *dvalue), (&*dscores, &*queries, &mut *dkey)] {
                let product = Product {
                    rows: block.len(),
                    depth: count,
                    columns: stride,
                    a,
                    a_row_stride: 1,
                    a_column_stride: KEYS,
                    b,
                    b_row_stride: stride,
                    c: &mut c[first_key * stride..],
                    c_row_stride: stride,
                    accumulate: first_query > 0,
                };
                run(isa, product);
            }
            let product = Product {
                rows: count,
                depth: block.len(),
                columns: stride,
                a: &*dscores,
                a_row_stride: KEYS,
                a_column_stride: 1,
                b: &key_rows[first_key * stride..],
                b_row_stride: stride,
                c: &mut *dquery,
                c_row_stride: stride,
                accumulate: first_key > 0,
            };
            run(isa, product);
        }
        factors.fill(E::Real::from_f64(problem.softmax_scale));
        let factors = &factors[..count];
        run(isa, Unpack { source: dquery, factors, first_row: first_query, out: &mut gradients.dquery });
    }
    factors.fill(E::Real::from_f64(1.0));
    let factors = &factors[..keys];
    run(isa, Unpack { source: dkey, factors, first_row: 0, out: &mut gradients.dkey });
    run(isa, Unpack { source: dvalue, factors, first_row: 0, out: &mut gradients.dvalue });
}
