//! Moving elements: concatenation, choosing rows, and the gradients of views.

use super::cast::for_dtype;
use super::check;
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::{DType, Device, Error, Float, Result, Tensor, cuda, for_float};

/// Elements in a piece of parallel work.
const CHUNK: usize = 1 << 16;

/// The tensors one after the other along dimension `dim`; all other dimensions agree. Its gradient is a `narrow` for
/// each.
///
/// # Errors
/// `InvalidArgument` for no tensors; `IndexOutOfRange` when there is no such dimension; `ShapeMismatch`,
/// `DTypeMismatch` or `DeviceMismatch` when the tensors do not agree.
pub fn cat(tensors: &[&Tensor], dim: usize) -> Result<Tensor> {
    let Some(&first) = tensors.first() else {
        let (expected, got) = ("at least one tensor", "none".into());
        return Err(Error::InvalidArgument { op: "cat", name: "tensors", expected, got });
    };
    if dim >= first.rank() {
        return Err(Error::IndexOutOfRange { op: "cat", index: dim, len: first.rank() });
    }
    let mut dims = first.dims().to_vec();
    dims[dim] = 0;
    for tensor in tensors {
        check::same_type("cat", first, tensor)?;
        let others = |x: &Tensor| [&x.dims()[..dim], &x.dims()[dim + 1..]].concat();
        if tensor.rank() != first.rank() || others(tensor) != others(first) {
            let expected = format!("{:?} but in dimension {dim}", first.dims());
            return Err(Error::ShapeMismatch { op: "cat", expected, got: tensor.dims().to_vec() });
        }
        dims[dim] += tensor.dims()[dim];
    }
    if first.device() != Device::Cpu {
        return cuda::cat(tensors, dim, &dims);
    }
    let mut out = Tensor::empty(&dims, first.dtype(), first.device())?;
    for_dtype!(first.dtype(), E => {
        let block: usize = dims[dim..].iter().product();
        let mut start = 0;
        for tensor in tensors {
            let source = tensor.contiguous()?;
            let width: usize = source.dims()[dim..].iter().product();
            let blocks = out.as_mut_slice::<E>()?.chunks_mut(block.max(1));
            for (to, from) in blocks.zip(source.as_slice::<E>()?.chunks(width.max(1))) {
                to[start..start + width].copy_from_slice(from);
            }
            start += width;
        }
        Ok(out)
    })
}

/// Row `indices[b]` of `x` `[T, C]` for each `b`: `[B, C]`, any dtype. `x` may have row strides.
///
/// # Errors
/// `ShapeMismatch` unless `x` is a matrix; `IndexOutOfRange`; `NotContiguous`.
pub fn gather_rows(x: &Tensor, indices: &[u32]) -> Result<Tensor> {
    let (rows, width) = check::matrix("gather_rows", "rows", x)?;
    check::ids("gather_rows", indices, rows)?;
    if x.device() != Device::Cpu {
        return cuda::gather_rows("gather_rows", x, indices);
    }
    let mut out = Tensor::empty(&[indices.len(), width], x.dtype(), x.device())?;
    for_dtype!(x.dtype(), E => {
        let (x, width) = (x.as_rows::<E>("gather_rows")?, width.max(1));
        let per_chunk = (CHUNK / width).max(1);
        parallel::for_each_chunk_mut(out.as_mut_slice::<E>()?, per_chunk * width, |chunk, out| {
            for (out, &index) in out.chunks_mut(width).zip(&indices[chunk * per_chunk..]) {
                out.copy_from_slice(x.row(index as usize));
            }
        });
        Ok(out)
    })
}

/// The gradient of [`gather_rows`] for `rows` rows: `dx` `[T, C]` is 0 but for `dx[indices[b]] += dy[b]`, in the order
/// of `b` and in the dtype of `dy` `[B, C]`.
///
/// # Errors
/// `ShapeMismatch` unless `dy` has a row for each index; `IndexOutOfRange`; `DTypeMismatch` for integers;
/// `NotContiguous`.
pub fn gather_rows_backward(dy: &Tensor, indices: &[u32], rows: usize) -> Result<Tensor> {
    let (count, width) = check::matrix("gather_rows_backward", "dy", dy)?;
    if count != indices.len() {
        let expected = format!("[{}, C], a row for each index", indices.len());
        return Err(Error::ShapeMismatch { op: "gather_rows_backward", expected, got: dy.dims().to_vec() });
    }
    check::ids("gather_rows_backward", indices, rows)?;
    if dy.device() != Device::Cpu {
        return cuda::gather_rows_backward(dy, indices, rows);
    }
    let mut dx = Tensor::zeros(&[rows, width], dy.dtype(), dy.device())?;
    for_float!("gather_rows_backward", dy.dtype(), E => {
        let (dy, isa) = (dy.as_rows::<E>("gather_rows_backward")?, Isa::current());
        let dx_elements = dx.as_mut_slice::<E>()?;
        // One thread: a row per sequence is little work, and the order of the additions is plain.
        for (b, &index) in indices.iter().enumerate() {
            let start = index as usize * width;
            simd::run(isa, AddTo { y: &mut dx_elements[start..start + width], x: dy.row(b) });
        }
        Ok(dx)
    })
}

/// The gradient of `narrow(dim, start, len)` for a tensor whose dimension `dim` has `length` elements: `dy` with zeros
/// before and after.
///
/// # Errors
/// `IndexOutOfRange` when there is no such dimension or range; `DTypeMismatch` for integers.
pub fn narrow_backward(dy: &Tensor, dim: usize, start: usize, length: usize) -> Result<Tensor> {
    let op = "narrow_backward";
    let &len = dy.dims().get(dim).ok_or(Error::IndexOutOfRange { op, index: dim, len: dy.rank() })?;
    let end = start.saturating_add(len);
    if end > length {
        return Err(Error::IndexOutOfRange { op, index: end, len: length });
    }
    let padding = |count| {
        let mut dims = dy.dims().to_vec();
        dims[dim] = count;
        Tensor::zeros(&dims, dy.dtype(), dy.device())
    };
    cat(&[&padding(start)?, dy, &padding(length - end)?], dim)
}

struct AddTo<'a, E> {
    y: &'a mut [E],
    x: &'a [E],
}

impl<E: Float> Kernel<E::Real> for AddTo<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        simd::update(self.y, self.x, |y: L, x| y + x);
    }
}
