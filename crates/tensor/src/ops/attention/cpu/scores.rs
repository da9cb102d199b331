//! What happens to a block of scores between its matrix products: the softmax forward, its gradient backward, and the
//! dropout of probabilities in both.

use crate::cpu::simd::{self, Kernel, Lanes, Real};
use crate::random;
use crate::{Dropout, Float};
use std::f64::consts::{LN_2, LOG2_E};
use std::marker::PhantomData;

/// Most keys in a block of scores.
pub(super) const KEYS: usize = 256;

/// Keys are padded to a multiple of this, whole vectors and whole steps of every product: with scores of minus infinity,
/// and so with probabilities of zero.
pub(super) const WHOLE: usize = 32;

/// Queries and keys of a block that shares 32 Philox calls; see [`random`].
const DRAWN: usize = 16;

/// Scores of some queries with some keys of one head.
pub(super) struct ScoreBlock<'a, R> {
    /// Row `i` starts at `i * KEYS`; whole vectors are allocated.
    pub scores: &'a mut [R],
    /// How many rows.
    pub queries: usize,
    /// How many columns.
    pub keys: usize,
    /// What scores are still to be multiplied by; positive.
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

    /// Which draws of a row are below the threshold, a vector of them from column `column` on.
    #[inline(always)]
    fn below<L: Lanes>(&self, row: usize, column: usize, threshold: u16) -> L::Mask {
        let row: &[u32; KEYS / 2] = &self.0[row];
        assert!(column + L::LANES <= KEYS);
        // SAFETY: a row holds KEYS draws, and vectors end inside of it (checked above).
        unsafe { L::below_u16(row.as_ptr().cast::<u16>().add(column), threshold) }
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
///
/// Results replace scores as elements of `E`: the real itself, or bfloat16, which takes the first half of a row's memory.
pub(super) struct OnlineSoftmax<'a, R, E> {
    pub block: ScoreBlock<'a, R>,
    /// The largest score of each query so far, times log2 e: exponentials are powers of two.
    pub maximum: &'a mut [R],
    /// The sum of each query's exponentials so far.
    pub sum: &'a mut [R],
    /// The weighted sum of values of each query so far.
    pub output: &'a mut [R],
    /// The distance between rows of the output.
    pub output_stride: usize,
    /// Whether nothing came before.
    pub first: bool,
    pub results: PhantomData<E>,
}

impl<R: Real, E: Float<Real = R>> Kernel<R> for OnlineSoftmax<'_, R, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = R>>(self) {
        const { assert!(size_of::<E>() <= size_of::<R>()) };
        let ScoreBlock { scores, queries, keys, scale, dropout } = self.block;
        let scale = R::from_f64(scale * LOG2_E);
        let (zero, lowest) = (R::default(), R::from_f64(f64::NEG_INFINITY));
        let threshold = dropout.map_or(0, |(dropout, _)| dropout.threshold());
        for query in 0..queries {
            let row = &mut scores[query * KEYS..][..keys.next_multiple_of(WHOLE)];
            row[keys..].fill(lowest);
            let largest = simd::fold(row, L::splat(lowest), lowest, L::max).reduce_max();
            let largest = (L::splat(largest) * L::splat(scale)).reduce_max();
            let before = if self.first { lowest } else { self.maximum[query] };
            let maximum = L::splat(if largest > before { largest } else { before });
            let mut sum = L::splat(zero);
            let source = row.as_mut_ptr();
            for index in (0..row.len()).step_by(L::LANES) {
                // SAFETY: whole vectors inside of the row. Elements of E are no larger than reals, so that no write
                // reaches a score that is still to be read.
                unsafe {
                    let p = L::load_real(source.add(index)).mul_add(L::splat(scale), -maximum).exp2();
                    sum = sum + p;
                    let kept = match dropout {
                        Some((_, draws)) => {
                            L::select(draws.below::<L>(query, index, threshold), L::splat(zero), p)
                        }
                        None => p,
                    };
                    E::store_lanes(kept, source.cast::<E>().add(index));
                }
            }
            let mut sum = L::splat(sum.reduce_add());
            if !self.first {
                let correction = (L::splat(before) - maximum).exp2();
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

/// The logarithm of a row's sum of exponentials, from what [`OnlineSoftmax`] left.
pub(super) fn log_sum_exp<R: Real>(maximum: R, sum: R) -> R {
    R::from_f64(maximum.to_f64() * LN_2 + sum.to_f64().ln())
}

/// The gradient through dropout and softmax, first part. From scores `s` and `dz`, the gradient of the dropped-out
/// probabilities: `p = exp(s - lse)`, `dp = dz * keep / (1 - dropout_p)`, and over all blocks the sums of `p dp` and of `p`,
/// of which delta is the quotient.
///
/// FlashAttention takes delta from `out . dout`. Summed here it costs a second pass over scores in the cache, and makes the
/// rows of dS sum to zero up to their own rounding, however coarsely `out` was rounded: in bfloat16 that halves the error of
/// the queries' and keys' gradients, and in f32 it is what keeps the gradient of the keys' bias at zero. The sum of `p` is 1
/// but for the rounding of lse, which all `p` of a row share: without the division it would be what the row sums to.
pub(super) struct ProbabilityGradients<'a, R> {
    /// Scores; becomes `p`, negative where it is dropped.
    pub block: ScoreBlock<'a, R>,
    /// `dz`; becomes `p dp`.
    pub gradients: &'a mut [R],
    /// The logarithm of each query's sum of exponentials.
    pub lse: &'a [R],
    /// Each query's sums of `p dp` and of `p` so far.
    pub sums: [&'a mut [R]; 2],
    /// Whether nothing came before.
    pub first: bool,
}

impl<R: Real> Kernel<R> for ProbabilityGradients<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = R>>(mut self) {
        let ScoreBlock { scores, queries, keys, scale, dropout } = self.block;
        let scale = L::constant(scale * LOG2_E);
        let zero = R::default();
        let threshold = dropout.map_or(0, |(dropout, _)| dropout.threshold());
        let kept = L::constant(dropout.map_or(1.0, |(dropout, _)| dropout.scale().into()));
        for query in 0..queries {
            let lse = L::constant(self.lse[query].to_f64() * LOG2_E);
            let width = keys.next_multiple_of(WHOLE);
            let scores = &mut scores[query * KEYS..][..width];
            scores[keys..].fill(R::from_f64(f64::NEG_INFINITY));
            let gradients = &mut self.gradients[query * KEYS..][..width];
            gradients[keys..].fill(zero);
            let pairs = scores.chunks_exact_mut(L::LANES).zip(gradients.chunks_exact_mut(L::LANES));
            let mut sums = [L::splat(zero); 2];
            for (index, (score, gradient)) in pairs.enumerate() {
                let p = simd::load::<L, R>(score, zero).mul_add(scale, -lse).exp2();
                let mut product = p * simd::load(gradient, zero);
                let mut signed = p;
                if let Some((_, draws)) = dropout {
                    let dropped = draws.below::<L>(query, index * L::LANES, threshold);
                    product = L::select(dropped, L::splat(zero), product * kept);
                    signed = L::select(dropped, -p, p);
                }
                sums = [sums[0] + product, sums[1] + p];
                simd::store(signed, score);
                simd::store(product, gradient);
            }
            for (so_far, sum) in self.sums.iter_mut().zip(sums) {
                let before = if self.first { zero } else { so_far[query] };
                so_far[query] = (L::splat(before) + L::splat(sum.reduce_add())).reduce_max();
            }
        }
    }
}

/// Makes delta of the sums that [`ProbabilityGradients`] left.
pub(super) fn divide<R: Real>(delta: &mut [R], sums: &[R]) {
    for (delta, sum) in delta.iter_mut().zip(sums) {
        *delta = R::from_f64(delta.to_f64() / sum.to_f64());
    }
}

/// Second part: `z = p * keep / (1 - dropout_p)` and `ds = p dp - p delta`, from a vector of what the first part left.
#[inline(always)]
pub(super) fn score_gradients<L: Lanes>(signed: L, product: L, delta: L, kept: L) -> [L; 2] {
    [signed.max(L::constant(0.0)) * kept, signed.abs().mul_add(-delta, product)]
}

/// [`score_gradients`] of a block, in place.
pub(super) struct ScoreGradients<'a, R> {
    /// What [`ProbabilityGradients`] made of scores; becomes `z`. Rows as in [`ScoreBlock`].
    pub scores: &'a mut [R],
    /// `p dp`; becomes `ds`.
    pub gradients: &'a mut [R],
    /// Each query's delta.
    pub delta: &'a [R],
    /// How many columns.
    pub keys: usize,
    /// `1 / (1 - dropout_p)`.
    pub kept: f64,
}

impl<R: Real> Kernel<R> for ScoreGradients<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = R>>(self) {
        let (kept, zero) = (L::constant(self.kept), R::default());
        let width = self.keys.next_multiple_of(L::LANES);
        let rows = self.scores.chunks_exact_mut(KEYS).zip(self.gradients.chunks_exact_mut(KEYS));
        for ((scores, gradients), &delta) in rows.zip(self.delta) {
            let scores = scores[..width].chunks_exact_mut(L::LANES);
            for (score, gradient) in scores.zip(gradients[..width].chunks_exact_mut(L::LANES)) {
                let (signed, product) = (simd::load(score, zero), simd::load(gradient, zero));
                let [z, ds] = score_gradients::<L>(signed, product, L::splat(delta), kept);
                simd::store(z, score);
                simd::store(ds, gradient);
            }
        }
    }
}
