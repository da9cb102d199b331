//! What happens to a block of scores between its matrix products: the softmax forward, its gradient backward, and the
//! dropout of probabilities in both.

use crate::Dropout;
use crate::cpu::simd::{self, Kernel, Lanes, Real};
use crate::random;

/// Most keys in a block of scores.
pub(super) const KEYS: usize = 256;

/// Queries and keys of a block that shares 32 Philox calls; see [`random`].
const DRAWN: usize = 16;

/// Scores of some queries with some keys of one head.
pub(super) struct Block<'a, R> {
    /// Row `i` starts at `i * KEYS`; whole vectors are allocated.
    pub scores: &'a mut [R],
    /// How many rows.
    pub queries: usize,
    /// How many columns.
    pub keys: usize,
    /// Dropout, if any.
    pub mask: Option<Mask>,
}

/// Which probabilities of a block are dropped.
#[derive(Clone, Copy)]
pub(super) struct Mask {
    pub dropout: Dropout,
    pub head: usize,
    pub sequence: usize,
    /// Position in the sequence of the block's first query, a multiple of 16.
    pub first_query: usize,
    /// Position in the sequence of the block's first key, a multiple of 16.
    pub first_key: usize,
}

/// The draws for 16 rows of a block. Two 16-bit draws a word, low half first, so that a row in memory is a row of draws
/// on little-endian machines, which all supported ones are.
struct Draws([[u32; KEYS / 2]; DRAWN]);

impl Draws {
    #[inline(always)]
    fn new() -> Self {
        const { assert!(cfg!(target_endian = "little")) };
        Draws([[0; KEYS / 2]; DRAWN])
    }

    /// Draws for rows `first_row..first_row + 16` of a block with `keys` columns: `Dropout::attention_draw`, 32 Philox
    /// calls at a time.
    #[inline(always)]
    fn fill(&mut self, mask: &Mask, first_row: usize, keys: usize) {
        let dropout = &mask.dropout;
        let query_block = ((mask.first_query + first_row) / DRAWN) as u32;
        let place = u32::from(dropout.site) << 16 | mask.head as u32;
        let sequence = dropout.first_sequence.wrapping_add(mask.sequence as u32);
        for block in 0..keys.div_ceil(DRAWN) {
            let key_block = (mask.first_key / DRAWN + block) as u32;
            let calls = std::array::from_fn(|call| query_block << 17 | key_block << 5 | call as u32);
            let words = random::philox_many::<32>(
                [calls, [place; 32], [sequence; 32], [dropout.step; 32]],
                random::key(dropout.seed),
            );
            // Words are the quadrants of the block, four consecutive calls a row of a quadrant.
            for (quadrant, words) in words.iter().enumerate() {
                let start = block * DRAWN / 2 + quadrant % 2 * 4;
                for (row, words) in words.chunks_exact(4).enumerate() {
                    self.0[quadrant / 2 * 8 + row][start..start + 4].copy_from_slice(words);
                }
            }
        }
    }

    /// A vector of draws of a row, from column `column` on.
    #[inline(always)]
    fn load<L: Lanes>(&self, row: usize, column: usize) -> L {
        assert!(column + L::LANES <= KEYS);
        // SAFETY: a row holds KEYS draws, and vectors end inside of it (checked above).
        unsafe { L::load_u16(self.0[row].as_ptr().cast::<u16>().add(column)) }
    }
}

/// One step of the online softmax: scores become exp(score - maximum), and the sums and the output so far are rescaled
/// to the new maximum. Dropped probabilities become zero after they were summed.
pub(super) struct OnlineSoftmax<'a, R> {
    pub block: Block<'a, R>,
    /// The largest score of each query so far.
    pub maximum: &'a mut [R],
    /// The sum of each query's exponentials so far.
    pub sum: &'a mut [R],
    /// The weighted sum of values of each query so far.
    pub output: &'a mut [R],
    /// The distance between rows of the output.
    pub output_stride: usize,
    /// Whether nothing came before.
    pub first: bool,
}

impl<R: Real> Kernel<R> for OnlineSoftmax<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = R>>(self) {
        let Block { scores, queries, keys, mask } = self.block;
        let (zero, lowest) = (R::default(), R::from_f64(f64::NEG_INFINITY));
        let threshold = L::constant(mask.map_or(0.0, |mask| mask.dropout.threshold().into()));
        let mut draws = Draws::new();
        for query in 0..queries {
            if let Some(mask) = &mask
                && query % DRAWN == 0
            {
                draws.fill(mask, query, keys);
            }
            let row = &mut scores[query * KEYS..][..keys.next_multiple_of(L::LANES)];
            row[keys..].fill(lowest);
            let largest =
                simd::fold(row, L::splat(lowest), lowest, |largest: L, x| largest.max(x)).reduce_max();
            let before = if self.first { lowest } else { self.maximum[query] };
            let maximum = L::splat(if largest > before { largest } else { before });
            let mut sum = L::splat(zero);
            for (index, vector) in row.chunks_exact_mut(L::LANES).enumerate() {
                let p = (simd::load::<L, R>(vector, zero) - maximum).exp();
                sum = sum + p;
                let kept = if mask.is_some() {
                    let draw: L = draws.load(query % DRAWN, index * L::LANES);
                    L::select(draw.lt(threshold), L::splat(zero), p)
                } else {
                    p
                };
                simd::store(kept, vector);
            }
            let mut sum = L::splat(sum.reduce_add());
            if !self.first {
                let correction = (L::splat(before) - maximum).exp();
                sum = L::splat(self.sum[query]).mul_add(correction, sum);
                let output = &mut self.output[query * self.output_stride..][..self.output_stride];
                for vector in output.chunks_exact_mut(L::LANES) {
                    simd::store(simd::load::<L, R>(vector, zero) * correction, vector);
                }
            }
            // All lanes are equal.
            self.maximum[query] = maximum.reduce_max();
            self.sum[query] = sum.reduce_max();
        }
    }
}

/// The gradient through dropout and softmax. From scores `s` and `dz`, the gradient of the dropped-out probabilities:
/// `p = exp(s - lse)`, `z = p * keep / (1 - dropout_p)` and `ds = p * (dz * keep / (1 - dropout_p) - delta)`.
pub(super) struct ScoreGradients<'a, R> {
    /// Scores; becomes `z`.
    pub block: Block<'a, R>,
    /// `dz`; becomes `ds`.
    pub gradients: &'a mut [R],
    /// The logarithm of each query's sum of exponentials.
    pub lse: &'a [R],
    /// The inner product of each query's output and its gradient: `sum_j p_j dp_j`.
    pub delta: &'a [R],
}

impl<R: Real> Kernel<R> for ScoreGradients<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = R>>(self) {
        let Block { scores, queries, keys, mask } = self.block;
        let zero = R::default();
        let threshold = L::constant(mask.map_or(0.0, |mask| mask.dropout.threshold().into()));
        let scale = L::constant(mask.map_or(1.0, |mask| mask.dropout.scale().into()));
        let mut draws = Draws::new();
        for query in 0..queries {
            if let Some(mask) = &mask
                && query % DRAWN == 0
            {
                draws.fill(mask, query, keys);
            }
            let (lse, delta) = (L::splat(self.lse[query]), L::splat(self.delta[query]));
            let row = query * KEYS..query * KEYS + keys.next_multiple_of(L::LANES);
            let scores = scores[row.clone()].chunks_exact_mut(L::LANES);
            let gradients = self.gradients[row].chunks_exact_mut(L::LANES);
            for (index, (score, gradient)) in scores.zip(gradients).enumerate() {
                let p = (simd::load::<L, R>(score, zero) - lse).exp();
                let mut dp: L = simd::load(gradient, zero);
                if mask.is_some() {
                    let draw: L = draws.load(query % DRAWN, index * L::LANES);
                    let keep = L::select(draw.lt(threshold), L::splat(zero), scale);
                    dp = dp * keep;
                    simd::store(p * keep, score);
                } else {
                    simd::store(p, score);
                }
                simd::store(p * (dp - delta), gradient);
            }
        }
    }
}
