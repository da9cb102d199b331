//! The specification of the matrix product: three loops, in the precision of its operands.

use super::matrix::{MatrixMut, MatrixRef};
use crate::cpu::parallel;
use std::ops::{Add, Mul};

/// Rows of C in a task.
const ROWS: usize = 8;

/// C = A B, or C += A B if `accumulate`, for `f64` and for tests: every inner product is summed in order.
///
/// # Panics
/// If the shapes do not fit.
#[expect(clippy::needless_pass_by_value, reason = "an output is an exclusive borrow: it is used up")]
pub fn naive<T>(a: MatrixRef<'_, T>, b: MatrixRef<'_, T>, c: MatrixMut<'_, T>, accumulate: bool)
where
    T: Copy + Default + Add<Output = T> + Mul<Output = T> + Send + Sync,
{
    super::check_shapes((a.rows(), a.columns()), (b.rows(), b.columns()), (c.rows(), c.columns()));
    let (c, columns) = (&c, c.columns());
    parallel::for_each_chunk(c.rows(), ROWS, |rows| {
        for i in rows {
            // SAFETY: row `i` is in range and belongs to this task alone.
            let c_row = unsafe { c.segment(i, 0..columns) };
            if !accumulate {
                c_row.fill(T::default());
            }
            for p in 0..a.columns() {
                // SAFETY: `i`, `p` and `j` are in range of the checked shapes.
                let a = unsafe { *a.at(i, p) };
                for (j, c) in c_row.iter_mut().enumerate() {
                    // SAFETY: as above.
                    *c = *c + a * unsafe { *b.at(p, j) };
                }
            }
        }
    });
}
