//! Packing: copies of the operands in the order in which the micro-kernel reads them.

use super::kernel::MicroKernel;
use super::matrix::MatrixRef;
use super::with_kernel;
use crate::cpu::isa::{Available, Isa};
use crate::cpu::memory::Block;
use crate::cpu::parallel;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// How the rows 0..`k` of B are cut into blocks: the length of each (but the last) and how many there are.
///
/// All blocks are about equally long; there is one, of length 0, if `k` is 0.
pub(super) fn depth_blocks<K: MicroKernel>(k: usize) -> (usize, usize) {
    let count = k.div_ceil(K::DEPTH).max(1);
    (k.div_ceil(count), count)
}

/// Floats for the duration of one product, aligned to a cache line, holding anything.
///
/// Small ones are kept by the thread, so that a small product takes no lock; large ones come from the pool.
pub(super) struct Scratch {
    block: Option<Block>,
    len: usize,
}

/// Floats in a block that a thread keeps: a block of A, or a strip of B.
const KEPT_FLOATS: usize = 1 << 16;

thread_local! {
    static KEPT: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

impl Scratch {
    pub(super) fn new(len: usize) -> Self {
        if len == 0 || len > KEPT_FLOATS {
            return Scratch::from_pool(len);
        }
        let kept = KEPT.try_with(|kept| kept.borrow_mut().pop()).ok().flatten();
        let block = kept.unwrap_or_else(|| Block::new(KEPT_FLOATS * size_of::<f32>()));
        Scratch { block: Some(block), len }
    }

    fn from_pool(len: usize) -> Self {
        Scratch { block: (len > 0).then(|| Block::new(len * size_of::<f32>())), len }
    }

    pub(super) fn floats(&self) -> &[f32] {
        self.block.as_ref().map_or(&[], |block| {
            // SAFETY: blocks are aligned to 64 bytes, initialised, and at least this long; any four bytes are an `f32`.
            unsafe { std::slice::from_raw_parts(block.bytes().as_ptr().cast(), self.len) }
        })
    }

    pub(super) fn floats_mut(&mut self) -> &mut [f32] {
        self.block.as_mut().map_or(&mut [], |block| {
            // SAFETY: as `floats`, and `&mut self` makes the access exclusive.
            unsafe { std::slice::from_raw_parts_mut(block.bytes_mut().as_mut_ptr().cast(), self.len) }
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let block = self.block.take_if(|block| block.bytes().len() == KEPT_FLOATS * size_of::<f32>());
        if let Some(block) = block {
            // A thread that is ending keeps nothing: the block then goes back to the pool.
            let _ = KEPT.try_with(|kept| kept.borrow_mut().push(block));
        }
    }
}

/// The right operand of a matrix product in its packed form: packed once, used for many products.
///
/// B `[K, N]` is cut into blocks of rows, and each block into panels of the micro-kernel's width, stored row by row;
/// the last panel is padded with zeros to whole vectors. It is as large as B, and belongs to one instruction set.
pub struct PackedB {
    isa: Available,
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
    pub(super) fn for_isa(isa: Available, b: MatrixRef<'_>) -> Self {
        with_kernel!(isa, K => {
            let mut data = Scratch::from_pool(b.rows() * padded::<K>(b.columns()));
            pack_b::<K>(b, data.floats_mut());
            PackedB { isa: isa.vectors(), rows: b.rows(), columns: b.columns(), data }
        })
    }

    /// The instruction set whose kernels read it, one of vectors.
    pub fn isa(&self) -> Available {
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

/// Packs B `[K, N]` into `out` of `K * padded(N)` elements. The panel that starts at column j, in the block of `depth`
/// rows that starts at row p, is at `p * padded(N) + j * depth`.
pub(super) fn pack_b<K: MicroKernel>(b: MatrixRef<'_>, out: &mut [f32]) {
    let width = padded::<K>(b.columns());
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
        let first = index % tasks_per_block * columns_per_task;
        let columns = first..b.columns().min(first + columns_per_task);
        pack_panels::<RightPanels<K>>(b, rows, columns, out);
    });
}

/// How the columns of an operand are cut into panels.
pub(super) trait Panels {
    /// Columns of a panel.
    const WIDTH: usize;
    /// The last panel is filled up with zeros to a multiple of this.
    const PADDING: usize;
    /// Who reads them.
    type Kernel: MicroKernel;
}

/// The left operand, which is packed as the transpose of A: a panel for each tile's rows.
pub(super) struct LeftPanels<K>(PhantomData<K>);

impl<K: MicroKernel> Panels for LeftPanels<K> {
    const WIDTH: usize = K::ROWS;
    const PADDING: usize = K::ROWS;
    type Kernel = K;
}

/// The right operand: a panel for each tile's columns.
pub(super) struct RightPanels<K>(PhantomData<K>);

impl<K: MicroKernel> Panels for RightPanels<K> {
    const WIDTH: usize = K::COLUMNS;
    const PADDING: usize = K::LANES;
    type Kernel = K;
}

/// Copies a part of `source` into `out`: panel after panel, each stored row after row.
pub(super) fn pack_panels<P: Panels>(
    source: MatrixRef<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    out: &mut [f32],
) {
    if rows.is_empty() || columns.is_empty() {
        return;
    }
    assert!(
        rows.end <= source.rows() && columns.end <= source.columns(),
        "internal: packing beyond the matrix"
    );
    let panel_len = rows.len() * P::WIDTH;
    let ragged = columns.len() % P::WIDTH;
    if !ragged.is_multiple_of(P::PADDING) {
        let start = columns.len() / P::WIDTH * panel_len;
        out[start..][..rows.len() * ragged.next_multiple_of(P::PADDING)].fill(0.0);
    }
    // SAFETY: in range, as asserted; reads below stay in these rows and columns.
    let first = unsafe { source.at(rows.start, columns.start) };
    let (row_stride, column_stride) = (source.row_stride(), source.column_stride());
    if column_stride == 1 {
        for row in 0..rows.len() {
            // SAFETY: the columns of a row in range, contiguous as the column stride is 1.
            let source = unsafe { std::slice::from_raw_parts(first.add(row * row_stride), columns.len()) };
            // The rows of a wide matrix are pages apart, which the hardware does not foresee.
            prefetch(source, 8 * row_stride);
            let (whole, ragged) = (source.chunks_exact(P::WIDTH), source.chunks_exact(P::WIDTH).remainder());
            let mut outs = out.chunks_mut(panel_len);
            for (source, out) in whole.zip(&mut outs) {
                out[row * P::WIDTH..][..P::WIDTH].copy_from_slice(source);
            }
            if let Some(out) = outs.next() {
                let width = ragged.len().next_multiple_of(P::PADDING);
                out[row * width..][..ragged.len()].copy_from_slice(ragged);
            }
        }
        return;
    }
    for (panel, out) in out.chunks_mut(panel_len).enumerate().take(columns.len().div_ceil(P::WIDTH)) {
        let count = P::WIDTH.min(columns.len() - panel * P::WIDTH);
        let width = count.next_multiple_of(P::PADDING);
        let first = first.wrapping_add(panel * P::WIDTH * column_stride);
        // SAFETY: rows and columns of the panel, in range.
        unsafe {
            transpose::<P::Kernel>(
                first,
                (row_stride, column_stride),
                count,
                &mut out[..rows.len() * width],
                width,
            );
        };
    }
}

/// Copies `out.len() / width` rows of `count` elements, with strides (row, column), into rows of `width` elements.
///
/// # Safety
/// These elements can be read.
unsafe fn transpose<K: MicroKernel>(
    source: *const f32,
    (row_stride, column_stride): (usize, usize),
    count: usize,
    out: &mut [f32],
    width: usize,
) {
    const SIDE: usize = 8;
    /// Blocks side by side, so that whole cache lines are read and written.
    const LINE: usize = 2 * SIDE;
    let rows = out.len() / width;
    let whole = if row_stride == 1 { (rows - rows % LINE, count - count % LINE) } else { (0, 0) };
    for column in (0..whole.1).step_by(LINE) {
        for row in (0..whole.0).step_by(LINE) {
            for (row, column) in
                [(row, column), (row, column + SIDE), (row + SIDE, column), (row + SIDE, column + SIDE)]
            {
                let out = out[row * width + column..][..(SIDE - 1) * width + SIDE].as_mut_ptr();
                // SAFETY: a block of 8 x 8 elements, in the source by the caller's promise, in `out` by its bounds.
                unsafe {
                    K::transpose_8x8(source.add(row + column * column_stride), column_stride, out, width);
                };
            }
        }
    }
    for (row, out) in out.chunks_exact_mut(width).enumerate() {
        let done = if row < whole.0 { whole.1 } else { 0 };
        for (column, out) in out[done..count].iter_mut().enumerate() {
            // SAFETY: as promised by the caller.
            *out = unsafe { *source.add(row * row_stride + (done + column) * column_stride) };
        }
    }
}

/// Asks for the cache lines `offset` elements after `data`'s, which need not exist.
#[inline(always)]
fn prefetch(data: &[f32], offset: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..data.len()).step_by(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults never, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.as_ptr().wrapping_add(line + offset).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, offset);
}
