//! Counter-based randomness: Philox 4x32-10, and what this project counts.
//!
//! Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A draw is a pure function of its key
//! and counter, so recomputing a mask in backward, cutting a batch into accumulation steps, changing the number of
//! threads, moving to another device or resuming a run cannot change it. Nothing has to be saved.
//!
//! **What is counted.** key = seed; counter words:
//!
//! | word | hidden dropout | attention dropout |
//! |---|---|---|
//! | 0 | position in the sequence | `query block << 17 \| key block << 5 \| call` |
//! | 1 | `site << 16 \| block of 8 channels` | `site << 16 \| head` |
//! | 2 | the row's (review's) index within the optimizer step | the same |
//! | 3 | optimizer step | the same |
//!
//! One call gives eight 16-bit draws, low half first. For hidden dropout they are the eight channels of the block.
//! Attention probabilities are cut into blocks of 16 queries x 16 keys and 32 calls serve a block: output word 0 of the
//! 32 calls is its upper left 8 x 8 quadrant row by row (two keys a word), word 1 the upper right, word 2 the lower left,
//! word 3 the lower right. That is the order in which the lanes of a warp hold an `mma.m16n8k16` accumulator, and it is
//! contiguous rows for a CPU.

use crate::{Error, Result};

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// One call of Philox 4x32-10: four 32-bit words from a counter and a key.
#[inline(always)]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c, mut k] = [counter, [key[0], key[1], 0, 0]];
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k[0] = k[0].wrapping_add(WEYL[0]);
        k[1] = k[1].wrapping_add(WEYL[1]);
    }
    c
}

/// `N` calls side by side, counters given word by word; written so that compilers turn each round into vector code.
///
/// Words are held in 64-bit lanes, whose upper halves may hold anything: a widening multiplication reads only the lower
/// half of a lane, and so a round needs no shuffles.
#[inline(always)]
pub fn philox_many<const N: usize>(counters: [[u32; N]; 4], key: [u32; 2]) -> [[u32; N]; 4] {
    let (lanes, mut words) = (philox_lanes(counters, key), [[0u32; N]; 4]);
    for (words, lanes) in words.iter_mut().zip(&lanes) {
        for i in 0..N {
            words[i] = lanes[i] as u32;
        }
    }
    words
}

/// As [`philox_many`], call by call: the four words of a call in two, the first in the lower half. On little-endian
/// machines these are eight 16-bit draws in their order.
#[inline(always)]
pub fn philox_calls<const N: usize>(counters: [[u32; N]; 4], key: [u32; 2]) -> [[u64; 2]; N] {
    let (lanes, mut calls) = (philox_lanes(counters, key), [[0u64; 2]; N]);
    for (i, call) in calls.iter_mut().enumerate() {
        let pair = |word: usize| lanes[word][i] & 0xffff_ffff | lanes[word + 1][i] << 32;
        *call = [pair(0), pair(2)];
    }
    calls
}

/// The words of `N` calls, in the lower halves of 64-bit lanes.
#[inline(always)]
fn philox_lanes<const N: usize>(counters: [[u32; N]; 4], key: [u32; 2]) -> [[u64; N]; 4] {
    let mut lanes = [[0u64; N]; 4];
    for (lanes, counters) in lanes.iter_mut().zip(&counters) {
        for i in 0..N {
            lanes[i] = u64::from(counters[i]);
        }
    }
    let mut k = key;
    for _ in 0..10 {
        let [c0, c1, c2, c3] = &mut lanes;
        for i in 0..N {
            let p0 = u64::from(MULTIPLIERS[0]) * (c0[i] & 0xffff_ffff);
            let p1 = u64::from(MULTIPLIERS[1]) * (c2[i] & 0xffff_ffff);
            c0[i] = (p1 >> 32) ^ c1[i] ^ u64::from(k[0]);
            c1[i] = p1;
            c2[i] = (p0 >> 32) ^ c3[i] ^ u64::from(k[1]);
            c3[i] = p0;
        }
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    lanes
}

/// Splits a seed into a Philox key.
pub const fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// Everything that decides one dropout mask, apart from the rows' offsets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The probability of dropping, in [0, 1); rounded to a multiple of 2^-16.
    pub dropout_p: f32,
    /// The run's seed: the Philox key.
    pub seed: u64,
    /// The optimizer step.
    pub step: u32,
    /// Where in the model: a fixed number of (layer, place).
    pub site: u16,
    /// The index, within the optimizer step, of the batch's first sequence (not 0 under gradient accumulation).
    pub first_sequence: u32,
}

impl Dropout {
    /// A draw below this drops its element.
    pub fn threshold(&self) -> u16 {
        (self.dropout_p * 65536.0).round().clamp(0.0, 65535.0) as u16
    }

    /// What kept elements are multiplied by: `1 / (1 - threshold / 65536)`, so the expectation is exact.
    pub fn scale(&self) -> f32 {
        65536.0 / (65536.0 - f32::from(self.threshold()))
    }

    /// Checks the probability.
    ///
    /// # Errors
    /// `InvalidArgument` unless it is in [0, 1).
    pub fn check(&self, op: &'static str) -> Result<()> {
        if (0.0..1.0).contains(&self.dropout_p) {
            return Ok(());
        }
        let got = self.dropout_p.to_string();
        Err(Error::InvalidArgument { op, name: "dropout_p", expected: "at least 0 and below 1", got })
    }

    /// The eight draws for channels `8 * block..8 * block + 8` of one row of hidden dropout.
    #[inline(always)]
    pub fn hidden_draws(&self, position: u32, sequence: u32, block: u32) -> [u16; 8] {
        let counter =
            [position, u32::from(self.site) << 16 | block, self.first_sequence + sequence, self.step];
        halves(philox(counter, key(self.seed)))
    }

    /// The draw for one attention probability: the readable definition that vector code is tested against.
    pub fn attention_draw(&self, head: u32, sequence: u32, query: u32, key_position: u32) -> u16 {
        let (row, column) = (query % 16, key_position % 16);
        let call = (row % 8) * 4 + (column % 8) / 2;
        let counter = [
            (query / 16) << 17 | (key_position / 16) << 5 | call,
            u32::from(self.site) << 16 | head,
            self.first_sequence + sequence,
            self.step,
        ];
        let word = (row / 8) * 2 + column / 8;
        halves(philox(counter, key(self.seed)))[(word * 2 + column % 2) as usize]
    }
}

/// Four words as eight 16-bit draws, low half first.
#[inline(always)]
fn halves(words: [u32; 4]) -> [u16; 8] {
    std::array::from_fn(|i| (words[i / 2] >> (16 * (i % 2))) as u16)
}

/// `n` draws from U(-bound, bound), a function of (seed, stream): how LoRA's matrices are initialised.
pub fn uniform(n: usize, bound: f64, seed: u64, stream: u32) -> Vec<f32> {
    let blocks = 0..n.div_ceil(4) as u64;
    let words =
        blocks.flat_map(|block| philox([block as u32, (block >> 32) as u32, stream, u32::MAX], key(seed)));
    words.take(n).map(|word| (((f64::from(word) + 0.5) / 2_147_483_648.0 - 1.0) * bound) as f32).collect()
}

/// `n` draws from N(0, std^2) by Box-Muller, a function of (seed, stream): how new weights are initialised.
pub fn normal(n: usize, std: f64, seed: u64, stream: u32) -> Vec<f32> {
    let uniform = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
    let mut out = Vec::with_capacity(n + 3);
    for block in 0..n.div_ceil(4) as u64 {
        let words = philox([block as u32, (block >> 32) as u32, stream, u32::MAX], key(seed));
        for pair in words.chunks_exact(2) {
            let radius = (-2.0 * uniform(pair[0]).ln()).sqrt() * std;
            let (sin, cos) = (std::f64::consts::TAU * uniform(pair[1])).sin_cos();
            out.extend([(radius * cos) as f32, (radius * sin) as f32]);
        }
    }
    out.truncate(n);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Random123's `kat_vectors` for philox4x32-10.
    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(
            philox(pi, [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    /// Draws of hidden dropout, from another implementation of Philox and of the layout: a checkpoint that is resumed by a
    /// later version must see the same masks.
    #[test]
    fn hidden_draws_are_these() {
        let dropout = Dropout {
            dropout_p: 0.1,
            seed: 0x1234_5678_9abc_def0,
            step: 1234,
            site: 0x0302,
            first_sequence: 40,
        };
        let vectors: [(u32, u32, u32, [u16; 8]); 3] = [
            (0, 0, 0, [18567, 21439, 27114, 53003, 49830, 27545, 32828, 62381]),
            (511, 1, 95, [23595, 51712, 26010, 38065, 19887, 34294, 36903, 47974]),
            (3, 0, 7, [44650, 681, 7314, 47877, 8175, 14989, 889, 45735]),
        ];
        for (position, sequence, block, draws) in vectors {
            assert_eq!(dropout.hidden_draws(position, sequence, block), draws);
        }
        assert_eq!((dropout.threshold(), dropout.scale()), (6554, 65536.0 / 58982.0));
    }

    #[test]
    fn many_calls_equal_single_ones() {
        let counters: [[u32; 16]; 4] =
            std::array::from_fn(|word| std::array::from_fn(|i| (word * 97 + i * i) as u32));
        let (many, calls) = (philox_many(counters, key(42)), philox_calls(counters, key(42)));
        for i in 0..16 {
            let one = philox(std::array::from_fn(|word| counters[word][i]), key(42));
            assert_eq!(one, std::array::from_fn(|word| many[word][i]));
            let two = [0, 2].map(|word| u64::from(one[word]) | u64::from(one[word + 1]) << 32);
            assert_eq!(two, calls[i]);
        }
    }

    #[test]
    fn normal_draws_have_their_moments() {
        let draws = normal(100_000, 0.02, 7, 3);
        let mean = draws.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e5;
        let variance = draws.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 4.0 * 0.02 / 1e5f64.sqrt(), "mean {mean}");
        assert!((variance.sqrt() / 0.02 - 1.0).abs() < 0.01, "standard deviation {}", variance.sqrt());
    }
}
