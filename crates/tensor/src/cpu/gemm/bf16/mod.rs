//! The bfloat16 matrix product C = A B, with sums in f32.
//!
//! Processors multiply bfloat16 in pairs of neighbours along the inner dimension, so both operands are read as pairs: A
//! row by row, where the pairs of a row are contiguous as they are, and B in panels of [`PANEL`] columns, in each of
//! which a row holds a pair of every column ("VNNI layout"). One packed form serves all instruction sets: AMX loads tiles
//! from it, AVX-512-BF16 vectors, and the others widen the pairs to f32.
//!
//! The loop nest is that of the f32 product. Sums are made in an f32 block beside C, which stays in the second-level
//! cache, and finished rows of it are handed to a [`Sink`]: so a bias, an activation, the rounding to bfloat16 or the
//! sum with an f32 gradient costs no pass over memory of its own.

#[cfg(test)]
mod every_path;
mod kernel;
mod pack;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tiles;
mod widen;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512bf16;

pub use pack::PackedPairs;
pub(crate) use pack::{copy_rows, pack_pairs, pairs_len};

use super::{MatrixRef, Scratch};
use crate::cpu::isa::{Available, Isa};
use crate::cpu::{parallel, simd};
use half::bf16;
use kernel::{PairKernel, Tile};
use pack::{LeftRows, PackedRows};
use std::ops::Range;

/// Columns of a panel of B, and of a tile of C.
pub(crate) const PANEL: usize = 32;
/// The inner dimension is padded with zeros to whole steps of an AMX tile.
pub(crate) const STEP: usize = 32;
/// Longest stretch of the inner dimension between two visits of C: a panel of B then takes 32 KiB.
const DEPTH: usize = 512;
/// Products of fewer multiply-adds stay on the calling thread.
const PARALLEL_WORK: usize = 1 << 20;
/// Columns of C in a task when all rows are one block: narrow, so that there is work for all threads.
const STRIP_COLUMNS: usize = 3 * PANEL;

/// Takes finished sums: called as `sink(row, first_column, sums)`, exactly once for every element of C, from any thread. It may
/// write with [`simd::stream`].
pub type Sink<'a> = &'a (dyn Fn(usize, usize, &mut [f32]) + Sync);

/// Evaluates `$body` with the type `$K` being the kernel of `$isa`, an `Available`: so the machine has what `$K` needs.
macro_rules! with_kernel {
    ($isa:expr, $K:ident => $body:expr) => {
        match $isa.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => {
                type $K = amx::Amx;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => {
                type $K = avx512bf16::Avx512Bf16;
                $body
            }
            _ => {
                type $K = widen::Widen;
                $body
            }
        }
    };
}

/// Hands C `[M, N]` = A `[M, K]` B `[K, N]` to `sink`, on all threads of [`Isa::current`].
///
/// A may have any strides; rows that are contiguous are read in place if K is a multiple of 32, other forms of A are
/// copied. The order of the sums depends on the shape and the instruction set, not on the number of threads.
///
/// AVX-512-BF16 and AMX take subnormal numbers, |x| < 2^-126, for zeros: in A, in B, and in sums that they would round to one
/// (Intel SDM, `VDPBF16PS` and `TDPBF16PS`). Beside the roundings of f32, an element of C is therefore off by at most
/// 2^-126 times the sum over k of (|a| + |b| + 2): each product loses at most 2^-126 of its other factor, and each of the two
/// steps that add it at most 2^-126. Other instruction sets keep subnormal numbers.
///
/// # Panics
/// If the shapes do not fit: callers check their operands first.
pub fn gemm_bf16(a: MatrixRef<'_, bf16>, b: &PackedPairs, sink: Sink<'_>) {
    let isa = Isa::current();
    // SAFETY: `isa` is available, and K is its kernel.
    with_kernel!(isa, K => unsafe { multiply::<K>(isa, a, b, sink) });
}

/// [`gemm_bf16`] on the kernel `K` and the vectors of `isa`.
///
/// # Safety
/// The machine has the instruction set of `K`, or (in a test) answers for it.
unsafe fn multiply<K: PairKernel>(isa: Available, a: MatrixRef<'_, bf16>, b: &PackedPairs, sink: Sink<'_>) {
    assert_eq!(a.columns(), b.rows(), "internal: gemm_bf16: the inner dimensions differ");
    let copied;
    let a = match LeftRows::in_place(a) {
        Some(rows) => rows,
        None => {
            copied = PackedRows::new(isa, a);
            copied.as_left()
        }
    };
    let product = Product::<K> { isa, a, b, sink, kernel: std::marker::PhantomData };
    // SAFETY: passed on from the caller.
    unsafe { product.run() }
}

/// One product on the kernel `K`.
struct Product<'a, K> {
    isa: Available,
    a: LeftRows<'a>,
    b: &'a PackedPairs,
    sink: Sink<'a>,
    kernel: std::marker::PhantomData<fn() -> K>,
}

impl<K: PairKernel> Product<'_, K> {
    /// # Safety
    /// As [`multiply`].
    unsafe fn run(&self) {
        let (rows, columns) = (self.a.rows, self.b.columns());
        if rows == 0 || columns == 0 {
            return;
        }
        let one_block = rows <= K::BLOCK_ROWS;
        let block_columns = if one_block { STRIP_COLUMNS } else { K::BLOCK_COLUMNS };
        let blocks_across = columns.div_ceil(block_columns);
        let blocks = 0..blocks_across * rows.div_ceil(K::BLOCK_ROWS);
        let task = |index: usize, _| {
            let first_row = index / blocks_across * K::BLOCK_ROWS;
            let first_column = index % blocks_across * block_columns;
            let rows = first_row..rows.min(first_row + K::BLOCK_ROWS);
            self.block(rows, first_column..columns.min(first_column + block_columns));
        };
        if rows * columns * self.b.rows() >= PARALLEL_WORK {
            parallel::for_each(blocks, task);
        } else {
            blocks.for_each(|index| task(index, index));
        }
    }

    /// Computes one block of C: panels of B stay in the first-level cache for all rows, the block and A's rows in the second.
    fn block(&self, rows: Range<usize>, columns: Range<usize>) {
        let width = columns.len().next_multiple_of(PANEL);
        let mut sums = Scratch::new(rows.len() * width);
        let sums = sums.floats_mut();
        let depth = self.b.padded_rows();
        let step = depth.div_ceil(depth.div_ceil(DEPTH).max(1)).next_multiple_of(STEP).max(STEP);
        if depth == 0 {
            sums.fill(0.0);
        }
        // SAFETY: the machine has the kernel's instruction set (`run`'s contract).
        unsafe { K::begin() };
        for start in (0..depth).step_by(step) {
            let depth = start..depth.min(start + step);
            // The rows of a single block are read by every strip of columns, and stay in the cache by themselves.
            if K::FETCHES_A && self.a.rows > K::BLOCK_ROWS {
                rows.clone().for_each(|row| self.a.fetch(row, depth.clone()));
            }
            for column in (0..width).step_by(PANEL) {
                let b = self.b.panel((columns.start + column) / PANEL)[depth.start / 2 * PANEL..].as_ptr();
                for row in (0..rows.len()).step_by(K::ROWS) {
                    let tile = Tile {
                        steps: depth.len() / STEP,
                        a: self.a.row(rows.start + row, depth.start),
                        a_row_stride: self.a.row_stride,
                        b,
                        c: sums[row * width + column..].as_mut_ptr(),
                        c_row_stride: width,
                        accumulate: start > 0,
                        passes_a: rows.len() > K::ROWS,
                    };
                    // SAFETY: as above; A has these rows, padded to whole steps, B this panel, and the block of sums
                    // these rows of whole panels.
                    unsafe { K::tile(self.isa, K::ROWS.min(rows.len() - row), &tile) };
                }
            }
        }
        // SAFETY: as above.
        unsafe { K::end() };
        for (row, sums) in rows.zip(sums.chunks_exact_mut(width)) {
            (self.sink)(row, columns.start, &mut sums[..columns.len()]);
        }
        // What the sink wrote past the caches is there before the task is over.
        simd::fence();
    }
}

/// A product of one thread on operands that the caller has packed, for callers that run many small ones in parallel.
pub(crate) struct PairProduct<'a> {
    /// A `[M, K]` with contiguous rows, which may be longer than K.
    pub a: MatrixRef<'a, bf16>,
    /// B as [`pack_pairs`] writes it.
    pub b: &'a [u32],
    /// Words from one panel of B to the next.
    pub panel_len: usize,
    /// How much of A and B is multiplied, from their starts: a multiple of [`STEP`], with zeros where K has ended.
    pub depth: usize,
    /// Columns of B and C: a multiple of [`PANEL`].
    pub columns: usize,
    /// C, with contiguous rows.
    pub c: &'a mut [f32],
    /// Distance between rows of C.
    pub c_row_stride: usize,
    /// Whether to add to C.
    pub accumulate: bool,
}

impl PairProduct<'_> {
    /// Computes it.
    ///
    /// # Panics
    /// If an operand is too small.
    pub(crate) fn run(self, isa: Available) {
        let rows = self.a.rows();
        if rows == 0 || self.columns == 0 {
            return;
        }
        assert!(self.depth.is_multiple_of(STEP) && self.columns.is_multiple_of(PANEL) && self.depth > 0);
        assert!(self.a.column_stride() == 1 && self.depth <= self.a.columns(), "internal: A is too small");
        let last_panel = (self.columns / PANEL - 1) * self.panel_len;
        assert!(last_panel + self.depth / 2 * PANEL <= self.b.len(), "internal: B is too small");
        assert!((rows - 1) * self.c_row_stride + self.columns <= self.c.len(), "internal: C is too small");
        with_kernel!(isa, K => {
            // SAFETY: `isa` is available, and K is its kernel; the operands are large enough, as checked above.
            unsafe {
                K::begin();
                for column in (0..self.columns).step_by(PANEL) {
                    for row in (0..rows).step_by(K::ROWS) {
                        let tile = Tile {
                            steps: self.depth / STEP,
                            a: self.a.pointer.add(row * self.a.row_stride()),
                            a_row_stride: self.a.row_stride(),
                            b: self.b.as_ptr().add(column / PANEL * self.panel_len),
                            c: self.c.as_mut_ptr().add(row * self.c_row_stride + column),
                            c_row_stride: self.c_row_stride,
                            accumulate: self.accumulate,
                            passes_a: false,
                        };
                        K::tile(isa, K::ROWS.min(rows - row), &tile);
                    }
                }
                K::end();
            }
        });
    }
}

/// The multiply-add rate of `threads` threads on bfloat16 pairs with [`Isa::current`], in GFLOP/s: products of operands
/// that stay in the first-level cache, the best of some runs. On machines without such instructions it is what widening
/// leaves of the f32 peak.
pub fn peak_gflops_bf16(threads: usize) -> f64 {
    let isa = Isa::current();
    with_kernel!(isa, K => {
        const STEPS: usize = 8;
        const REPEATS: usize = 1000;
        let a = vec![bf16::ONE; K::ROWS * STEPS * STEP];
        let b = vec![0u32; STEPS * STEP / 2 * PANEL];
        let run = || {
            let mut c = vec![0.0; K::ROWS * PANEL];
            let tile = Tile {
                steps: STEPS,
                a: a.as_ptr(),
                a_row_stride: STEPS * STEP,
                b: b.as_ptr(),
                c: c.as_mut_ptr(),
                c_row_stride: PANEL,
                accumulate: false,
                passes_a: false,
            };
            // SAFETY: `isa` is available, and K is its kernel; the operands are as large as the tile says.
            unsafe {
                K::begin();
                (0..REPEATS).for_each(|_| K::tile(isa, K::ROWS, &tile));
                K::end();
            }
            c[0]
        };
        let flops = 2 * K::ROWS * PANEL * STEPS * STEP * REPEATS;
        super::peak::best_rate(threads, flops as f64, &run)
    })
}
