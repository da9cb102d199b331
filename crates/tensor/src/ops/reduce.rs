//! Sums and maxima along one dimension, and the sum that undoes broadcasting.
//!
//! A contiguous tensor is seen as `[outer, length, inner]` around the dimension. Sums are held in f32 (f64 in the
//! reference) over pieces of fixed size, and the pieces' sums are added up in order.

use super::check;
use crate::cpu::isa::{Available, Isa};
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::{DType, Device, Error, Float, Result, Rows, Tensor, cuda, for_float};

/// Elements of a piece of a sum along contiguous elements.
const PIECE: usize = 1 << 13;
/// Rows of a piece of a sum over rows.
const PIECE_ROWS: usize = 64;

/// The sum over dimension `dim`, which is dropped, or kept with length 1 if `keepdim`. `dx` is `dy`, broadcast.
///
/// # Errors
/// `IndexOutOfRange` when there is no such dimension; `DTypeMismatch` for integers; `NotSupported` on CUDA but for F32 and BF16.
pub fn sum(x: &Tensor, dim: usize, keepdim: bool) -> Result<Tensor> {
    let [outer, len, inner] = around("sum", x, dim)?;
    let dims = reduced(x, dim, keepdim);
    if x.device() != Device::Cpu {
        return cuda::sum(x, [outer, len, inner], &dims);
    }
    let source = x.contiguous()?;
    for_float!("sum", x.dtype(), E => {
        let mut y = Tensor::empty(&dims, x.dtype(), x.device())?;
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

/// The gradient of an operand with shape `dims` that was broadcast: `dy` summed over the dimensions that were repeated.
///
/// # Errors
/// `ShapeMismatch` unless `dims` broadcasts to the shape of `dy`; `DTypeMismatch` for integers.
pub fn reduce_to_shape(dy: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let lead = dy.rank().checked_sub(dims.len());
    let fits = |lead: usize| dy.dims()[lead..].iter().zip(dims).all(|(from, to)| from == to || *to == 1);
    let Some(lead) = lead.filter(|&lead| fits(lead)) else {
        let expected = format!("a shape that {dims:?} broadcasts to");
        return Err(Error::ShapeMismatch { op: "reduce_to_shape", expected, got: dy.dims().to_vec() });
    };
    // The leading dimensions at once: a bias gradient is one sum over all rows.
    let leading: usize = dy.dims()[..lead].iter().product();
    let repeated = dy.dims()[lead..].iter().zip(dims).filter(|(from, to)| from != to).count();
    // Several sums one after the other round once, like one.
    let several = usize::from(lead > 0) + repeated > 1;
    let mut dx = dy.to_dtype(if several { dy.dtype().accumulator() } else { dy.dtype() })?;
    if lead > 0 {
        dx = sum(&dx.reshape(&[&[leading], &dy.dims()[lead..]].concat())?, 0, false)?;
    }
    for (d, &length) in dims.iter().enumerate() {
        if dx.dims()[d] != length {
            dx = sum(&dx, d, true)?;
        }
    }
    dx.to_dtype(dy.dtype())?.contiguous()
}

/// What [`max`] finds.
pub struct Max {
    /// The largest elements.
    pub values: Tensor,
    /// Where along the dimension they were first seen, U32.
    pub indices: Tensor,
}

/// The largest element along dimension `dim` and its first position. NaN counts as the largest.
///
/// # Errors
/// As [`sum`]; `ShapeMismatch` for a dimension of length 0.
pub fn max(x: &Tensor, dim: usize, keepdim: bool) -> Result<Max> {
    let [outer, len, inner] = around("max", x, dim)?;
    if len == 0 {
        let expected = format!("at least one element in dimension {dim}");
        return Err(Error::ShapeMismatch { op: "max", expected, got: x.dims().to_vec() });
    }
    let dims = reduced(x, dim, keepdim);
    if x.device() != Device::Cpu {
        let [values, indices] = cuda::max(x, [outer, len, inner], &dims)?;
        return Ok(Max { values, indices });
    }
    let source = x.contiguous()?;
    for_float!("max", x.dtype(), E => {
        let mut values = Tensor::empty(&dims, x.dtype(), x.device())?;
        let mut indices = Tensor::empty(&dims, DType::U32, x.device())?;
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

/// The gradient of [`max`]: `dy` (with or without the dimension) where the maximum was found, 0 elsewhere. `dims` is
/// the shape of `x`.
///
/// # Errors
/// `ShapeMismatch`, on the CPU `IndexOutOfRange`, when the operands do not come from such a maximum; `DTypeMismatch`;
/// `DeviceMismatch`.
pub fn max_backward(dy: &Tensor, indices: &Tensor, dims: &[usize], dim: usize) -> Result<Tensor> {
    let mut dx = Tensor::zeros(dims, dy.dtype(), dy.device())?;
    let [outer, len, inner] = around("max_backward", &dx, dim)?;
    if dy.numel() != outer * inner || indices.numel() != dy.numel() {
        let expected = format!("{} elements, one for each maximum", outer * inner);
        return Err(Error::ShapeMismatch { op: "max_backward", expected, got: dy.dims().to_vec() });
    }
    check::dtype("max_backward", indices, DType::U32)?;
    check::device("max_backward", dy, indices)?;
    let (dy, indices) = (dy.contiguous()?, indices.contiguous()?);
    if dy.device() != Device::Cpu {
        cuda::max_backward(&dy, &indices, &mut dx, len, inner)?;
        return Ok(dx);
    }
    for_float!("max_backward", dy.dtype(), E => {
        let dx_elements = dx.as_mut_slice::<E>()?;
        for (at, (&dy, &index)) in dy.as_slice::<E>()?.iter().zip(indices.as_slice::<u32>()?).enumerate() {
            let index = index as usize;
            if index >= len {
                return Err(Error::IndexOutOfRange { op: "max_backward", index, len });
            }
            dx_elements[(at / inner * len + index) * inner + at % inner] = dy;
        }
        Ok(dx)
    })
}

/// `[outer, length, inner]` around a dimension.
fn around(op: &'static str, x: &Tensor, dim: usize) -> Result<[usize; 3]> {
    let dims = x.dims();
    let len = *dims.get(dim).ok_or(Error::IndexOutOfRange { op, index: dim, len: dims.len() })?;
    Ok([dims[..dim].iter().product(), len, dims[dim + 1..].iter().product()])
}

fn reduced(x: &Tensor, dim: usize, keepdim: bool) -> Vec<usize> {
    let mut dims = x.dims().to_vec();
    if keepdim {
        dims[dim] = 1;
    } else {
        dims.remove(dim);
    }
    dims
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
pub(crate) fn sum_rows<E: Float>(rows: Rows<'_, E>, sums: &mut [E::Real]) {
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
