//! Moving elements on the CPU.

use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::ops::cast::for_dtype;
use crate::{DType, Float, Result, Tensor, for_float};

/// Elements in a piece of parallel work.
const CHUNK: usize = 1 << 16;

/// The tensors one after the other along `dim`, as `dims`.
pub(super) fn cat(tensors: &[&Tensor], dim: usize, dims: &[usize]) -> Result<Tensor> {
    let first = tensors[0];
    let mut out = Tensor::empty(dims, first.dtype(), first.device())?;
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

pub(super) fn gather_rows(x: &Tensor, indices: &[u32]) -> Result<Tensor> {
    let width = x.dims()[1];
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

pub(super) fn gather_rows_backward(dy: &Tensor, indices: &[u32], rows: usize) -> Result<Tensor> {
    let width = dy.dims()[1];
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
