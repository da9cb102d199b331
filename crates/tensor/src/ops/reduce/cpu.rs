//! Sums and maxima on the CPU.

use super::Max;
use crate::cpu::isa::{Available, Isa};
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::{DType, Error, Float, Result, Rows, Tensor, for_float};

/// Elements of a piece of a sum along contiguous elements.
const PIECE: usize = 1 << 13;
/// Rows of a piece of a sum over rows.
const PIECE_ROWS: usize = 64;

/// The sum over the middle of `[outer, length, inner]`, as `dims`.
pub(super) fn sum(x: &Tensor, [outer, len, inner]: [usize; 3], dims: &[usize]) -> Result<Tensor> {
    let source = x.contiguous()?;
    for_float!("sum", x.dtype(), E => {
        let mut y = Tensor::empty(dims, x.dtype(), x.device())?;
        let (x, y_elements, isa) = (source.as_slice::<E>()?, y.as_mut_slice::<E>()?, Isa::current());
        if inner == 1 && len > 0 {
            let rows_per_piece = (PIECE / len).max(1);
            parallel::for_each_chunk_mut(y_elements, rows_per_piece, |index, y| {
                for (row, y) in y.iter_mut().enumerate() {
                    let start = (index * rows_per_piece + row) * len;
                    *y = E::from_f64(total(isa, &x[start..start + len]));
                }
            });
        } else {
            let mut sums = vec![<E as Float>::Real::default(); inner];
            for (o, y) in y_elements.chunks_mut(inner.max(1)).enumerate().take(outer) {
                let data = &x[o * len * inner..(o + 1) * len * inner];
                sum_rows(Rows { data, count: len, width: inner, stride: inner }, &mut sums);
                y.iter_mut().zip(&sums).for_each(|(y, sum)| *y = E::from_f64(sum.to_f64()));
            }
        }
        Ok(y)
    })
}

/// The largest elements along the middle of `[outer, length, inner]` and their first positions, as `dims`.
pub(super) fn max(x: &Tensor, [_, len, inner]: [usize; 3], dims: &[usize]) -> Result<Max> {
    let source = x.contiguous()?;
    for_float!("max", x.dtype(), E => {
        let mut values = Tensor::empty(dims, x.dtype(), x.device())?;
        let mut indices = Tensor::empty(dims, DType::U32, x.device())?;
        let x = source.as_slice::<E>()?;
        let outputs = values.as_mut_slice::<E>()?.iter_mut().zip(indices.as_mut_slice::<u32>()?);
        for (at, (value, index)) in outputs.enumerate() {
            let first = at / inner * len * inner + at % inner;
            let mut best = (x[first].to_f64(), 0);
            for i in 1..len {
                let here = x[first + i * inner].to_f64();
                if here > best.0 || (here.is_nan() && !best.0.is_nan()) {
                    best = (here, i);
                }
            }
            (*value, *index) = (E::from_f64(best.0), best.1 as u32);
        }
        Ok(Max { values, indices })
    })
}

/// dx, zeros of `[outer, length, inner]`, becomes dy where the maximum was found.
pub(super) fn max_backward(
    dy: &Tensor,
    indices: &Tensor,
    dx: &mut Tensor,
    len: usize,
    inner: usize,
) -> Result<()> {
    for_float!("max_backward", dy.dtype(), E => {
        let dx_elements = dx.as_mut_slice::<E>()?;
        for (at, (&dy, &index)) in dy.as_slice::<E>()?.iter().zip(indices.as_slice::<u32>()?).enumerate() {
            let index = index as usize;
            if index >= len {
                return Err(Error::IndexOutOfRange { op: "max_backward", index, len });
            }
            dx_elements[(at / inner * len + index) * inner + at % inner] = dy;
        }
        Ok(())
    })
}

/// The sum of a slice: in lanes over pieces, and of the pieces in f64.
fn total<E: Float>(isa: Available, x: &[E]) -> f64 {
    let piece = |range: std::ops::Range<usize>| simd::run(isa, Total(&x[range])).to_f64();
    parallel::map_reduce(x.len(), PIECE, piece, |a, b| a + b).unwrap_or(0.0)
}

struct Total<'a, E>(&'a [E]);

impl<E: Float> Kernel<E::Real> for Total<'_, E> {
    type Output = E::Real;
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) -> E::Real {
        let zero = E::Real::default();
        simd::fold(self.0, L::splat(zero), zero, |sum: L, x| sum + x).reduce_add()
    }
}

/// `sums[j]` = the sum of column `j`: in f32 (f64 in the reference) over pieces of rows, and of the pieces in order.
/// For example a bias's gradient.
pub(in crate::ops) fn sum_rows<E: Float>(rows: Rows<'_, E>, sums: &mut [E::Real]) {
    sums.fill(E::Real::default());
    if rows.count == 0 || rows.width == 0 {
        return;
    }
    let isa = Isa::current();
    let mut partials = vec![E::Real::default(); rows.count.div_ceil(PIECE_ROWS) * rows.width];
    parallel::for_each_chunk_mut(&mut partials, rows.width, |index, partial| {
        let end = rows.count.min((index + 1) * PIECE_ROWS);
        simd::run(isa, AddRows { rows, range: index * PIECE_ROWS..end, sums: partial });
    });
    let partials = Rows {
        data: &partials[..],
        count: partials.len() / rows.width,
        width: rows.width,
        stride: rows.width,
    };
    simd::run(isa, AddRows { rows: partials, range: 0..partials.count, sums });
}

struct AddRows<'a, E: Float> {
    rows: Rows<'a, E>,
    range: std::ops::Range<usize>,
    sums: &'a mut [E::Real],
}

impl<E: Float> Kernel<E::Real> for AddRows<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        for row in self.range {
            simd::update(self.sums, self.rows.row(row), |sum: L, x| sum + x);
        }
    }
}
