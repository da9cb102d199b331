//! The kernel for AVX-512-BF16: 12 rows x 2 vectors of 16 columns.
//!
//! `vdpbf16ps` multiplies the pairs of two vectors and adds both products to a lane. 24 accumulators, 2 vectors of B and a
//! broadcast pair of A fill 27 of the 32 registers; a step is 24 dot products for 14 loads.

use super::PANEL;
use super::kernel::{PairKernel, Tile};
use crate::cpu::gemm::kernel::select_tile;
use crate::cpu::isa::Available;
use std::arch::x86_64::*;

pub struct Avx512Bf16;

/// Lanes of a vector of f32, or of pairs.
const LANES: usize = 16;
const VECTORS: usize = PANEL / LANES;

impl PairKernel for Avx512Bf16 {
    const ROWS: usize = 12;
    const BLOCK_ROWS: usize = 192;
    const BLOCK_COLUMNS: usize = 384;

    unsafe fn tile(_: Available, rows: usize, tile: &Tile) {
        // SAFETY: passed on from the caller.
        unsafe { select_tile!(compute(tile), rows = rows, [1 2 3 4 5 6 7 8 9 10 11 12]) }
    }
}

/// # Safety
/// As [`PairKernel::tile`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn compute<const ROWS: usize>(tile: &Tile) {
    let (mut a, mut b) = (tile.a, tile.b);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    // SAFETY: all elements of A, B and C that are named lie in the tile.
    unsafe {
        for _ in 0..tile.steps * (super::STEP / 2) {
            let mut pairs = [_mm512_setzero_si512(); VECTORS];
            for (vector, pairs) in pairs.iter_mut().enumerate() {
                *pairs = _mm512_loadu_si512(b.add(vector * LANES).cast());
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = a.add(row * tile.a_row_stride).cast::<i32>().read_unaligned();
                let a = _mm512_set1_epi32(a);
                for (sum, &b) in sums.iter_mut().zip(&pairs) {
                    *sum = _mm512_dpbf16_ps(*sum, as_bf16(a), as_bf16(b));
                }
            }
            // Past the last element at the end of the loop, where nothing is read.
            a = a.wrapping_add(2);
            b = b.wrapping_add(PANEL);
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                let c = tile.c.add(row * tile.c_row_stride + vector * LANES);
                let sum = if tile.accumulate { _mm512_add_ps(_mm512_loadu_ps(c), sum) } else { sum };
                _mm512_storeu_ps(c, sum);
            }
        }
    }
}

/// The same bits as another type.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn as_bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 plain bits.
    unsafe { std::mem::transmute(bits) }
}
