//! The portable micro-kernel: 4 rows x 2 "vectors" of 4 columns, left to the compiler's vectoriser.

use super::kernel::{MicroKernel, Tile, select_tile};
use std::hint::black_box;

pub struct Scalar;

impl MicroKernel for Scalar {
    const ROWS: usize = 4;
    const LANES: usize = 4;
    const VECTORS: usize = 2;
    const DEPTH: usize = 384;
    const CHAINS: usize = 8;

    unsafe fn tile(rows: usize, vectors: usize, tile: &Tile) {
        // SAFETY: passed on from the caller.
        unsafe { select_tile!(compute(tile), rows = rows, vectors = vectors, [1 2 3 4] x [1 2]) }
    }

    unsafe fn multiply_add(iterations: u64) -> f32 {
        let (factor, addend) = (black_box(0.999), black_box(0.001));
        let mut chains = [[black_box(0.001); Self::LANES]; Self::CHAINS];
        for _ in 0..iterations {
            for chain in chains.as_flattened_mut() {
                *chain = *chain * factor + addend;
            }
        }
        chains.as_flattened().iter().sum()
    }
}

/// # Safety
/// As [`MicroKernel::tile`].
unsafe fn compute<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
    const LANES: usize = Scalar::LANES;
    let (mut a, mut b) = (tile.a, tile.b);
    let mut sum = [[[0.0; LANES]; VECTORS]; ROWS];
    // SAFETY: all elements of A, B and C that are named lie in the tile; arrays of f32 need no more alignment than f32.
    unsafe {
        for _ in 0..tile.depth {
            let b_row = *b.cast::<[[f32; LANES]; VECTORS]>();
            for (row, sum) in sum.iter_mut().enumerate() {
                let a = *a.add(row * tile.a_row_stride);
                for (sum, b) in sum.as_flattened_mut().iter_mut().zip(b_row.as_flattened()) {
                    *sum += a * b;
                }
            }
            // Past the last element at the end of the loop, where nothing is read.
            a = a.wrapping_add(tile.a_column_stride);
            b = b.wrapping_add(tile.b_row_stride);
        }
        for (row, sum) in sum.iter().enumerate() {
            let c = tile.c.add(row * tile.c_row_stride);
            for (column, &sum) in sum.as_flattened().iter().enumerate() {
                let c = c.add(column);
                *c = if tile.accumulate { *c + sum } else { sum };
            }
        }
    }
}
