//! Packing: copies of the operands in the order in which the micro-kernel reads them.

use super::kernel::MicroKernel;
use super::matrix::MatrixRef;
use super::with_kernel;
use crate::cpu::isa::Isa;
use crate::cpu::memory::Block;
use crate::cpu::parallel;
use std::ops::Range;

/// How the rows 0..`k` of B are cut into blocks: the length of each (but the last) and how many there are.
///
/// All blocks are about equally long; there is one, of length 0, if `k` is 0.
pub(super) fn depth_blocks<K: MicroKernel>(k: usize) -> (usize, usize) {
    let count = k.div_ceil(K::DEPTH).max(1);
    (k.div_ceil(count), count)
}

/// Floats from the pool, aligned to a cache line, holding anything.
pub(super) struct Scratch(Block);

impl Scratch {
    pub(super) fn new(len: usize) -> Self {
        Scratch(Block::new(len * size_of::<f32>()))
    }

    pub(super) fn floats(&self) -> &[f32] {
        let bytes = self.0.bytes();
        // SAFETY: blocks are aligned to 64 bytes and initialised, and any four bytes are an `f32`.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<f32>()) }
    }

    pub(super) fn floats_mut(&mut self) -> &mut [f32] {
        let bytes = self.0.bytes_mut();
        // SAFETY: as `floats`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<f32>()) }
    }
}

/// The right operand of a matrix product in its packed form: packed once, used for many products.
///
/// B `[K, N]` is cut into blocks of rows, and each block into panels of the micro-kernel's width, stored row by row;
/// the last panel is padded with zeros to whole vectors. It is as large as B, and belongs to one instruction set.
pub struct PackedB {
    isa: Isa,
    rows: usize,
    columns: usize,
    data: Scratch,
}

impl PackedB {
    /// Packs `b` `[K, N]` for [`Isa::current`], on all threads.
    pub fn new(b: MatrixRef<'_>) -> Self {
        PackedB::for_isa(Isa::current(), b)
    }

    /// Packs `b` `[K, N]` for `isa`.
    pub(super) fn for_isa(isa: Isa, b: MatrixRef<'_>) -> Self {
        with_kernel!(isa, K => {
            let mut data = Scratch::new(b.rows() * padded::<K>(b.columns()));
            pack_b::<K>(b, 0..b.columns(), data.floats_mut());
            PackedB { isa, rows: b.rows(), columns: b.columns(), data }
        })
    }

    /// The instruction set whose kernels read it.
    pub fn isa(&self) -> Isa {
        self.isa
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
        size_of_val(self.data.floats())
    }

    pub(super) fn data(&self) -> &[f32] {
        self.data.floats()
    }
}

impl std::fmt::Debug for PackedB {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedB({} x {} for {})", self.rows, self.columns, self.isa)
    }
}

/// `columns` rounded up to whole vectors.
pub(super) fn padded<K: MicroKernel>(columns: usize) -> usize {
    columns.next_multiple_of(K::LANES)
}

/// Packs all rows and the given columns of B into `out` of `rows * padded(columns.len())` elements. The panel that
/// starts at column j of the range, in the block of `depth` rows that starts at row p, is at
/// `p * padded(columns.len()) + j * depth`.
pub(super) fn pack_b<K: MicroKernel>(b: MatrixRef<'_>, columns: Range<usize>, out: &mut [f32]) {
    let width = padded::<K>(columns.len());
    if width == 0 || b.rows() == 0 {
        return;
    }
    let (block, _) = depth_blocks::<K>(b.rows());
    // A task takes the panels of about this many columns, so that small matrices stay on one thread.
    let columns_per_task = 65_536_usize.div_ceil(block).next_multiple_of(K::COLUMNS);
    let tasks = out.chunks_mut(block * width).flat_map(|block_out| {
        let depth = block_out.len() / width;
        block_out.chunks_mut(columns_per_task * depth)
    });
    let tasks_per_block = width.div_ceil(columns_per_task);
    let tasks: Vec<_> = tasks.collect();
    parallel::for_each(tasks, |index, out| {
        let start = index / tasks_per_block * block;
        let rows = start..b.rows().min(start + block);
        let first = columns.start + index % tasks_per_block * columns_per_task;
        let panels = out.chunks_mut(rows.len() * K::COLUMNS);
        for (panel, out) in panels.enumerate() {
            let start = first + panel * K::COLUMNS;
            pack_panel(b, rows.clone(), start..columns.end.min(start + K::COLUMNS), out);
        }
    });
}

/// Copies a part of `source` into `out`, row after row, each row padded with zeros to `out.len() / rows.len()`.
///
/// The left operand is packed as the transpose of A, one panel for each tile's rows.
pub(super) fn pack_panel(source: MatrixRef<'_>, rows: Range<usize>, columns: Range<usize>, out: &mut [f32]) {
    if rows.is_empty() || columns.is_empty() {
        return;
    }
    assert!(
        rows.end <= source.rows() && columns.end <= source.columns(),
        "internal: packing beyond the matrix"
    );
    let width = out.len() / rows.len();
    let count = columns.len();
    let (row_stride, column_stride) = (source.row_stride(), source.column_stride());
    // SAFETY: row and column are in range, as asserted above; reads below stay in these rows and columns.
    let first = unsafe { source.at(rows.start, columns.start) };
    if column_stride == 1 {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            // SAFETY: `count` elements of a row in range, contiguous as the column stride is 1.
            let source = unsafe { std::slice::from_raw_parts(first.add(row * row_stride), count) };
            out[..count].copy_from_slice(source);
            out[count..].fill(0.0);
        }
        return;
    }
    // A transposition: a cache line of each source column at a time, so that lines of `out` are still hot when the
    // next column writes to them.
    const STRIP: usize = 16;
    for (strip, out) in out.chunks_mut(STRIP * width).enumerate() {
        for column in 0..count {
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                let row = strip * STRIP + row;
                // SAFETY: row and column are in range.
                out[column] = unsafe { *first.add(row * row_stride + column * column_stride) };
            }
        }
        for out in out.chunks_exact_mut(width) {
            out[count..].fill(0.0);
        }
    }
}
