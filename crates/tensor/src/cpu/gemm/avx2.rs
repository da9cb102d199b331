//! The micro-kernel for AVX2 and FMA: 6 rows x 2 vectors of 8 columns.
//!
//! 12 accumulators, 2 vectors of B and a broadcast element of A fill 15 of the 16 registers; a step of the inner loop
//! is 12 multiply-adds for 8 loads.

use super::kernel::{MicroKernel, Tile, select_tile};
use crate::cpu::simd;
use std::arch::x86_64::*;
use std::hint::black_box;

pub struct Avx2;

impl MicroKernel for Avx2 {
    const ROWS: usize = 6;
    const LANES: usize = 8;
    const VECTORS: usize = 2;
    const DEPTH: usize = 384;
    const CHAINS: usize = 12;

    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile(rows: usize, vectors: usize, tile: &Tile) {
        // SAFETY: passed on from the caller.
        unsafe { select_tile!(compute(tile), rows = rows, vectors = vectors, [1 2 3 4 5 6] x [1 2]) }
    }

    #[target_feature(enable = "avx2")]
    unsafe fn transpose_8x8(source: *const f32, stride: usize, out: *mut f32, out_stride: usize) {
        // SAFETY: passed on from the caller.
        unsafe { simd::avx2::transpose_8x8(source, stride, out, out_stride) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn multiply_add(iterations: u64) -> f32 {
        let factor = _mm256_set1_ps(black_box(0.999));
        let addend = _mm256_set1_ps(black_box(0.001));
        let mut chains = [black_box(addend); Self::CHAINS];
        for _ in 0..iterations {
            for chain in &mut chains {
                *chain = _mm256_fmadd_ps(*chain, factor, addend);
            }
        }
        let sum = chains.into_iter().fold(_mm256_setzero_ps(), |sum, chain| _mm256_add_ps(sum, chain));
        _mm256_cvtss_f32(sum)
    }
}

/// # Safety
/// As [`MicroKernel::tile`].
#[target_feature(enable = "avx2,fma")]
unsafe fn compute<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
    const LANES: usize = Avx2::LANES;
    let (mut a, mut b) = (tile.a, tile.b);
    let mut sum = [[_mm256_setzero_ps(); VECTORS]; ROWS];
    // SAFETY: all elements of A, B and C that are named lie in the tile.
    unsafe {
        for row in 0..ROWS {
            _mm_prefetch::<_MM_HINT_T0>(tile.c.add(row * tile.c_row_stride).cast());
        }
        for _ in 0..tile.depth {
            let mut b_row = [_mm256_setzero_ps(); VECTORS];
            for (vector, b_vector) in b_row.iter_mut().enumerate() {
                *b_vector = _mm256_loadu_ps(b.add(vector * LANES));
            }
            for (row, sum) in sum.iter_mut().enumerate() {
                let a = _mm256_set1_ps(*a.add(row * tile.a_row_stride));
                for (sum, &b) in sum.iter_mut().zip(&b_row) {
                    *sum = _mm256_fmadd_ps(a, b, *sum);
                }
            }
            // Past the last element at the end of the loop, where nothing is read.
            a = a.wrapping_add(tile.a_column_stride);
            b = b.wrapping_add(tile.b_row_stride);
        }
        for (row, sum) in sum.into_iter().enumerate() {
            for (vector, sum) in sum.into_iter().enumerate() {
                let c = tile.c.add(row * tile.c_row_stride + vector * LANES);
                let sum = if tile.accumulate { _mm256_add_ps(_mm256_loadu_ps(c), sum) } else { sum };
                _mm256_storeu_ps(c, sum);
            }
        }
    }
}
