//! The micro-kernel for AVX-512: 8 rows x 3 vectors of 16 columns.
//!
//! 24 accumulators, 3 vectors of B and a broadcast element of A fill 28 of the 32 registers. A step of the inner loop
//! is 24 multiply-adds for 11 loads, so neither a core with one 512-bit multiply-add per cycle and one load (Zen 4)
//! nor one with two of each (Sapphire Rapids) waits for its loads. 8 and 48 divide all of BERT's sizes.

use super::kernel::{MicroKernel, Tile, select_tile};
use crate::cpu::simd;
use std::arch::x86_64::*;
use std::hint::black_box;

pub struct Avx512;

impl MicroKernel for Avx512 {
    const ROWS: usize = 8;
    const LANES: usize = 16;
    const VECTORS: usize = 3;
    const DEPTH: usize = 512;
    const CHAINS: usize = 16;

    #[target_feature(enable = "avx512f")]
    unsafe fn tile(rows: usize, vectors: usize, tile: &Tile) {
        // SAFETY: passed on from the caller.
        unsafe { select_tile!(compute(tile), rows = rows, vectors = vectors, [1 2 3 4 5 6 7 8] x [1 2 3]) }
    }

    #[target_feature(enable = "avx512f,avx2")]
    unsafe fn transpose_8x8(source: *const f32, stride: usize, out: *mut f32, out_stride: usize) {
        // SAFETY: passed on from the caller; a machine with this instruction set has AVX2.
        unsafe { simd::avx2::transpose_8x8(source, stride, out, out_stride) }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn multiply_add(iterations: u64) -> f32 {
        let factor = _mm512_set1_ps(black_box(0.999));
        let addend = _mm512_set1_ps(black_box(0.001));
        let mut chains = [black_box(addend); Self::CHAINS];
        for _ in 0..iterations {
            for chain in &mut chains {
                *chain = _mm512_fmadd_ps(*chain, factor, addend);
            }
        }
        chains.into_iter().map(|chain| _mm512_reduce_add_ps(chain)).sum()
    }
}

/// # Safety
/// As [`MicroKernel::tile`].
#[target_feature(enable = "avx512f")]
unsafe fn compute<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
    const LANES: usize = Avx512::LANES;
    let (mut a, mut b) = (tile.a, tile.b);
    let mut sum = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    // SAFETY: all elements of A, B and C that are named lie in the tile.
    unsafe {
        for row in 0..ROWS {
            _mm_prefetch::<_MM_HINT_T0>(tile.c.add(row * tile.c_row_stride).cast());
            _mm_prefetch::<_MM_HINT_T0>(tile.c.add(row * tile.c_row_stride + VECTORS * LANES - 1).cast());
        }
        for _ in 0..tile.depth {
            let mut b_row = [_mm512_setzero_ps(); VECTORS];
            for (vector, b_vector) in b_row.iter_mut().enumerate() {
                *b_vector = _mm512_loadu_ps(b.add(vector * LANES));
            }
            for (row, sum) in sum.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(row * tile.a_row_stride));
                for (sum, &b) in sum.iter_mut().zip(&b_row) {
                    *sum = _mm512_fmadd_ps(a, b, *sum);
                }
            }
            // Past the last element at the end of the loop, where nothing is read.
            a = a.wrapping_add(tile.a_column_stride);
            b = b.wrapping_add(tile.b_row_stride);
        }
        for (row, sum) in sum.into_iter().enumerate() {
            for (vector, sum) in sum.into_iter().enumerate() {
                let c = tile.c.add(row * tile.c_row_stride + vector * LANES);
                let sum = if tile.accumulate { _mm512_add_ps(_mm512_loadu_ps(c), sum) } else { sum };
                _mm512_storeu_ps(c, sum);
            }
        }
    }
}
