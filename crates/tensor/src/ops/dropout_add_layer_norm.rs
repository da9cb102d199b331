//! The end of each half of a transformer layer, in one pass: `sum = residual + dropout(x)`, `y = LayerNorm(sum)`.
//!
//! Backward in one pass too: with `dsum` the gradient through LayerNorm, `dresidual = dsum` and `dx = dropout(dsum)` with
//! the same mask. Mirrors `BertSelfOutput` and `BertOutput` of transformers' `modeling_bert.py`.

use super::check;
use super::dropout::RowMasks;
use super::layer_norm::{
    BLOCK, Partials, backward_row, check_parameters, check_statistics, normalize, statistics,
};
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::tensor::Rows;
use crate::{Device, Dropout, Error, Float, Offsets, Result, Tensor, cuda, for_float};

/// What [`dropout_add_layer_norm`] returns; backward needs all but `y`.
#[derive(Debug)]
pub struct DropoutAddLayerNorm {
    /// `[T, C]`, dtype of x.
    pub y: Tensor,
    /// `residual + dropout(x)`: `[T, C]`, dtype of x.
    pub sum: Tensor,
    /// `[T]`, accumulator dtype.
    pub mean: Tensor,
    /// `[T]`, accumulator dtype.
    pub rstd: Tensor,
}

/// What [`dropout_add_layer_norm_backward`] returns.
#[derive(Debug)]
pub struct DropoutAddLayerNormGradients {
    /// `[T, C]`, dtype of dy. Without dropout it shares the storage of `dresidual`.
    pub dx: Tensor,
    /// `[T, C]`, dtype of dy.
    pub dresidual: Tensor,
    /// `[C]`, accumulator dtype.
    pub dweight: Tensor,
    /// `[C]`, accumulator dtype.
    pub dbias: Tensor,
}

fn check_dropout(op: &'static str, dropout: Option<&Dropout>, offsets: &Offsets, rows: usize) -> Result<()> {
    let Some(dropout) = dropout else { return Ok(()) };
    if offsets.total() != rows {
        let expected = format!("{} rows, one a token of the offsets", offsets.total());
        return Err(Error::ShapeMismatch { op, expected, got: vec![rows] });
    }
    dropout.check(op)
}

/// `x` and `residual: [T, C]` (rows may be strided), `weight` and `bias: [C]` in the accumulator's dtype. Rows are the
/// tokens of `offsets`, which matter only under dropout.
///
/// # Errors
/// `ShapeMismatch`, `DTypeMismatch`, `NotContiguous`, `InvalidArgument` for the probability.
pub fn dropout_add_layer_norm(
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    dropout: Option<&Dropout>,
    offsets: &Offsets,
) -> Result<DropoutAddLayerNorm> {
    const OP: &str = "dropout_add_layer_norm";
    let (rows, width) = check::matrix(OP, "x [T, C]", x)?;
    check::shape(OP, "residual", residual, &[rows, width])?;
    check::same_type(OP, x, residual)?;
    check_parameters(OP, x, width, [weight, bias])?;
    check_dropout(OP, dropout, offsets, rows)?;
    if x.device() != Device::Cpu {
        return cuda::dropout_add_layer_norm(x, residual, weight, bias, eps, dropout, offsets);
    }
    let like_x = || Tensor::empty(&[rows, width], x.dtype(), x.device());
    let statistic = || Tensor::empty(&[rows], x.dtype().accumulator(), x.device());
    let mut out =
        DropoutAddLayerNorm { y: like_x()?, sum: like_x()?, mean: statistic()?, rstd: statistic()? };
    for_float!(OP, x.dtype(), E => {
        type R = <E as Float>::Real;
        let (x, residual) = (x.as_rows::<E>(OP)?, residual.as_rows::<E>(OP)?);
        let (weight, bias) = (weight.as_slice::<R>()?, bias.as_slice::<R>()?);
        let isa = Isa::current();
        let block = BLOCK * width;
        let ys = out.y.as_mut_slice::<E>()?.chunks_mut(block).zip(out.sum.as_mut_slice::<E>()?.chunks_mut(block));
        let means = out.mean.as_mut_slice::<R>()?.chunks_mut(BLOCK);
        let rstds = out.rstd.as_mut_slice::<R>()?.chunks_mut(BLOCK);
        parallel::for_each(ys.zip(means).zip(rstds), |block, (((y, sum), mean), rstd)| {
            let first = block * BLOCK;
            let masks = dropout.map(|dropout| RowMasks::new(dropout, offsets, first, width));
            simd::run(isa, Forward { x, residual, first, masks, y, sum, mean, rstd, weight, bias, eps });
        });
        Ok(())
    })?;
    Ok(out)
}

struct Forward<'a, E: Float> {
    x: Rows<'a, E>,
    residual: Rows<'a, E>,
    first: usize,
    masks: Option<RowMasks<'a>>,
    y: &'a mut [E],
    sum: &'a mut [E],
    mean: &'a mut [E::Real],
    rstd: &'a mut [E::Real],
    weight: &'a [E::Real],
    bias: &'a [E::Real],
    eps: f64,
}

impl<E: Float> Kernel<E::Real> for Forward<'_, E> {
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
        }
    }
}

/// Gradients of [`dropout_add_layer_norm`], from `dy: [T, C]` and what forward returned.
///
/// # Errors
/// As forward.
pub fn dropout_add_layer_norm_backward(
    dy: &Tensor,
    sum: &Tensor,
    weight: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
    dropout: Option<&Dropout>,
    offsets: &Offsets,
) -> Result<DropoutAddLayerNormGradients> {
    const OP: &str = "dropout_add_layer_norm_backward";
    let (rows, width) = check::matrix(OP, "sum [T, C]", sum)?;
    check::shape(OP, "dy", dy, &[rows, width])?;
    check::same_type(OP, sum, dy)?;
    check_parameters(OP, sum, width, [weight, weight])?;
    check_statistics(OP, sum, [mean, rstd])?;
    check_dropout(OP, dropout, offsets, rows)?;
    if sum.device() != Device::Cpu {
        return cuda::dropout_add_layer_norm_backward(dy, sum, weight, mean, rstd, dropout, offsets);
    }
    let mut dresidual = Tensor::empty(&[rows, width], dy.dtype(), dy.device())?;
    // Without dropout the two gradients are one tensor.
    let mut dx = dropout.map(|_| Tensor::empty(&[rows, width], dy.dtype(), dy.device())).transpose()?;
    let (dweight, dbias) = for_float!(OP, sum.dtype(), E => {
        type R = <E as Float>::Real;
        let (dy, sum) = (dy.as_rows::<E>(OP)?, sum.as_rows::<E>(OP)?);
        let (weight, mean, rstd) = (weight.as_slice::<R>()?, mean.as_slice::<R>()?, rstd.as_slice::<R>()?);
        let isa = Isa::current();
        let block = BLOCK * width;
        let mut partials = Partials::<R>::new(rows, width)?;
        let mut dx_blocks = dx.as_mut().map(|dx| dx.as_mut_slice::<E>()).transpose()?.map(|dx| dx.chunks_mut(block));
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
    })?;
    Ok(DropoutAddLayerNormGradients {
        dx: dx.unwrap_or_else(|| dresidual.clone()),
        dresidual,
        dweight,
        dbias,
    })
}

struct Backward<'a, E: Float> {
    dy: Rows<'a, E>,
    sum: Rows<'a, E>,
    first: usize,
    masks: Option<RowMasks<'a>>,
    dresidual: &'a mut [E],
    dx: Option<&'a mut [E]>,
    sums: &'a mut [E::Real],
    weight: &'a [E::Real],
    mean: &'a [E::Real],
    rstd: &'a [E::Real],
}

impl<E: Float> Kernel<E::Real> for Backward<'_, E> {
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
                let mut channel = 0;
                simd::map(dresidual, &mut dx[row * width..(row + 1) * width], |dsum: L| {
                    let dropped = masks.apply(channel, dsum);
                    channel += L::LANES;
                    dropped
                });
            }
        }
    }
}
