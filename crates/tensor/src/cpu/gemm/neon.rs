//! The micro-kernel for NEON: 8 rows x 3 vectors of 4 columns.
//!
//! 24 accumulators, 3 vectors of B and an element of A fill 28 of the 32 registers.

use super::kernel::{MicroKernel, Tile, select_tile};
use std::arch::aarch64::*;
use std::hint::black_box;

pub struct Neon;

impl MicroKernel for Neon {
    const ROWS: usize = 8;
    const LANES: usize = 4;
    const VECTORS: usize = 3;
    const DEPTH: usize = 512;
    const CHAINS: usize = 24;

    #[target_feature(enable = "neon")]
    unsafe fn tile(rows: usize, vectors: usize, tile: &Tile) {
        // SAFETY: passed on from the caller.
        unsafe { select_tile!(compute(tile), rows = rows, vectors = vectors, [1 2 3 4 5 6 7 8] x [1 2 3]) }
    }

    #[target_feature(enable = "neon")]
    unsafe fn multiply_add(iterations: u64) -> f32 {
        let factor = vdupq_n_f32(black_box(0.999));
        let addend = vdupq_n_f32(black_box(0.001));
        let mut chains = [black_box(addend); Self::CHAINS];
        for _ in 0..iterations {
            for chain in &mut chains {
                // The instruction adds in place: chains that are factors would be copied first.
                *chain = vfmaq_f32(*chain, factor, addend);
            }
        }
        chains.into_iter().map(|chain| vaddvq_f32(chain)).sum()
    }
}

/// # Safety
/// As [`MicroKernel::tile`].
#[target_feature(enable = "neon")]
unsafe fn compute<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
    const LANES: usize = Neon::LANES;
    let (mut a, mut b) = (tile.a, tile.b);
    let mut sum = [[vdupq_n_f32(0.0); VECTORS]; ROWS];
    // SAFETY: all elements of A, B and C that are named lie in the tile.
    unsafe {
        for _ in 0..tile.depth {
            let mut b_row = [vdupq_n_f32(0.0); VECTORS];
            for (vector, b_vector) in b_row.iter_mut().enumerate() {
                *b_vector = vld1q_f32(b.add(vector * LANES));
            }
            for (row, sum) in sum.iter_mut().enumerate() {
                let a = *a.add(row * tile.a_row_stride);
                for (sum, &b) in sum.iter_mut().zip(&b_row) {
                    *sum = vfmaq_n_f32(*sum, b, a);
                }
            }
            // Past the last element at the end of the loop, where nothing is read.
            a = a.wrapping_add(tile.a_column_stride);
            b = b.wrapping_add(tile.b_row_stride);
        }
        for (row, sum) in sum.into_iter().enumerate() {
            for (vector, sum) in sum.into_iter().enumerate() {
                let c = tile.c.add(row * tile.c_row_stride + vector * LANES);
                let sum = if tile.accumulate { vaddq_f32(vld1q_f32(c), sum) } else { sum };
                vst1q_f32(c, sum);
            }
        }
    }
}
