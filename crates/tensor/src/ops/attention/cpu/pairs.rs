//! Attention on bfloat16 products: both passes of one head of one sequence, for heads of 32 or 64 elements.
//!
//! The algorithm is that of `forward.rs` and `backward.rs`. Queries, and the gradients of outputs, are read where they
//! are; probabilities and the gradients of scores are rounded to bfloat16 before they are multiplied, everything between
//! the products is f32. dV and dK are computed as their transposes, `dO^T Z` and `Q^T dS`: then their inner dimension is
//! that of the queries for both operands, and it is the small one, of 64 rows at most, that has to be transposed.

use super::Heads;
use super::backward::Gradients;
use super::pack::{Part, Unpack, padded};
use super::scores::{
    KEYS, OnlineSoftmax, ProbabilityGradients, ScoreBlock, WHOLE, divide, log_sum_exp, score_gradients,
};
use crate::cpu::gemm::{self, MatrixMut, MatrixRef, PANEL, PairProduct, STEP};
use crate::cpu::isa::Available;
use crate::cpu::memory;
use crate::cpu::simd::{Kernel, Lanes, run};
use half::bf16;
use std::marker::PhantomData;

/// Queries in a block: whole tiles of every kernel, whole steps, and whole blocks of dropout draws.
const QUERIES: usize = 96;

/// Whether heads are of a size that needs no padding anywhere, and padded keys, at minus infinity, have no weight.
pub(super) fn fit(problem: &Heads<'_, bf16>) -> bool {
    matches!(problem.head_size, 32 | 64) && problem.softmax_scale > 0.0
}

/// Pooled memory for pieces of several types, each starting on a cache line and holding anything.
struct Arena<'a> {
    rest: &'a mut [u8],
}

impl<'a> Arena<'a> {
    fn take<E: crate::Element>(&mut self, len: usize) -> &'a mut [E] {
        let bytes = (len * size_of::<E>()).next_multiple_of(memory::ALIGNMENT);
        let (piece, rest) = std::mem::take(&mut self.rest).split_at_mut(bytes);
        self.rest = rest;
        debug_assert_eq!(piece.as_ptr() as usize % align_of::<E>(), 0);
        // SAFETY: pieces start at multiples of ALIGNMENT in a block that does, which suits every `Element`; they are
        // exclusive and initialised, and every bit pattern of an `Element` is valid.
        unsafe { std::slice::from_raw_parts_mut(piece.as_mut_ptr().cast(), len) }
    }
}

/// The rows and columns of a part, as a matrix.
fn matrix<'a>(part: &Part<'a, bf16>) -> MatrixRef<'a, bf16> {
    let source = part.source;
    if part.rows.is_empty() {
        return MatrixRef::new(&[], 0, part.columns.len());
    }
    let start = part.rows.start * source.stride + part.columns.start;
    MatrixRef::with_strides(&source.data[start..], part.rows.len(), part.columns.len(), source.stride, 1)
}

/// Rows of bfloat16 as the left operand of a product.
fn rows(data: &[bf16], count: usize, columns: usize, stride: usize) -> MatrixRef<'_, bf16> {
    MatrixRef::with_strides(data, count, columns, stride, 1)
}

/// Reals as the pairs of bfloat16 that were written in their place.
fn halves(reals: &[f32]) -> &[bf16] {
    // SAFETY: the same bytes; any bits are a bfloat16, and its alignment is less.
    unsafe { std::slice::from_raw_parts(reals.as_ptr().cast(), 2 * reals.len()) }
}

/// `scores = left right^T` for rows of the head, and keys or values as panels from key `first_key` on.
fn score_block(
    isa: Available,
    left: MatrixRef<'_, bf16>,
    panels: &[u32],
    first_key: usize,
    keys: usize,
    scores: &mut [f32],
) {
    let panel_len = gemm::pairs_len(left.columns(), 1);
    let product = PairProduct {
        a: left,
        b: &panels[first_key / PANEL * panel_len..],
        panel_len,
        depth: left.columns(),
        columns: keys.next_multiple_of(PANEL),
        c: scores,
        c_row_stride: KEYS,
        accumulate: false,
    };
    product.run(isa);
}

/// Writes the output rows and the log-sum-exp of one head of one sequence.
pub(super) fn forward(
    problem: &Heads<'_, bf16>,
    sequence: usize,
    head: usize,
    out: &mut MatrixMut<'_, bf16>,
    lse: &mut MatrixMut<'_, f32>,
) {
    let [query, key, value] = problem.parts(sequence, head);
    let (keys, depth) = (key.rows.len(), problem.head_size);
    if keys == 0 {
        return super::forward::forward(problem, sequence, head, out, lse);
    }
    let isa = problem.isa;
    let mut draws = problem.draws(QUERIES);
    // Every block of keys is packed by itself, so that its inner dimension is whole steps.
    let value_len = gemm::pairs_len(KEYS, depth);
    let key_len = gemm::pairs_len(depth, keys);
    let blocks = keys.div_ceil(KEYS);
    let words = key_len + blocks * value_len;
    let bytes = 4 * (words + QUERIES * (depth + KEYS + 2)) + 8 * memory::ALIGNMENT;
    let mut block = memory::Block::new(bytes);
    let mut scratch = Arena { rest: block.bytes_mut() };
    let key_panels = scratch.take::<u32>(key_len);
    let value_panels = scratch.take::<u32>(blocks * value_len);
    let output = scratch.take::<f32>(QUERIES * depth);
    let scores = scratch.take::<f32>(QUERIES * KEYS);
    let (maximum, sum) = (scratch.take::<f32>(QUERIES), scratch.take::<f32>(QUERIES));

    gemm::pack_pairs(isa, matrix(&key).transposed(), key_panels);
    for (index, panels) in value_panels.chunks_exact_mut(value_len).enumerate() {
        let block = index * KEYS..keys.min((index + 1) * KEYS);
        gemm::pack_pairs(isa, matrix(&value.narrow(block)), panels);
    }
    for first_query in (0..query.rows.len()).step_by(QUERIES) {
        let count = QUERIES.min(query.rows.len() - first_query);
        let queries = matrix(&query.narrow(first_query..first_query + count));
        for (index, value_panels) in value_panels.chunks_exact(value_len).enumerate() {
            let first_key = index * KEYS;
            let block = KEYS.min(keys - first_key);
            score_block(isa, queries, key_panels, first_key, block, scores);
            let drawn = problem.draw(&mut draws, [sequence, head], [first_query, first_key], count, block);
            let softmax = OnlineSoftmax {
                block: ScoreBlock {
                    scores: &mut *scores,
                    queries: count,
                    keys: block,
                    scale: problem.softmax_scale,
                    dropout: drawn,
                },
                maximum: &mut *maximum,
                sum: &mut *sum,
                output: &mut *output,
                output_stride: depth,
                first: index == 0,
                results: PhantomData::<bf16>,
            };
            run(isa, softmax);
            let steps = block.next_multiple_of(STEP);
            let product = PairProduct {
                a: rows(halves(scores), count, steps, 2 * KEYS),
                b: value_panels,
                panel_len: gemm::pairs_len(block, 1),
                depth: steps,
                columns: depth,
                c: &mut *output,
                c_row_stride: depth,
                accumulate: index > 0,
            };
            product.run(isa);
        }
        let scale = problem.dropout.map_or(1.0, |dropout| dropout.scale());
        let lse = &mut lse.row_mut(0)[first_query..first_query + count];
        for ((lse, sum), maximum) in lse.iter_mut().zip(sum.iter_mut()).zip(maximum.iter()) {
            *lse = log_sum_exp(*maximum, *sum);
            *sum = scale / *sum;
        }
        run(isa, Unpack { source: output, factors: &sum[..count], first_row: first_query, out });
    }
}

/// Writes the gradients of one head's queries, keys and values in one sequence.
pub(super) fn backward(
    problem: &Heads<'_, bf16>,
    sequence: usize,
    head: usize,
    dout: &Part<'_, bf16>,
    lse: &[f32],
    gradients: &mut Gradients<'_, bf16>,
) {
    let [query, key, value] = problem.parts(sequence, head);
    let (keys, depth) = (key.rows.len(), problem.head_size);
    if keys == 0 {
        return;
    }
    // Rows that did not ask.
    for row in query.rows.len()..keys {
        gradients.dquery.row_mut(row).fill(bf16::ZERO);
    }
    let isa = problem.isa;
    let mut draws = problem.draws(QUERIES);
    let by_depth = gemm::pairs_len(depth, keys);
    let by_keys = gemm::pairs_len(KEYS, depth);
    let by_queries = gemm::pairs_len(QUERIES, KEYS);
    let blocks = keys.div_ceil(KEYS);
    let width = blocks * KEYS;
    let words = 2 * by_depth + blocks * by_keys + 2 * by_queries;
    let reals = 2 * blocks * QUERIES * KEYS
        + 3 * QUERIES * depth
        + 2 * depth * width
        + padded(keys) * depth
        + 3 * QUERIES
        + keys;
    let halves = QUERIES * KEYS + 2 * depth * QUERIES;
    let mut block = memory::Block::new(4 * (words + reals) + 2 * halves + 32 * memory::ALIGNMENT);
    let mut scratch = Arena { rest: block.bytes_mut() };
    let (key_columns, value_columns) = (scratch.take::<u32>(by_depth), scratch.take::<u32>(by_depth));
    let key_panels = scratch.take::<u32>(blocks * by_keys);
    let (weights, dweights) = (scratch.take::<u32>(by_queries), scratch.take::<u32>(by_queries));
    let (scores, dscores) =
        (scratch.take::<f32>(blocks * QUERIES * KEYS), scratch.take::<f32>(blocks * QUERIES * KEYS));
    let dquery = scratch.take::<f32>(QUERIES * depth);
    let (dkey, dvalue) = (scratch.take::<f32>(depth * width), scratch.take::<f32>(depth * width));
    let transposed = scratch.take::<f32>(padded(keys) * depth);
    let (delta, sums) = (scratch.take::<f32>(QUERIES), scratch.take::<f32>(QUERIES));
    let factors = scratch.take::<f32>(QUERIES.max(keys));
    let rounded = scratch.take::<bf16>(QUERIES * KEYS);
    let (query_columns, dout_columns) =
        (scratch.take::<bf16>(depth * QUERIES), scratch.take::<bf16>(depth * QUERIES));

    gemm::pack_pairs(isa, matrix(&key).transposed(), key_columns);
    gemm::pack_pairs(isa, matrix(&value).transposed(), value_columns);
    for (index, panels) in key_panels.chunks_exact_mut(by_keys).enumerate() {
        let block = index * KEYS..keys.min((index + 1) * KEYS);
        gemm::pack_pairs(isa, matrix(&key.narrow(block)), panels);
    }
    for first_query in (0..query.rows.len()).step_by(QUERIES) {
        let query_rows = first_query..query.rows.len().min(first_query + QUERIES);
        let count = query_rows.len();
        let (queries, douts) =
            (matrix(&query.narrow(query_rows.clone())), matrix(&dout.narrow(query_rows.clone())));
        gemm::copy_rows(isa, queries.transposed(), query_columns, QUERIES);
        gemm::copy_rows(isa, douts.transposed(), dout_columns, QUERIES);
        let matrices = scores.chunks_exact_mut(QUERIES * KEYS).zip(dscores.chunks_exact_mut(QUERIES * KEYS));
        for (index, (scores, dscores)) in matrices.enumerate() {
            let first_key = index * KEYS;
            let block = KEYS.min(keys - first_key);
            score_block(isa, queries, key_columns, first_key, block, scores);
            score_block(isa, douts, value_columns, first_key, block, dscores);
            let drawn = problem.draw(&mut draws, [sequence, head], [first_query, first_key], count, block);
            let scale = problem.softmax_scale;
            let step = ProbabilityGradients {
                block: ScoreBlock { scores, queries: count, keys: block, scale, dropout: drawn },
                gradients: dscores,
                lse: &lse[query_rows.clone()],
                sums: [&mut *delta, &mut *sums],
                first: index == 0,
            };
            run(isa, step);
        }
        divide(&mut delta[..count], sums);
        let matrices = scores.chunks_exact_mut(QUERIES * KEYS).zip(dscores.chunks_exact_mut(QUERIES * KEYS));
        for (index, ((scores, dscores), key_panels)) in
            matrices.zip(key_panels.chunks_exact(by_keys)).enumerate()
        {
            let first_key = index * KEYS;
            let block = KEYS.min(keys - first_key);
            let step = PackScoreGradients {
                scores,
                gradients: dscores,
                delta: &delta[..count],
                keys: block,
                kept: problem.dropout.map_or(1.0, |dropout| dropout.scale().into()),
                z: &mut *weights,
                ds: &mut *dweights,
                ds_rows: &mut *rounded,
            };
            run(isa, step);
            // dV^T += dO^T Z, and dK^T += Q^T dS.
            let sides =
                [(&*weights, &*dout_columns, &mut *dvalue), (&*dweights, &*query_columns, &mut *dkey)];
            for (pairs, left, gradients) in sides {
                let product = PairProduct {
                    a: MatrixRef::new(left, depth, QUERIES),
                    b: pairs,
                    panel_len: gemm::pairs_len(count, 1),
                    depth: count.next_multiple_of(STEP),
                    columns: block.next_multiple_of(PANEL),
                    c: &mut gradients[first_key..],
                    c_row_stride: width,
                    accumulate: first_query > 0,
                };
                product.run(isa);
            }
            let steps = block.next_multiple_of(STEP);
            let product = PairProduct {
                a: rows(rounded, count, steps, KEYS),
                b: key_panels,
                panel_len: gemm::pairs_len(block, 1),
                depth: steps,
                columns: depth,
                c: &mut *dquery,
                c_row_stride: depth,
                accumulate: index > 0,
            };
            product.run(isa);
        }
        factors.fill(problem.softmax_scale as f32);
        let factors = &factors[..count];
        run(isa, Unpack { source: dquery, factors, first_row: first_query, out: &mut gradients.dquery });
    }
    for (sums, factor, out) in
        [(&*dkey, problem.softmax_scale as f32, &mut gradients.dkey), (&*dvalue, 1.0, &mut gradients.dvalue)]
    {
        run(
            isa,
            Transpose { source: sums, width, rows: padded(keys), columns: depth, out: &mut *transposed },
        );
        factors.fill(factor);
        run(isa, Unpack { source: transposed, factors: &factors[..keys], first_row: 0, out });
    }
}

/// [`score_gradients`] of a block, rounded and laid out as products read them.
struct PackScoreGradients<'a> {
    /// What [`ProbabilityGradients`] left: rows of [`KEYS`].
    scores: &'a [f32],
    gradients: &'a [f32],
    /// Each query's delta; as many as there are queries.
    delta: &'a [f32],
    /// How many keys.
    keys: usize,
    /// `1 / (1 - dropout_p)`.
    kept: f64,
    /// z and ds as right operands `[queries, keys]`, in pairs of queries, padded with zeros to whole panels and steps.
    z: &'a mut [u32],
    ds: &'a mut [u32],
    /// ds as a left operand: rows of [`KEYS`], padded with zeros to whole steps.
    ds_rows: &'a mut [bf16],
}

impl PackScoreGradients<'_> {
    /// z and ds of a query, zeros past the last one, from column `column` on; ds goes to `ds_rows`.
    ///
    /// # Safety
    /// All arrays of rows have a vector at this place, if there is such a query.
    #[inline(always)]
    unsafe fn row<L: Lanes<Real = f32>>(&mut self, query: usize, column: usize, kept: L) -> [L; 2] {
        if query >= self.delta.len() {
            return [L::constant(0.0); 2];
        }
        let place = query * KEYS + column;
        // SAFETY: the caller's promise.
        unsafe {
            let signed = L::load_real(self.scores.as_ptr().add(place));
            let product = L::load_real(self.gradients.as_ptr().add(place));
            let [z, ds] = score_gradients(signed, product, L::splat(self.delta[query]), kept);
            ds.store_bf16(self.ds_rows.as_mut_ptr().add(place));
            [z, ds]
        }
    }
}

impl Kernel<f32> for PackScoreGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(mut self) {
        let count = self.delta.len();
        let (width, panel_len) = (self.keys.next_multiple_of(WHOLE), gemm::pairs_len(count, 1));
        let words = gemm::pairs_len(count, width);
        assert!(PANEL.is_multiple_of(L::LANES) && width <= KEYS && words <= self.z.len().min(self.ds.len()));
        assert!(count * KEYS <= self.scores.len().min(self.gradients.len()).min(self.ds_rows.len()));
        let kept = L::constant(self.kept);
        for pair in 0..panel_len / PANEL {
            for column in (0..width).step_by(L::LANES) {
                // SAFETY: vectors of rows of `count` and of columns below `width`, as asserted.
                let (upper, lower) =
                    unsafe { (self.row(2 * pair, column, kept), self.row(2 * pair + 1, column, kept)) };
                let place = column / PANEL * panel_len + pair * PANEL + column % PANEL;
                // SAFETY: a vector of a pair of a panel, below `words`, as asserted.
                unsafe {
                    L::store_bf16_pairs(upper[0], lower[0], self.z.as_mut_ptr().add(place));
                    L::store_bf16_pairs(upper[1], lower[1], self.ds.as_mut_ptr().add(place));
                }
            }
        }
    }
}

/// Writes the first `rows` columns of `columns` rows, `width` apart, as rows of `columns` reals. Both are multiples of 8.
struct Transpose<'a> {
    source: &'a [f32],
    width: usize,
    rows: usize,
    columns: usize,
    out: &'a mut [f32],
}

impl Kernel<f32> for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(self) {
        let Transpose { source, width, rows, columns, out } = self;
        assert!(rows.is_multiple_of(8) && columns.is_multiple_of(8) && rows <= width);
        assert!(columns * width <= source.len() && rows * columns <= out.len());
        for row in (0..rows).step_by(8) {
            for column in (0..columns).step_by(8) {
                // SAFETY: blocks of 8 x 8 inside of both, as checked above.
                unsafe {
                    let source = source.as_ptr().add(column * width + row);
                    L::transpose_8x8(source, width, out.as_mut_ptr().add(row * columns + column), columns);
                }
            }
        }
    }
}
