//! The matrix products inside of attention: operands of one head, in the first two caches, on one thread.
//!
//! The blocked matrix product of [`cpu::gemm`](crate::cpu::gemm) packs and threads for large operands. Here operands are
//! packed once per head and read many times, so what is left is the register tile. It is written over [`Lanes`], which
//! gives every instruction set, and the f64 reference, from one definition.

use crate::cpu::simd::{Kernel, Lanes, Real};

/// Rows of a register tile.
pub(super) const ROWS: usize = 6;

/// C = A B, or C += A B, where C has whole vectors of columns. Strides are in elements.
pub(super) struct Product<'a, R> {
    /// Rows of A and C.
    pub rows: usize,
    /// Columns of A, rows of B.
    pub depth: usize,
    /// Columns of B and C: a multiple of the lanes.
    pub columns: usize,
    /// A, read element by element, so that its transpose is as good.
    pub a: &'a [R],
    /// Distance between rows of A.
    pub a_row_stride: usize,
    /// Distance between columns of A.
    pub a_column_stride: usize,
    /// B, with contiguous rows.
    pub b: &'a [R],
    /// Distance between rows of B.
    pub b_row_stride: usize,
    /// C, with contiguous rows.
    pub c: &'a mut [R],
    /// Distance between rows of C.
    pub c_row_stride: usize,
    /// Whether to add to C.
    pub accumulate: bool,
}

impl<R: Real> Kernel<R> for Product<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes<Real = R>>(mut self) {
        if self.rows == 0 || self.columns == 0 {
            return;
        }
        let (last_row, last_depth) = (self.rows - 1, self.depth.saturating_sub(1));
        assert!(self.columns.is_multiple_of(L::LANES), "internal: C has no whole vectors");
        assert!(last_row * self.c_row_stride + self.columns <= self.c.len(), "internal: C is too small");
        if self.depth > 0 {
            let last = last_row * self.a_row_stride + last_depth * self.a_column_stride;
            assert!(last < self.a.len(), "internal: A is too small");
            assert!(
                last_depth * self.b_row_stride + self.columns <= self.b.len(),
                "internal: B is too small"
            );
        }
        // Accumulators, a row of B and an element of A: 24 + 4 + 1 of 32 registers, or 12 + 2 + 1 of 16.
        let widest = if L::REGISTERS >= 32 { 4 } else { 2 };
        for column in (0..self.columns).step_by(widest * L::LANES) {
            match ((self.columns - column) / L::LANES).min(widest) {
                4 => self.panel::<L, 4>(column),
                3 => self.panel::<L, 3>(column),
                2 => self.panel::<L, 2>(column),
                _ => self.panel::<L, 1>(column),
            }
        }
    }
}

impl<R: Real> Product<'_, R> {
    /// `VECTORS` vectors of columns from `column` on. The panel of B stays in the first-level cache for all rows.
    #[inline(always)]
    fn panel<L: Lanes<Real = R>, const VECTORS: usize>(&mut self, column: usize) {
        let whole = self.rows - self.rows % ROWS;
        for row in (0..whole).step_by(ROWS) {
            self.tile::<L, ROWS, VECTORS>(row, column);
        }
        match self.rows % ROWS {
            1 => self.tile::<L, 1, VECTORS>(whole, column),
            2 => self.tile::<L, 2, VECTORS>(whole, column),
            3 => self.tile::<L, 3, VECTORS>(whole, column),
            4 => self.tile::<L, 4, VECTORS>(whole, column),
            5 => self.tile::<L, 5, VECTORS>(whole, column),
            _ => {}
        }
    }

    /// `HEIGHT` rows from `row` on and `VECTORS` vectors of columns from `column` on, in registers.
    #[inline(always)]
    fn tile<L: Lanes<Real = R>, const HEIGHT: usize, const VECTORS: usize>(
        &mut self,
        row: usize,
        column: usize,
    ) {
        let zero = L::splat(R::default());
        let mut sums = [[zero; VECTORS]; HEIGHT];
        let mut a = self.a.as_ptr().wrapping_add(row * self.a_row_stride);
        let mut b = self.b.as_ptr().wrapping_add(column);
        for _ in 0..self.depth {
            let mut b_row = [zero; VECTORS];
            for (vector, b_vector) in b_row.iter_mut().enumerate() {
                // SAFETY: `run` checked that rows of B hold all columns.
                *b_vector = unsafe { L::load_real(b.add(vector * L::LANES)) };
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `run` checked that A holds all rows for the whole depth.
                let a = L::splat(unsafe { *a.add(i * self.a_row_stride) });
                for (sum, &b) in sums.iter_mut().zip(&b_row) {
                    *sum = a.mul_add(b, *sum);
                }
            }
            // Past the last element at the end of the loop, where nothing is read.
            a = a.wrapping_add(self.a_column_stride);
            b = b.wrapping_add(self.b_row_stride);
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                let offset = (row + i) * self.c_row_stride + column + vector * L::LANES;
                // SAFETY: `run` checked that C holds all rows and columns.
                unsafe {
                    let c = self.c.as_mut_ptr().add(offset);
                    let sum = if self.accumulate { L::load_real(c) + sum } else { sum };
                    sum.store_real(c);
                }
            }
        }
    }
}
