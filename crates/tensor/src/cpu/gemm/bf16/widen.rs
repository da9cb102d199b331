//! The kernel for machines that cannot multiply bfloat16: pairs are widened to f32, which is exact, and multiplied there.
//!
//! A widened pair of B serves all rows of a tile, and one of A all of its columns, so that the conversions cost about a
//! third of the multiplications on 512-bit vectors. Written over [`Lanes`], it runs on every instruction set.

use super::PANEL;
use super::kernel::{PairKernel, Tile};
use crate::cpu::isa::Available;
use crate::cpu::simd::{self, Kernel, Lanes};

pub struct Widen;

impl PairKernel for Widen {
    const ROWS: usize = 8;
    const BLOCK_ROWS: usize = 192;
    const BLOCK_COLUMNS: usize = 384;

    unsafe fn tile(isa: Available, rows: usize, tile: &Tile) {
        simd::run(isa, WidenedTile { rows, tile });
    }
}

struct WidenedTile<'a> {
    rows: usize,
    tile: &'a Tile,
}

impl Kernel<f32> for WidenedTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(self) {
        // Two vectors of columns: 2 x rows accumulators, two widened pairs of B and one of A must fit the registers.
        for column in (0..PANEL).step_by(2 * L::LANES) {
            let mut row = 0;
            while row < self.rows {
                row += match self.rows - row {
                    8.. if L::REGISTERS >= 32 => self.stripe::<L, 8>(row, column),
                    4.. => self.stripe::<L, 4>(row, column),
                    2.. => self.stripe::<L, 2>(row, column),
                    _ => self.stripe::<L, 1>(row, column),
                };
            }
        }
    }
}

impl WidenedTile<'_> {
    /// `HEIGHT` rows from `row` on and two vectors of columns from `column` on; returns `HEIGHT`.
    #[inline(always)]
    fn stripe<L: Lanes<Real = f32>, const HEIGHT: usize>(&self, row: usize, column: usize) -> usize {
        let tile = self.tile;
        let mut sums = [[L::splat(0.0); 2]; HEIGHT];
        for pair in 0..tile.steps * (super::STEP / 2) {
            // SAFETY: the caller of `tile` promises that A holds these rows and B the panel for all steps.
            let (b, a) = unsafe {
                let b = tile.b.add(pair * PANEL + column);
                let a = tile.a.add(row * tile.a_row_stride + 2 * pair).cast::<u32>();
                ([L::load_bf16_pairs(b), L::load_bf16_pairs(b.add(L::LANES))], a)
            };
            for (index, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as above. Rows of A may start at any element.
                let a = unsafe { a.byte_add(2 * index * tile.a_row_stride).read_unaligned() };
                let (first, second) =
                    (L::splat(f32::from_bits(a << 16)), L::splat(f32::from_bits(a & 0xffff_0000)));
                for (sum, b) in sums.iter_mut().zip(&b) {
                    *sum = second.mul_add(b.1, first.mul_add(b.0, *sum));
                }
            }
        }
        for (index, sums) in sums.into_iter().enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                // SAFETY: the caller of `tile` promises that C holds these rows of a whole panel.
                unsafe {
                    let c = tile.c.add((row + index) * tile.c_row_stride + column + vector * L::LANES);
                    let sum = if tile.accumulate { L::load_real(c) + sum } else { sum };
                    sum.store_real(c);
                }
            }
        }
        HEIGHT
    }
}
