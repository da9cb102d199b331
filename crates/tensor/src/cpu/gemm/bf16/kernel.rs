//! What a kernel of the bfloat16 product is: one tile of C, one implementation per instruction set.

use crate::cpu::isa::Available;
use half::bf16;

/// The operands of one tile of C: some rows and [`PANEL`](super::PANEL) columns.
pub struct Tile {
    /// Steps of [`STEP`](super::STEP) elements of the inner dimension.
    pub steps: usize,
    /// A: pair k of row i is at elements `i * a_row_stride + 2 k`.
    pub a: *const bf16,
    /// Distance between rows of A, in elements.
    pub a_row_stride: usize,
    /// B: pair k of column j is at `k * PANEL + j`.
    pub b: *const u32,
    /// C: row i is at `i * c_row_stride`.
    pub c: *mut f32,
    /// Distance between rows of C, in elements.
    pub c_row_stride: usize,
    /// Whether the product is added to C or replaces it.
    pub accumulate: bool,
    /// Whether the next tiles read other rows of A and the same of B: A then should not push B out of the first-level cache.
    pub passes_a: bool,
}

/// The innermost loop. The blocking around it follows from these numbers alone.
pub trait PairKernel {
    /// Most rows of a tile.
    const ROWS: usize;
    /// Rows of C in a task: a multiple of [`ROWS`](Self::ROWS).
    const BLOCK_ROWS: usize;
    /// Columns of C in a task: a multiple of [`PANEL`](super::PANEL).
    const BLOCK_COLUMNS: usize;
    /// Whether a block's rows of A are brought into the second-level cache beforehand, one after the other: the processor foresees
    /// that order, and not the one in which tiles read them. For a kernel that is faster than memory.
    const FETCHES_A: bool = false;

    /// Prepares the calling thread for tiles.
    ///
    /// # Safety
    /// The machine has the kernel's instruction set.
    unsafe fn begin() {}

    /// Computes a tile of `rows` rows (1 to `ROWS`) between [`begin`](Self::begin) and [`end`](Self::end).
    ///
    /// # Safety
    /// The machine has the kernel's instruction set; all elements that `tile` names are valid, those of C
    /// exclusively.
    unsafe fn tile(isa: Available, rows: usize, tile: &Tile);

    /// Undoes [`begin`](Self::begin).
    ///
    /// # Safety
    /// As [`begin`](Self::begin).
    unsafe fn end() {}
}
