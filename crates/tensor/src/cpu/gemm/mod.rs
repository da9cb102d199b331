//! The f32 matrix product C = A B, C += A B: packed, cache-blocked, register-tiled.
//!
//! The loop nest is that of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (ACM TOMS 34(3),
//! 2008), with the five loops around the micro-kernel labelled as in BLIS (Van Zee and van de Geijn, ACM TOMS 41(3),
//! 2015), and two changes. C is cut in two dimensions, and a task computes its block of C over the whole inner
//! dimension: so the block stays in the second-level cache, the epilogue finds it there, and the order of summation
//! does not depend on the threads. And packing is left out where it does not pay: A is read in place if its rows are
//! contiguous, and B if few rows of A would use the copy.
//!
//! `kernel.rs` says what a micro-kernel is; there is a file for each instruction set.

mod bf16;
#[cfg(test)]
mod every_path;
mod kernel;
mod matrix;
mod naive;
mod pack;
mod peak;
mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

pub(crate) use bf16::{PANEL, PairProduct, STEP, copy_rows, pack_pairs, pairs_len};
pub use bf16::{PackedPairs, Sink, gemm_bf16, peak_gflops_bf16};
pub use matrix::{MatrixMut, MatrixRef};
pub use naive::naive;
pub use pack::PackedB;
pub use peak::peak_gflops;

use super::isa::{Available, Isa};
use super::parallel;
use kernel::{MicroKernel, Tile};
use pack::{LeftPanels, RightPanels, Scratch, depth_blocks, pack_b, pack_panels, padded};
use std::ops::Range;

/// Evaluates `$body` with the type `$K` being the micro-kernel of `$isa`, an `Available`: so the machine has what `$K` needs.
macro_rules! with_kernel {
    ($isa:expr, $K:ident => $body:expr) => {
        match $isa.vectors().isa() {
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::isa::Isa::Avx512 => {
                type $K = $crate::cpu::gemm::avx512::Avx512;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::isa::Isa::Avx2 => {
                type $K = $crate::cpu::gemm::avx2::Avx2;
                $body
            }
            #[cfg(target_arch = "aarch64")]
            $crate::cpu::isa::Isa::Neon => {
                type $K = $crate::cpu::gemm::neon::Neon;
                $body
            }
            _ => {
                type $K = $crate::cpu::gemm::scalar::Scalar;
                $body
            }
        }
    };
}
use with_kernel;

/// Rows of C in a task (rounded up to whole tiles): a block of A of this height stays in the second-level cache.
const BLOCK_ROWS: usize = 128;
/// Columns of C in a task when C has several blocks of rows.
const BLOCK_COLUMNS: usize = 768;
/// Columns of C in a task when all rows are one block: narrow, so that there is work for all threads.
const STRIP_COLUMNS: usize = 96;
/// Most rows and columns of B that are packed at a time for one product.
const PART_DEPTH: usize = 2048;
/// See [`PART_DEPTH`].
const PART_COLUMNS: usize = 2 * BLOCK_COLUMNS;
/// B is read in place if it spans at most this many elements: 16 pages, within reach of any translation cache.
const NEAR_ELEMENTS: usize = 1 << 14;
/// Products of fewer multiply-adds stay on the calling thread: waking another one takes microseconds too.
const PARALLEL_WORK: usize = 1 << 19;

/// The right operand: a matrix, or its packed form.
#[derive(Clone, Copy, Debug)]
pub enum Rhs<'a> {
    /// Packed as needed, at every product.
    Matrix(MatrixRef<'a>),
    /// Packed before.
    Packed(&'a PackedB),
}

impl<'a> From<MatrixRef<'a>> for Rhs<'a> {
    fn from(matrix: MatrixRef<'a>) -> Self {
        Rhs::Matrix(matrix)
    }
}

impl<'a> From<&'a PackedB> for Rhs<'a> {
    fn from(packed: &'a PackedB) -> Self {
        Rhs::Packed(packed)
    }
}

impl Rhs<'_> {
    fn shape(&self) -> (usize, usize) {
        match self {
            Rhs::Matrix(b) => (b.rows(), b.columns()),
            Rhs::Packed(b) => (b.rows(), b.columns()),
        }
    }
}

/// What is done to C while it is still in the cache: called as `epilogue(row, first_column, segment)` when the elements
/// `segment` of `row` have their final sums, exactly once for every element, from any thread.
pub type Epilogue<'a> = &'a (dyn Fn(usize, usize, &mut [f32]) + Sync);

/// The epilogue that adds `bias[j]` to column j.
pub fn add_bias(bias: &[f32]) -> impl Fn(usize, usize, &mut [f32]) + Sync {
    move |_, first, c| {
        for (c, bias) in c.iter_mut().zip(&bias[first..]) {
            *c += bias;
        }
    }
}

/// C `[M, N]` = A `[M, K]` B `[K, N]`, or C += A B if `accumulate`, then `epilogue`, on all threads.
///
/// A and B may have any strides (`x W^T` with W `[N, K]` passes `w.transposed()`). Sums are in f32; their order depends
/// on the shape and the instruction set, not on the number of threads. A packed B runs on its own instruction set, other
/// products on [`Isa::current`].
///
/// # Panics
/// If the shapes do not fit: callers check their operands first.
#[expect(clippy::needless_pass_by_value, reason = "an output is an exclusive borrow: it is used up")]
pub fn gemm<'a>(
    a: MatrixRef<'_>,
    b: impl Into<Rhs<'a>>,
    c: MatrixMut<'_>,
    accumulate: bool,
    epilogue: Option<Epilogue<'_>>,
) {
    let b = b.into();
    let isa = match b {
        Rhs::Packed(b) => b.isa(),
        Rhs::Matrix(_) => Isa::current(),
    };
    let parallel = c.rows() * c.columns() * a.columns() >= PARALLEL_WORK;
    // SAFETY: `isa` is available, and K is its kernel.
    with_kernel!(isa, K => unsafe { Product::<K>::run(a, b, &c, accumulate, epilogue, parallel) });
}

/// [`gemm`] on the calling thread alone, for callers that run many small products in parallel. `isa` is resolved once
/// by the caller; a packed B must have been packed for it.
///
/// # Panics
/// If the shapes or the instruction sets do not fit.
#[expect(clippy::needless_pass_by_value, reason = "an output is an exclusive borrow: it is used up")]
pub fn gemm_sequential<'a>(
    isa: Available,
    a: MatrixRef<'_>,
    b: impl Into<Rhs<'a>>,
    c: MatrixMut<'_>,
    accumulate: bool,
) {
    let b = b.into();
    if let Rhs::Packed(b) = b {
        assert_eq!(b.isa(), isa.vectors(), "internal: gemm: B is packed for another instruction set");
    }
    // SAFETY: as in `gemm`.
    with_kernel!(isa, K => unsafe { Product::<K>::run(a, b, &c, accumulate, None, false) });
}

fn check_shapes(a: (usize, usize), b: (usize, usize), c: (usize, usize)) {
    assert!(a.1 == b.0 && c == (a.0, b.1), "internal: gemm: cannot multiply {a:?} by {b:?} into {c:?}");
}

/// Where a task finds B.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// In the matrix; the task packs what it needs.
    Matrix(MatrixRef<'a>),
    /// In its packed form.
    Packed(Packed<'a>),
}

/// The packed form (see [`pack_b`]) of the columns from `first` on, `width` with the padding.
#[derive(Clone, Copy)]
struct Packed<'a> {
    data: &'a [f32],
    first: usize,
    width: usize,
}

impl Packed<'_> {
    /// The panel that starts at `column` in a block of rows; past the end for columns past the last one.
    fn panel(&self, depth: Range<usize>, column: usize) -> *const f32 {
        self.data.as_ptr().wrapping_add(depth.start * self.width + (column - self.first) * depth.len())
    }
}

/// One matrix product on the micro-kernel `K`.
struct Product<'a, K> {
    a: MatrixRef<'a>,
    c: &'a MatrixMut<'a>,
    accumulate: bool,
    epilogue: Option<Epilogue<'a>>,
    kernel: std::marker::PhantomData<fn() -> K>,
}

impl<'a, K: MicroKernel> Product<'a, K> {
    /// Checks the shapes, packs B if several blocks of rows will use it, and runs the tasks.
    ///
    /// # Safety
    /// The machine has the instruction set of `K`.
    unsafe fn run(
        a: MatrixRef<'a>,
        b: Rhs<'a>,
        c: &'a MatrixMut<'a>,
        accumulate: bool,
        epilogue: Option<Epilogue<'a>>,
        parallel: bool,
    ) {
        check_shapes((a.rows(), a.columns()), b.shape(), (c.rows(), c.columns()));
        let (rows, columns, k) = (c.rows(), c.columns(), a.columns());
        let product = Product::<K> { a, c, accumulate, epilogue, kernel: std::marker::PhantomData };
        match b {
            Rhs::Packed(b) => {
                let b = Source::Packed(Packed { data: b.data(), first: 0, width: padded::<K>(columns) });
                product.columns(b, 0..columns, parallel);
            }
            Rhs::Matrix(b) if rows <= BLOCK_ROWS => {
                product.columns(Source::Matrix(b), 0..columns, parallel);
            }
            Rhs::Matrix(b) => {
                // LOOP 5: parts of B that fit a packing buffer, and the third-level cache with it.
                let part_depth = k.div_ceil(k.div_ceil(PART_DEPTH).max(1)).max(1);
                for start in (0..k.max(1)).step_by(part_depth) {
                    let depth = start..k.min(start + part_depth);
                    let product = Product {
                        a: a.part(0..rows, depth.clone()),
                        accumulate: accumulate || start > 0,
                        epilogue: epilogue.filter(|_| depth.end == k),
                        ..product
                    };
                    for first in (0..columns).step_by(PART_COLUMNS) {
                        let range = first..columns.min(first + PART_COLUMNS);
                        let width = padded::<K>(range.len());
                        let mut packed = Scratch::new(depth.len() * width);
                        let b = b.part(depth.clone(), range.clone());
                        pack_b::<K>(b, packed.floats_mut());
                        let b = Source::Packed(Packed { data: packed.floats(), first, width });
                        product.columns(b, range, parallel);
                    }
                }
            }
        }
    }

    /// Computes these columns of C, block by block.
    fn columns(&self, b: Source<'_>, columns: Range<usize>, parallel: bool) {
        let rows = self.c.rows();
        if rows == 0 || columns.is_empty() {
            return;
        }
        let block_rows = BLOCK_ROWS.next_multiple_of(K::ROWS);
        let block_columns = if rows <= block_rows { STRIP_COLUMNS } else { BLOCK_COLUMNS };
        let blocks_across = columns.len().div_ceil(block_columns);
        let blocks = 0..blocks_across * rows.div_ceil(block_rows);
        let task = |index, _| {
            let first_row = index / blocks_across * block_rows;
            let first_column = columns.start + index % blocks_across * block_columns;
            let row_range = first_row..rows.min(first_row + block_rows);
            self.block(b, row_range, first_column..columns.end.min(first_column + block_columns));
        };
        if parallel {
            parallel::for_each(blocks, task);
        } else {
            blocks.for_each(|index| task(index, index));
        }
    }

    /// Computes one block of C.
    fn block(&self, b: Source<'_>, rows: Range<usize>, columns: Range<usize>) {
        let k = self.a.columns();
        let (depth_block, depth_count) = depth_blocks::<K>(k);
        // A copy of B does not pay for few rows of A, nor if all rows of B are near each other anyway.
        let b_in_place = |b: MatrixRef<'_>| {
            b.column_stride() == 1 && (rows.len() <= 2 * K::ROWS || k * b.row_stride() <= NEAR_ELEMENTS)
        };
        let a_in_place = self.a.column_stride() == 1;
        let mut a_packed =
            Scratch::new(if a_in_place { 0 } else { depth_block * rows.len().next_multiple_of(K::ROWS) });
        let mut b_packed = Scratch::new(match b {
            Source::Matrix(b) if b_in_place(b) => depth_block * K::COLUMNS,
            Source::Matrix(_) => depth_block * padded::<K>(columns.len()),
            Source::Packed(_) => 0,
        });
        // LOOP 4: blocks of the inner dimension, in order.
        for depth_index in 0..depth_count {
            let depth = depth_index * depth_block..k.min((depth_index + 1) * depth_block);
            let a = if a_in_place {
                let offset = rows.start * self.a.row_stride() + depth.start;
                let row_stride = self.a.row_stride();
                let pointer = self.a.pointer.wrapping_add(offset);
                Left { pointer, row_stride, column_stride: 1, tile_stride: K::ROWS * row_stride }
            } else {
                let out = a_packed.floats_mut();
                pack_panels::<LeftPanels<K>>(self.a.transposed(), depth.clone(), rows.clone(), out);
                let pointer = out.as_ptr();
                Left { pointer, row_stride: 1, column_stride: K::ROWS, tile_stride: K::ROWS * depth.len() }
            };
            if let Source::Matrix(b) = b
                && !b_in_place(b)
            {
                pack_panels::<RightPanels<K>>(b, depth.clone(), columns.clone(), b_packed.floats_mut());
            }
            // LOOP 2: panels of B, each staying in the cache for all rows of the block.
            for first_column in columns.clone().step_by(K::COLUMNS) {
                let panel = first_column..columns.end.min(first_column + K::COLUMNS);
                let width = padded::<K>(panel.len());
                let right = match b {
                    Source::Packed(b) => {
                        Right { pointer: b.panel(depth.clone(), panel.start), row_stride: width }
                    }
                    Source::Matrix(b) if b_in_place(b) && width == panel.len() => {
                        let pointer = b.pointer.wrapping_add(depth.start * b.row_stride() + panel.start);
                        Right { pointer, row_stride: b.row_stride() }
                    }
                    Source::Matrix(b) if b_in_place(b) => {
                        let out = b_packed.floats_mut();
                        pack_panels::<RightPanels<K>>(b, depth.clone(), panel.clone(), out);
                        Right { pointer: out.as_ptr(), row_stride: width }
                    }
                    Source::Matrix(_) => {
                        let pointer =
                            b_packed.floats()[(panel.start - columns.start) * depth.len()..].as_ptr();
                        Right { pointer, row_stride: width }
                    }
                };
                let accumulate = self.accumulate || depth_index > 0;
                // SAFETY: the machine has the kernel's instruction set (`run`'s contract); A holds these rows and B the
                // padded panel for all of the depth; the block of C belongs to this task alone.
                unsafe { self.panel(rows.clone(), panel, depth.len(), a, right, accumulate) };
            }
        }
        if let Some(epilogue) = self.epilogue {
            for row in rows {
                // SAFETY: inside of the block, which belongs to this task alone.
                epilogue(row, columns.start, unsafe { self.c.segment(row, columns.clone()) });
            }
        }
    }

    /// Adds the product of a block of A and a panel of B to C, or replaces C by it.
    ///
    /// # Safety
    /// As [`MicroKernel::tile`], for all of these rows and columns.
    unsafe fn panel(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        depth: usize,
        a: Left,
        b: Right,
        accumulate: bool,
    ) {
        let c_row_stride = self.c.row_stride();
        // LOOP 1: tiles.
        for (index, first_row) in rows.clone().step_by(K::ROWS).enumerate() {
            let tile = Tile {
                depth,
                a: a.pointer.wrapping_add(index * a.tile_stride),
                a_row_stride: a.row_stride,
                a_column_stride: a.column_stride,
                b: b.pointer,
                b_row_stride: b.row_stride,
                c: self.c.pointer.wrapping_add(first_row * c_row_stride + columns.start),
                c_row_stride,
                accumulate,
            };
            // SAFETY: a part of what the caller promises.
            unsafe { run_tile::<K>(K::ROWS.min(rows.end - first_row), columns.len(), &tile) };
        }
    }
}

/// A block of A: where it starts, and the distances between its rows, columns, and tiles' first rows.
#[derive(Clone, Copy)]
struct Left {
    pointer: *const f32,
    row_stride: usize,
    column_stride: usize,
    tile_stride: usize,
}

/// A panel of B: where it starts, and the distance between its rows.
#[derive(Clone, Copy)]
struct Right {
    pointer: *const f32,
    row_stride: usize,
}

/// Computes one tile; if its last vector is ragged, beside C, and copies the columns that exist.
///
/// # Safety
/// As [`MicroKernel::tile`], but C has only `columns` columns.
unsafe fn run_tile<K: MicroKernel>(rows: usize, columns: usize, tile: &Tile) {
    let vectors = columns.div_ceil(K::LANES);
    if columns == vectors * K::LANES {
        // SAFETY: passed on from the caller.
        return unsafe { K::tile(rows, vectors, tile) };
    }
    /// Room for the largest tile of any instruction set.
    const LARGEST: usize = 8 * 48;
    const { assert!(K::ROWS * K::COLUMNS <= LARGEST) };
    let mut beside = [0.0f32; LARGEST];
    let stride = vectors * K::LANES;
    let tile_beside = Tile { c: beside.as_mut_ptr(), c_row_stride: stride, accumulate: false, ..*tile };
    // SAFETY: passed on from the caller; C is the local array, which holds the padded tile.
    unsafe { K::tile(rows, vectors, &tile_beside) };
    for (row, sums) in beside.chunks_exact(stride).take(rows).enumerate() {
        // SAFETY: `columns` elements of a row of the caller's C.
        let c = unsafe { std::slice::from_raw_parts_mut(tile.c.add(row * tile.c_row_stride), columns) };
        for (c, &sum) in c.iter_mut().zip(sums) {
            *c = if tile.accumulate { *c + sum } else { sum };
        }
    }
}
