//! What a micro-kernel is: the innermost loop of the matrix product, one implementation per instruction set.

/// The operands of one tile of C. All strides are in elements.
pub struct Tile {
    /// Length of the inner products (0 gives zeros).
    pub depth: usize,
    /// A: element (i, k) is at `i * a_row_stride + k * a_column_stride`.
    pub a: *const f32,
    /// Distance between rows of A.
    pub a_row_stride: usize,
    /// Distance between columns of A.
    pub a_column_stride: usize,
    /// B: row k is at `k * b_row_stride`, whole vectors, unit column stride.
    pub b: *const f32,
    /// Distance between rows of B.
    pub b_row_stride: usize,
    /// C: row i is at `i * c_row_stride`, whole vectors, unit column stride.
    pub c: *mut f32,
    /// Distance between rows of C.
    pub c_row_stride: usize,
    /// Whether the product is added to C or replaces it.
    pub accumulate: bool,
}

/// A register tile of at most [`ROWS`](Self::ROWS) rows and [`VECTORS`](Self::VECTORS) vectors of
/// [`LANES`](Self::LANES) columns.
///
/// The blocking and packing around it follow from these numbers alone. A is read by broadcasting single elements, so it
/// may have any strides; B is read as vectors, so ragged edges are padded with zeros by packing.
pub trait MicroKernel {
    /// Most rows of a tile. A tile with fewer costs proportionally less.
    const ROWS: usize;
    /// Elements in a vector.
    const LANES: usize;
    /// Most vectors in a row of a tile. A tile with fewer costs proportionally less.
    const VECTORS: usize;
    /// Columns of a full tile, which is also the width of a packed panel of B.
    const COLUMNS: usize = Self::LANES * Self::VECTORS;
    /// Most rows of B in a packed block: two panels of B and a block of A share the second-level cache.
    const DEPTH: usize;

    /// Computes a tile of `rows` rows (1 to `ROWS`) and `vectors * LANES` columns (1 to `VECTORS` vectors).
    ///
    /// # Safety
    /// The machine has the kernel's instruction set; all elements that `tile` names are valid, those of C exclusively.
    unsafe fn tile(rows: usize, vectors: usize, tile: &Tile);

    /// Copies the 8 x 8 block whose columns are contiguous and `stride` apart into rows `out_stride` apart.
    ///
    /// # Safety
    /// The machine has the kernel's instruction set; all elements of both blocks are valid, those of `out` exclusively.
    unsafe fn transpose_8x8(source: *const f32, stride: usize, out: *mut f32, out_stride: usize) {
        for row in 0..8 {
            for column in 0..8 {
                // SAFETY: elements of the blocks.
                unsafe { *out.add(row * out_stride + column) = *source.add(column * stride + row) };
            }
        }
    }

    /// Independent multiply-add chains in [`multiply_add`](Self::multiply_add): enough to hide the latency.
    const CHAINS: usize;

    /// Runs `iterations` multiply-adds on each of `CHAINS` registers, touching no memory; returns something that
    /// depends on all of them. It is `2 * LANES * CHAINS * iterations` FLOPs.
    ///
    /// # Safety
    /// The machine has the kernel's instruction set.
    unsafe fn multiply_add(iterations: u64) -> f32;
}

/// Calls `$tile::<ROWS, VECTORS>($argument)` (or `$tile::<ROWS>`) with run-time numbers of rows and vectors.
macro_rules! select_tile {
    ($tile:ident($argument:expr), rows = $rows:expr, [$($r:literal)*]) => {
        match $rows {
            $($r => $tile::<$r>($argument),)*
            _ => unreachable!("internal: no tile has {} rows", $rows),
        }
    };
    ($tile:ident($argument:expr), rows = $rows:expr, vectors = $vectors:expr, [$($r:literal)*] x $v:tt) => {
        select_tile!(@vectors $tile, $argument, $rows, $vectors, [$($r)*], $v)
    };
    (@vectors $tile:ident, $argument:expr, $rows:expr, $vectors:expr, $r:tt, [$($v:literal)*]) => {
        match $vectors {
            $($v => select_tile!(@rows $tile, $argument, $rows, $v, $r),)*
            _ => unreachable!("internal: no tile has {} vectors", $vectors),
        }
    };
    (@rows $tile:ident, $argument:expr, $rows:expr, $v:literal, [$($r:literal)*]) => {
        match $rows {
            $($r => $tile::<$r, $v>($argument),)*
            _ => unreachable!("internal: no tile has {} rows", $rows),
        }
    };
}
pub(super) use select_tile;
