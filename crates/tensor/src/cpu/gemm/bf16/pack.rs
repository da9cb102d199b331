//! Copies of the operands as pairs of neighbours along the inner dimension.

use super::super::matrix::MatrixRef;
use super::{PANEL, STEP};
use crate::cpu::isa::{Available, Isa};
use crate::cpu::memory::Block;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use half::bf16;
use std::marker::PhantomData;
use std::ops::Range;

/// Panels of B that a task packs: it reads that many cache lines of a row.
const TASK_PANELS: usize = 8;
/// Rows of A that a task copies.
pub(crate) const TASK_ROWS: usize = 64;
/// Pairs that are gathered before they are transposed.
const PAIRS: usize = STEP / 2;
/// Pairs of rows of B that are packed into one panel after the other.
const BLOCK_PAIRS: usize = 32;
/// Bytes of a line of the caches.
const CACHE_LINE: usize = 64;
/// The side of a block that is transposed in registers.
const SIDE: usize = 8;

/// The right operand B `[K, N]` of a bfloat16 product, packed: panels of 32 columns, in each of which row k holds
/// B[2k, j] in the low half and B[2k + 1, j] in the high half of word j; padded with zeros to whole panels and steps.
pub struct PackedPairs {
    rows: usize,
    columns: usize,
    data: Block,
}

impl PackedPairs {
    /// Packs `b`, which may have any strides, on all threads.
    pub fn new(b: MatrixRef<'_, bf16>) -> Self {
        let isa = Isa::current();
        let (rows, columns) = (b.rows(), b.columns());
        let panel_len = pairs_len(rows, 1);
        let mut data = Block::new(columns.div_ceil(PANEL) * panel_len * size_of::<u32>());
        if panel_len > 0 {
            let words = data.elements_mut::<u32>();
            parallel::for_each(words.chunks_mut(TASK_PANELS * panel_len), |task, out| {
                let first = task * TASK_PANELS * PANEL;
                let b = b.part(0..rows, first..columns.min(first + TASK_PANELS * PANEL));
                simd::run(isa, PackPanels { b, out, panel_len });
            });
        }
        PackedPairs { rows, columns, data }
    }

    /// K.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// N.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of memory that it holds.
    pub fn bytes(&self) -> usize {
        self.data.bytes().len()
    }

    /// K, padded to whole steps.
    pub(super) fn padded_rows(&self) -> usize {
        self.rows.next_multiple_of(STEP)
    }

    /// Columns `index * PANEL..` of B.
    pub(super) fn panel(&self, index: usize) -> &[u32] {
        let len = self.padded_rows() / 2 * PANEL;
        &self.data.elements::<u32>()[index * len..][..len]
    }
}

impl std::fmt::Debug for PackedPairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedPairs({} x {})", self.rows, self.columns)
    }
}

/// Words of the packed form of a matrix with so many rows and columns.
pub(crate) const fn pairs_len(rows: usize, columns: usize) -> usize {
    columns.div_ceil(PANEL) * (rows.next_multiple_of(STEP) / 2 * PANEL)
}

/// Packs `b` into the [`pairs_len`] words that `out` starts with, on the calling thread.
pub(crate) fn pack_pairs(isa: Available, b: MatrixRef<'_, bf16>, out: &mut [u32]) {
    let out = &mut out[..pairs_len(b.rows(), b.columns())];
    if !out.is_empty() {
        simd::run(isa, PackPanels { b, out, panel_len: pairs_len(b.rows(), 1) });
    }
}

/// Copies at most [`TASK_ROWS`] rows of `a` into rows of `row_stride` elements, a multiple of [`STEP`], padded with zeros;
/// on the calling thread.
pub(crate) fn copy_rows(isa: Available, a: MatrixRef<'_, bf16>, out: &mut [bf16], row_stride: usize) {
    assert!(a.rows() <= TASK_ROWS && row_stride.is_multiple_of(STEP) && a.columns() <= row_stride);
    simd::run(isa, CopyRows { a, out: &mut out[..a.rows() * row_stride], row_stride });
}

fn pair(first: bf16, second: bf16) -> u32 {
    u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16
}

/// `out[j]` = the pair of `first[j]` and `second[j]`.
#[inline(always)]
fn interleave(first: &[bf16], second: &[bf16], out: &mut [u32]) {
    for ((out, &first), &second) in out.iter_mut().zip(first).zip(second) {
        *out = pair(first, second);
    }
}

/// Packs some whole panels.
struct PackPanels<'a> {
    b: MatrixRef<'a, bf16>,
    out: &'a mut [u32],
    panel_len: usize,
}

impl Kernel<f32> for PackPanels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(self) {
        let PackPanels { b, out, panel_len } = self;
        let (rows, columns) = (b.rows(), b.columns());
        let whole_pairs = rows / 2;
        for panel in out.chunks_mut(panel_len) {
            // The padding.
            panel[whole_pairs * PANEL..].fill(0);
        }
        if !columns.is_multiple_of(PANEL) {
            out[columns / PANEL * panel_len..].fill(0);
        }
        let by_rows = b.column_stride() == 1;
        // Columns as words: what W^T is for a weight W whose rows start at whole words.
        let by_columns = b.row_stride() == 1
            && b.column_stride().is_multiple_of(2)
            && b.pointer.cast::<u32>().is_aligned();
        let one_by_one = if by_columns { whole_pairs - whole_pairs % SIDE } else { 0 };
        // Some pairs of one panel, then of the next: the rows stay in the cache, and a panel is written as one stream.
        for first in (one_by_one..whole_pairs).step_by(BLOCK_PAIRS) {
            for (panel, out) in out.chunks_mut(panel_len).enumerate() {
                let columns = panel * PANEL..columns.min((panel + 1) * PANEL);
                for index in first..whole_pairs.min(first + BLOCK_PAIRS) {
                    let (columns, out) = (columns.clone(), &mut out[index * PANEL..][..columns.len()]);
                    if by_rows {
                        interleave(row(b, 2 * index, columns.clone()), row(b, 2 * index + 1, columns), out);
                    } else {
                        for (out, column) in out.iter_mut().zip(columns) {
                            *out = pair(at(b, 2 * index, column), at(b, 2 * index + 1, column));
                        }
                    }
                }
            }
        }
        if by_columns {
            let whole_columns = columns - columns % SIDE;
            for column in (0..whole_columns).step_by(SIDE) {
                let panel = column / PANEL * panel_len + column % PANEL;
                for index in (0..whole_pairs - whole_pairs % SIDE).step_by(SIDE) {
                    // SAFETY: a block of 8 columns with 8 pairs each, inside of B and of the panel; the source is aligned
                    // and its columns are whole words apart, as checked above.
                    unsafe {
                        let source = b.at(2 * index, column).cast::<f32>();
                        let out = out.as_mut_ptr().add(panel + index * PANEL).cast::<f32>();
                        L::transpose_8x8(source, b.column_stride() / 2, out, PANEL);
                    }
                }
            }
            for column in whole_columns..columns {
                for index in 0..whole_pairs - whole_pairs % SIDE {
                    out[column / PANEL * panel_len + index * PANEL + column % PANEL] =
                        pair(at(b, 2 * index, column), at(b, 2 * index + 1, column));
                }
            }
        }
        if rows % 2 == 1 {
            for column in 0..columns {
                out[column / PANEL * panel_len + whole_pairs * PANEL + column % PANEL] =
                    pair(at(b, rows - 1, column), bf16::ZERO);
            }
        }
    }
}

#[inline(always)]
fn at(matrix: MatrixRef<'_, bf16>, row: usize, column: usize) -> bf16 {
    assert!(row < matrix.rows() && column < matrix.columns());
    // SAFETY: the element exists.
    unsafe { *matrix.at(row, column) }
}

/// Elements of a row of a matrix with contiguous rows.
#[inline(always)]
fn row(matrix: MatrixRef<'_, bf16>, row: usize, columns: Range<usize>) -> &[bf16] {
    assert!(matrix.column_stride() == 1 && row < matrix.rows() && columns.end <= matrix.columns());
    // SAFETY: these elements exist, and are contiguous.
    unsafe { std::slice::from_raw_parts(matrix.at(row, columns.start), columns.len()) }
}

/// The left operand as the kernels read it: contiguous rows of whole steps.
#[derive(Clone, Copy)]
pub(super) struct LeftRows<'a> {
    pointer: *const bf16,
    pub(super) rows: usize,
    /// Elements from one row to the next.
    pub(super) row_stride: usize,
    lifetime: PhantomData<&'a [bf16]>,
}

// SAFETY: a shared borrow of a slice.
unsafe impl Send for LeftRows<'_> {}
// SAFETY: as above.
unsafe impl Sync for LeftRows<'_> {}

impl<'a> LeftRows<'a> {
    /// A matrix whose rows need no copy.
    pub(super) fn in_place(a: MatrixRef<'a, bf16>) -> Option<Self> {
        (a.column_stride() == 1 && a.columns().is_multiple_of(STEP)).then_some(LeftRows {
            pointer: a.pointer,
            rows: a.rows(),
            row_stride: a.row_stride(),
            lifetime: PhantomData,
        })
    }

    /// Reads a stretch of a row, line by line, so that the caches have it.
    pub(super) fn fetch(&self, row: usize, columns: Range<usize>) {
        for column in columns.step_by(CACHE_LINE / size_of::<bf16>()) {
            // SAFETY: an element of A, or of the zeros that pad its rows. Volatile: nobody uses the value.
            unsafe { self.row(row, column).read_volatile() };
        }
    }

    /// Where element (`row`, `column`) lies.
    pub(super) fn row(&self, row: usize, column: usize) -> *const bf16 {
        self.pointer.wrapping_add(row * self.row_stride + column)
    }
}

/// A copy of the left operand A `[M, K]`: contiguous rows, padded with zeros to whole steps.
pub(super) struct PackedRows {
    rows: usize,
    row_stride: usize,
    data: Block,
}

impl PackedRows {
    /// Copies `a`, which may have any strides, on all threads.
    pub(super) fn new(isa: Available, a: MatrixRef<'_, bf16>) -> Self {
        let (rows, columns) = (a.rows(), a.columns());
        // An odd number of cache lines, so that the rows of a tile do not share the few places of one set.
        let row_stride = columns.next_multiple_of(STEP);
        let row_stride = if (row_stride / STEP).is_multiple_of(2) { row_stride + STEP } else { row_stride };
        let mut data = Block::new(rows * row_stride * size_of::<bf16>());
        if row_stride > 0 {
            parallel::for_each(
                data.elements_mut::<bf16>().chunks_mut(TASK_ROWS * row_stride),
                |task, out| {
                    let first = task * TASK_ROWS;
                    let a = a.part(first..rows.min(first + TASK_ROWS), 0..columns);
                    simd::run(isa, CopyRows { a, out, row_stride });
                },
            );
        }
        PackedRows { rows, row_stride, data }
    }

    pub(super) fn as_left(&self) -> LeftRows<'_> {
        LeftRows {
            pointer: self.data.elements::<bf16>().as_ptr(),
            rows: self.rows,
            row_stride: self.row_stride,
            lifetime: PhantomData,
        }
    }
}

/// Copies some rows.
struct CopyRows<'a> {
    a: MatrixRef<'a, bf16>,
    out: &'a mut [bf16],
    row_stride: usize,
}

impl Kernel<f32> for CopyRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(self) {
        let CopyRows { a, out, row_stride } = self;
        let (rows, columns) = (a.rows(), a.columns());
        if a.row_stride() != 1 || rows < SIDE {
            for (index, out) in out.chunks_exact_mut(row_stride).enumerate() {
                let (out, padding) = out.split_at_mut(columns);
                padding.fill(bf16::ZERO);
                if a.column_stride() == 1 {
                    out.copy_from_slice(row(a, index, 0..columns));
                } else {
                    out.iter_mut().enumerate().for_each(|(column, out)| *out = at(a, index, column));
                }
            }
            return;
        }
        // The transpose of a matrix with contiguous rows: pairs of its rows, then blocks of words.
        let source = a.transposed();
        let mut pairs = [[0u32; TASK_ROWS]; PAIRS];
        for first in (0..row_stride).step_by(STEP) {
            for (index, pairs) in pairs.iter_mut().enumerate() {
                let column = first + 2 * index;
                match columns.saturating_sub(column) {
                    0 => pairs.fill(0),
                    1 => {
                        for (pair_, &x) in pairs.iter_mut().zip(row(source, column, 0..rows)) {
                            *pair_ = pair(x, bf16::ZERO);
                        }
                    }
                    _ => interleave(
                        row(source, column, 0..rows),
                        row(source, column + 1, 0..rows),
                        &mut pairs[..rows],
                    ),
                }
            }
            let whole = rows - rows % SIDE;
            for row in (0..whole).step_by(SIDE) {
                for index in (0..PAIRS).step_by(SIDE) {
                    // SAFETY: 8 words of each of 8 rows of pairs, and 16 elements of each of 8 rows of `out`, which start
                    // at multiples of STEP elements in a block that is aligned to a cache line.
                    unsafe {
                        let pairs = pairs.as_ptr().add(index).cast::<f32>().add(row);
                        let out = out.as_mut_ptr().add(row * row_stride + first + 2 * index);
                        L::transpose_8x8(pairs, TASK_ROWS, out.cast::<f32>(), row_stride / 2);
                    }
                }
            }
            for row in whole..rows {
                for (index, pairs) in pairs.iter().enumerate() {
                    let word = pairs[row];
                    let out = &mut out[row * row_stride + first + 2 * index..][..2];
                    (out[0], out[1]) = (bf16::from_bits(word as u16), bf16::from_bits((word >> 16) as u16));
                }
            }
        }
    }
}
