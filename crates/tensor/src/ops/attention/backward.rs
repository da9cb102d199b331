//! The backward pass of one head of one sequence.

use super::Problem;
use super::forward::{QUERIES, score_block};
use super::pack::{PackPanels, PackRows, Part, RowDots, Scratch, Unpack, padded};
use super::product::Product;
use super::scores::{Block, KEYS, ScoreGradients};
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
    problem: &Problem<'_, E>,
    sequence: usize,
    head: usize,
    out: &Part<'_, E>,
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
        QUERIES * KEYS,
        QUERIES * KEYS,
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
        factors,
    ] = scratch.pieces();
    for (source, panels) in [(value, &mut *value_panels), (key, &mut *key_panels)] {
        // The values' rows are needed only until they are transposed; the keys' stay.
        run(isa, PackRows { source, factor: 1.0, out: key_rows });
        run(isa, PackPanels { source: key_rows, count: keys, stride, out: panels });
    }
    for first_query in (0..query.rows.len()).step_by(QUERIES) {
        let asked = first_query..query.rows.len().min(first_query + QUERIES);
        let count = asked.len();
        let (out, dout) = (out.narrow(asked.clone()), dout.narrow(asked.clone()));
        run(
            isa,
            PackRows { source: query.narrow(asked.clone()), factor: problem.softmax_scale, out: queries },
        );
        run(isa, PackRows { source: dout.clone(), factor: 1.0, out: douts });
        run(isa, RowDots { left: out, right: dout, out: delta });
        for first_key in (0..keys).step_by(KEYS) {
            let block = first_key..keys.min(first_key + KEYS);
            score_block(isa, queries, stride, count, key_panels, depth, block.clone(), scores);
            score_block(isa, douts, stride, count, value_panels, depth, block.clone(), dscores);
            let step = ScoreGradients {
                block: Block {
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
                gradients: &mut *dscores,
                lse: &lse[asked.clone()],
                delta: &*delta,
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
