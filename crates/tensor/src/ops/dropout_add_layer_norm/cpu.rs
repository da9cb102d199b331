//! Dropout, residual and LayerNorm on the CPU: all that is done to a row while it is in cache.

use super::{DropoutAddLayerNorm, DropoutAddLayerNormGradients};
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::ops::dropout::cpu::RowMasks;
use crate::ops::layer_norm::cpu::{BLOCK, Partials, backward_row, normalize, statistics};
use crate::tensor::Rows;
use crate::{DType, Dropout, Float, Offsets, Result, Tensor, for_float};
use half::{bf16, f16};

pub(super) fn run_forward(
    op: &'static str,
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    dropout: Option<&Dropout>,
    offsets: &Offsets,
) -> Result<DropoutAddLayerNorm> {
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    let like_residual = || Tensor::empty(&[rows, width], residual.dtype(), x.device());
    let statistic = || Tensor::empty(&[rows], x.dtype().accumulator(), x.device());
    let mixed = x.dtype() != residual.dtype();
    let mut out = DropoutAddLayerNorm {
        y: like_residual()?,
        rounded: mixed.then(|| Tensor::empty(&[rows, width], x.dtype(), x.device())).transpose()?,
        sum: like_residual()?,
        mean: statistic()?,
        rstd: statistic()?,
    };
    match (x.dtype(), residual.dtype()) {
        (DType::BF16, DType::F32) => {
            forward::<bf16, f32>(x, residual, weight, bias, eps, dropout, offsets, &mut out)?;
        }
        (DType::F16, DType::F32) => {
            forward::<f16, f32>(x, residual, weight, bias, eps, dropout, offsets, &mut out)?;
        }
        (dtype, _) => for_float!(op, dtype, E => {
            forward::<E, E>(x, residual, weight, bias, eps, dropout, offsets, &mut out)
        })?,
    }
    Ok(out)
}

fn forward<X: Float, E: Float<Real = X::Real>>(
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    dropout: Option<&Dropout>,
    offsets: &Offsets,
    out: &mut DropoutAddLayerNorm,
) -> Result<()> {
    const OP: &str = "dropout_add_layer_norm";
    let (x, residual) = (x.as_rows::<X>(OP)?, residual.as_rows::<E>(OP)?);
    let (weight, bias) = (weight.as_slice::<E::Real>()?, bias.as_slice::<E::Real>()?);
    let (isa, width) = (Isa::current(), x.width);
    let block = BLOCK * width;
    let ys = out.y.as_mut_slice::<E>()?.chunks_mut(block).zip(out.sum.as_mut_slice::<E>()?.chunks_mut(block));
    let means = out.mean.as_mut_slice::<E::Real>()?.chunks_mut(BLOCK);
    let rstds = out.rstd.as_mut_slice::<E::Real>()?.chunks_mut(BLOCK);
    let rounded = out.rounded.as_mut().map(|rounded| rounded.as_mut_slice::<X>()).transpose()?;
    let mut rounded = rounded.map(|rounded| rounded.chunks_mut(block));
    let blocks: Vec<_> = ys
        .zip(means)
        .zip(rstds)
        .map(|(rows, rstd)| (rows, rstd, rounded.as_mut().and_then(Iterator::next)))
        .collect();
    parallel::for_each(blocks, |block, (((y, sum), mean), rstd, rounded)| {
        let first = block * BLOCK;
        let masks = dropout.map(|dropout| RowMasks::new(dropout, offsets, first, width));
        simd::run(isa, Forward { x, residual, first, masks, y, rounded, sum, mean, rstd, weight, bias, eps });
    });
    Ok(())
}

struct Forward<'a, X: Float, E: Float> {
    x: Rows<'a, X>,
    residual: Rows<'a, E>,
    first: usize,
    masks: Option<RowMasks<'a>>,
    y: &'a mut [E],
    rounded: Option<&'a mut [X]>,
    sum: &'a mut [E],
    mean: &'a mut [E::Real],
    rstd: &'a mut [E::Real],
    weight: &'a [E::Real],
    bias: &'a [E::Real],
    eps: f64,
}

impl<X: Float<Real = E::Real>, E: Float> Kernel<E::Real> for Forward<'_, X, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(mut self) {
        let width = self.x.width;
        for (row, (y, sum)) in self.y.chunks_mut(width).zip(self.sum.chunks_mut(width)).enumerate() {
            let (x, residual) = (self.x.row(self.first + row), self.residual.row(self.first + row));
            match &mut self.masks {
                None => simd::map2(x, residual, sum, |x: L, residual| x + residual),
                Some(masks) => {
                    masks.next_row();
                    let mut channel = 0;
                    simd::map2(x, residual, sum, |x: L, residual| {
                        let dropped = masks.apply(channel, x);
                        channel += L::LANES;
                        dropped + residual
                    });
                }
            }
            // From the stored sum, so that backward normalises the very same values in half precision.
            let (mean, rstd) = statistics::<L, E>(sum, self.eps);
            (self.mean[row], self.rstd[row]) = (mean, rstd);
            normalize::<L, E>(sum, y, mean, rstd, self.weight, self.bias);
            if let Some(rounded) = &mut self.rounded {
                simd::map(y, &mut rounded[row * width..(row + 1) * width], |y: L| y);
            }
        }
    }
}

pub(super) fn run_backward(
    op: &'static str,
    dy: &Tensor,
    sum: &Tensor,
    weight: &Tensor,
    statistics: [&Tensor; 2],
    dropout: Option<&Dropout>,
    offsets: &Offsets,
    x_dtype: DType,
) -> Result<DropoutAddLayerNormGradients> {
    let (rows, width) = (sum.dims()[0], sum.dims()[1]);
    let mut dresidual = Tensor::empty(&[rows, width], dy.dtype(), dy.device())?;
    // Without dropout the two gradients are one tensor.
    let mut dx = dropout.map(|_| Tensor::empty(&[rows, width], x_dtype, dy.device())).transpose()?;
    let dx_out = dx.as_mut();
    let [dweight, dbias] = match (x_dtype, sum.dtype()) {
        (DType::BF16, DType::F32) => {
            backward::<bf16, f32>(dy, sum, weight, statistics, dropout, offsets, &mut dresidual, dx_out)?
        }
        (DType::F16, DType::F32) => {
            backward::<f16, f32>(dy, sum, weight, statistics, dropout, offsets, &mut dresidual, dx_out)?
        }
        (dtype, _) => for_float!(op, dtype, E => {
            backward::<E, E>(dy, sum, weight, statistics, dropout, offsets, &mut dresidual, dx_out)
        })?,
    };
    let dx = dx.map_or_else(|| dresidual.to_dtype(x_dtype), Ok)?;
    Ok(DropoutAddLayerNormGradients { dx, dresidual, dweight, dbias })
}

fn backward<X: Float, E: Float<Real = X::Real>>(
    dy: &Tensor,
    sum: &Tensor,
    weight: &Tensor,
    [mean, rstd]: [&Tensor; 2],
    dropout: Option<&Dropout>,
    offsets: &Offsets,
    dresidual: &mut Tensor,
    dx: Option<&mut Tensor>,
) -> Result<[Tensor; 2]> {
    const OP: &str = "dropout_add_layer_norm_backward";
    let (rows, width) = (sum.dims()[0], sum.dims()[1]);
    let (dy, sum) = (dy.as_rows::<E>(OP)?, sum.as_rows::<E>(OP)?);
    let weight = weight.as_slice::<E::Real>()?;
    let (mean, rstd) = (mean.as_slice::<E::Real>()?, rstd.as_slice::<E::Real>()?);
    let isa = Isa::current();
    let block = BLOCK * width;
    let mut partials = Partials::<E::Real, 2>::new(rows, width)?;
    let mut dx_blocks = dx.map(|dx| dx.as_mut_slice::<X>()).transpose()?.map(|dx| dx.chunks_mut(block));
    let blocks: Vec<_> = dresidual
        .as_mut_slice::<E>()?
        .chunks_mut(block)
        .zip(partials.blocks()?)
        .map(|(dresidual, sums)| (dresidual, sums, dx_blocks.as_mut().and_then(Iterator::next)))
        .collect();
    parallel::for_each(blocks, |block, (dresidual, sums, dx)| {
        let first = block * BLOCK;
        let masks = dropout.map(|dropout| RowMasks::new(dropout, offsets, first, width));
        simd::run(isa, Backward { dy, sum, first, masks, dresidual, dx, sums, weight, mean, rstd });
    });
    partials.sum(isa)
}

struct Backward<'a, X: Float, E: Float> {
    dy: Rows<'a, E>,
    sum: Rows<'a, E>,
    first: usize,
    masks: Option<RowMasks<'a>>,
    dresidual: &'a mut [E],
    dx: Option<&'a mut [X]>,
    sums: &'a mut [E::Real],
    weight: &'a [E::Real],
    mean: &'a [E::Real],
    rstd: &'a [E::Real],
}

impl<X: Float<Real = E::Real>, E: Float> Kernel<E::Real> for Backward<'_, X, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(mut self) {
        let width = self.sum.width;
        let (dweight, dbias) = self.sums.split_at_mut(width);
        dweight.fill(E::Real::default());
        dbias.fill(E::Real::default());
        for (row, dresidual) in self.dresidual.chunks_mut(width).enumerate() {
            let index = self.first + row;
            let (dy, sum) = (self.dy.row(index), self.sum.row(index));
            let (mean, rstd) = (self.mean[index], self.rstd[index]);
            backward_row::<L, E>(dy, sum, self.weight, mean, rstd, dresidual, dweight, dbias);
            if let (Some(masks), Some(dx)) = (&mut self.masks, &mut self.dx) {
                masks.next_row();
                masks.map::<L, E, X>(dresidual, &mut dx[row * width..(row + 1) * width]);
            }
        }
    }
}
