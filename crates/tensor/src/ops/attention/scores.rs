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
    /// What scores are still to be multiplied by.
    pub scale: f64,
    /// Dropout, if any, and its draws for the block.
    pub dropout: Option<(Dropout, &'a Draws)>,
}

/// The draws for a block's probabilities. Two 16-bit draws a word, low half first, so that a row in memory is a row of
/// draws on little-endian machines, which all supported ones are.
pub(super) struct Draws(Vec<[u32; KEYS / 2]>);

impl Draws {
    /// Room for the draws of `queries` rows.
    pub(super) fn new(queries: usize) -> Self {
        const { assert!(cfg!(target_endian = "little")) };
        Draws(vec![[0; KEYS / 2]; queries.next_multiple_of(DRAWN)])
    }

    /// A vector of draws of a row, from column `column` on.
    #[inline(always)]
    fn load<L: Lanes>(&self, row: usize, column: usize) -> L {
        let row: &[u32; KEYS / 2] = &self.0[row];
        assert!(column + L::LANES <= KEYS);
        // SAFETY: a row holds KEYS draws, and vectors end inside of it (checked above).
        unsafe { L::load_u16(row.as_ptr().cast::<u16>().add(column)) }
    }
}

/// Draws for the probabilities of a block: `Dropout::attention_draw`, 32 Philox calls at a time.
pub(super) struct FillDraws<'a> {
    pub dropout: Dropout,
    pub head: usize,
    pub sequence: usize,
    /// Positions in the sequence of the block's first query and key, multiples of 16.
    pub first: [usize; 2],
    /// How many rows and columns it has.
    pub queries: usize,
    pub keys: usize,
    pub out: &'a mut Draws,
}

impl<R: Real> Kernel<R> for FillDraws<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = R>>(self) {
        let dropout = self.dropout;
        let place = u32::from(dropout.site) << 16 | self.head as u32;
        let sequence = dropout.first_sequence.wrapping_add(self.sequence as u32);
        let rest = [[place; 32], [sequence; 32], [dropout.step; 32]];
        for (index, rows) in self.out.0.chunks_exact_mut(DRAWN).take(self.queries.div_ceil(DRAWN)).enumerate()
        {
            let query_block = (self.first[0] / DRAWN + index) as u32;
            for block in 0..self.keys.div_ceil(DRAWN) {
                let key_block = (self.first[1] / DRAWN + block) as u32;
                let calls = std::array::from_fn(|call| query_block << 17 | key_block << 5 | call as u32);
                let counters = [calls, rest[0], rest[1], rest[2]];
                let words = random::philox_many::<32>(counters, random::key(dropout.seed));
                // Words are the quadrants of the block, four consecutive calls a row of a quadrant.
                for (quadrant, words) in words.iter().enumerate() {
                    let start = block * DRAWN / 2 + quadrant % 2 * 4;
                    for (row, words) in words.chunks_exact(4).enumerate() {
                        rows[quadrant / 2 * 8 + row][start..start + 4].copy_from_slice(words);
                    }
                }
            }
        }
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
        let Block { scores, queries, keys, scale, dropout } = self.block;
        let scale = L::constant(scale);
        let (zero, lowest) = (R::default(), R::from_f64(f64::NEG_INFINITY));
        let threshold = L::constant(dropout.map_or(0.0, |(dropout, _)| dropout.threshold().into()));
        for query in 0..queries {
            let row = &mut scores[query * KEYS..][..keys.next_multiple_of(L::LANES)];
            row[keys..].fill(lowest);
            let largest = simd::fold(row, L::splat(lowest), lowest, |largest: L, x| largest.max(x * scale))
                .reduce_max();
            let before = if self.first { lowest } else { self.maximum[query] };
            let maximum = L::splat(if largest > before { largest } else { before });
            let mut sum = L::splat(zero);
            for (index, vector) in row.chunks_exact_mut(L::LANES).enumerate() {
                let p = simd::load::<L, R>(vector, zero).mul_add(scale, -maximum).exp();
                sum = sum + p;
                let kept = if let Some((_, draws)) = dropout {
                    let draw: L = draws.load(query, index * L::LANES);
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

/// The gradient through dropout and softmax, first part. From scores `s` and `dz`, the gradient of the dropped-out
/// probabilities: `p = exp(s - lse)`, `dp = dz * keep / (1 - dropout_p)`, and `delta = sum_j p_j dp_j` over all blocks.
///
/// FlashAttention takes delta from `out . dout`. Summed here it costs a second pass over scores in the cache, and makes the
/// rows of dS sum to zero up to its own rounding, however coarsely `out` was rounded: in bfloat16 that halves the error of
/// the queries' and keys' gradients, and in f32 it is what keeps the gradient of the keys' bias at zero.
pub(super) struct ProbabilityGradients<'a, R> {
    /// Scores; becomes `p`, negative where it is dropped.
    pub block: Block<'a, R>,
    /// `dz`; becomes `p dp`.
    pub gradients: &'a mut [R],
    /// The logarithm of each query's sum of exponentials.
    pub lse: &'a [R],
    /// Each query's sum of `p dp` so far.
    pub delta: &'a mut [R],
    /// Whether nothing came before.
    pub first: bool,
}

impl<R: Real> Kernel<R> for ProbabilityGradients<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = R>>(self) {
        let Block { scores, queries, keys, scale, dropout } = self.block;
        let scale = L::constant(scale);
        let zero = R::default();
        let threshold = L::constant(dropout.map_or(0.0, |(dropout, _)| dropout.threshold().into()));
        let kept = L::constant(dropout.map_or(1.0, |(dropout, _)| dropout.scale().into()));
        for query in 0..queries {
            let lse = L::splat(self.lse[query]);
            let width = keys.next_multiple_of(L::LANES);
            let scores = &mut scores[query * KEYS..][..width];
            // Beyond the keys: probabilities of zero.
            scores[keys..].fill(R::from_f64(f64::NEG_INFINITY));
            let gradients = &mut self.gradients[query * KEYS..][..width];
            gradients[keys..].fill(zero);
            let pairs = scores.chunks_exact_mut(L::LANES).zip(gradients.chunks_exact_mut(L::LANES));
            let mut sum = L::splat(zero);
            for (index, (score, gradient)) in pairs.enumerate() {
                let p = simd::load::<L, R>(score, zero).mul_add(scale, -lse).exp();
                let mut product = p * simd::load(gradient, zero);
                let mut signed = p;
                if let Some((_, draws)) = dropout {
                    let draw: L = draws.load(query, index * L::LANES);
                    let dropped = draw.lt(threshold);
                    product = L::select(dropped, L::splat(zero), product * kept);
                    signed = L::select(dropped, -p, p);
                }
                sum = sum + product;
                simd::store(signed, score);
                simd::store(product, gradient);
            }
            let before = if self.first { zero } else { self.delta[query] };
            self.delta[query] = (L::splat(before) + L::splat(sum.reduce_add())).reduce_max();
        }
    }
}

/// Second part: `z = p * keep / (1 - dropout_p)` and `ds = p dp - p delta`.
pub(super) struct ScoreGradients<'a, R> {
    /// What [`ProbabilityGradients`] made of scores; becomes `z`.
    pub block: Block<'a, R>,
    /// `p dp`; becomes `ds`.
    pub gradients: &'a mut [R],
    /// Each query's sum of `p dp`.
    pub delta: &'a [R],
}

impl<R: Real> Kernel<R> for ScoreGradients<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = R>>(self) {
        let Block { scores, queries, keys, dropout, .. } = self.block;
        let zero = R::default();
        let kept = L::constant(dropout.map_or(1.0, |(dropout, _)| dropout.scale().into()));
        for query in 0..queries {
            let delta = L::splat(self.delta[query]);
            let row = query * KEYS..query * KEYS + keys.next_multiple_of(L::LANES);
            let scores = scores[row.clone()].chunks_exact_mut(L::LANES);
            let gradients = self.gradients[row].chunks_exact_mut(L::LANES);
            for (score, gradient) in scores.zip(gradients) {
                let signed: L = simd::load(score, zero);
                let ds = signed.abs().mul_add(-delta, simd::load(gradient, zero));
                simd::store(ds, gradient);
                simd::store(signed.max(L::splat(zero)) * kept, score);
            }
        }
    }
}
