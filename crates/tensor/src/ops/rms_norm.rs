//! Normalisation by the root mean square: `y = x * rstd * weight` over the last dimension. Nothing is subtracted and nothing added.
//!
//! `rstd = 1 / sqrt(sum(x^2) / C + eps)`, of squares in f32 (a row with a square beyond its range becomes zero, as in PyTorch).
//! Backward, with `x_hat = x * rstd` and `g = dy * weight`: `dx = rstd * (g - x_hat * mean(g * x_hat))`,
//! `dweight = sum_rows(dy * x_hat)`. The sum over rows is taken block by block, so it does not depend on threads.
//! Source: Zhang and Sennrich, arXiv 1910.07467; `torch.nn.functional.rms_norm`, whose eps is the dtype's unless given.

use super::check;
use crate::cuda::Context;
use crate::{Device, Result, Tensor};

/// What [`rms_norm`] returns; backward needs the statistic.
#[derive(Debug)]
pub struct RmsNorm {
    /// `[T, C]`, dtype of x.
    pub y: Tensor,
    /// `[T]`: one over the root mean square, accumulator dtype.
    pub rstd: Tensor,
}

/// What [`rms_norm_backward`] returns.
#[derive(Debug)]
pub struct RmsNormGradients {
    /// `[T, C]`, dtype of dy.
    pub dx: Tensor,
    /// `[C]`, accumulator dtype.
    pub dweight: Tensor,
}

/// Normalises the rows of `x: [T, C]` (rows may be strided); `weight: [C]` in the accumulator's dtype.
///
/// # Errors
/// `ShapeMismatch` (also for C = 0), `DTypeMismatch`, `DeviceMismatch`, `NotContiguous`; `NotSupported` on CUDA but for F32 and BF16.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<RmsNorm> {
    const OP: &str = "rms_norm";
    let (_, width) = check::rows(OP, "x [T, C]", x)?;
    check::vectors(OP, x, width, [("weight", weight)])?;
    match x.device() {
        Device::Cpu => cpu::forward(OP, x, weight, eps),
        Device::Cuda(ordinal) => cuda::forward(&Context::get(ordinal)?, OP, x, weight, eps),
    }
}

/// Gradients of [`rms_norm`]. `dy` and `x: [T, C]` (rows may be strided), one dtype.
///
/// # Errors
/// As [`rms_norm`].
pub fn rms_norm_backward(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    rstd: &Tensor,
) -> Result<RmsNormGradients> {
    const OP: &str = "rms_norm_backward";
    let (rows, width) = check::rows(OP, "x [T, C]", x)?;
    check::shape(OP, "dy", dy, &[rows, width])?;
    check::same_type(OP, x, dy)?;
    check::vectors(OP, x, width, [("weight", weight)])?;
    check::vectors(OP, x, rows, [("rstd", rstd)])?;
    match x.device() {
        Device::Cpu => cpu::backward(OP, dy, x, weight, rstd),
        Device::Cuda(ordinal) => cuda::backward(&Context::get(ordinal)?, OP, dy, x, weight, rstd),
    }
}

/// On the CPU: a row at a time, both passes while it is in cache.
mod cpu {
    use super::{RmsNorm, RmsNormGradients};
    use crate::cpu::isa::Isa;
    use crate::cpu::parallel;
    use crate::cpu::simd::{self, Kernel, Lanes};
    use crate::ops::layer_norm::cpu::{BLOCK, Partials};
    use crate::tensor::Rows;
    use crate::{Float, Result, Tensor, for_float};

    pub(super) fn forward(op: &'static str, x: &Tensor, weight: &Tensor, eps: f64) -> Result<RmsNorm> {
        let (rows, width) = (x.dims()[0], x.dims()[1]);
        let mut out = RmsNorm {
            y: Tensor::empty(&[rows, width], x.dtype(), x.device())?,
            rstd: Tensor::empty(&[rows], x.dtype().accumulator(), x.device())?,
        };
        for_float!(op, x.dtype(), E => {
            type R = <E as Float>::Real;
            let (x, weight, isa) = (x.as_rows::<E>(op)?, weight.as_slice::<R>()?, Isa::current());
            let blocks = out.y.as_mut_slice::<E>()?.chunks_mut(BLOCK * width);
            let rstds = out.rstd.as_mut_slice::<R>()?.chunks_mut(BLOCK);
            parallel::for_each(blocks.zip(rstds), |block, (y, rstd)| {
                simd::run(isa, Forward { x, first: block * BLOCK, y, rstd, weight, eps });
            });
            Ok(())
        })?;
        Ok(out)
    }

    struct Forward<'a, E: Float> {
        x: Rows<'a, E>,
        first: usize,
        y: &'a mut [E],
        rstd: &'a mut [E::Real],
        weight: &'a [E::Real],
        eps: f64,
    }

    impl<E: Float> Kernel<E::Real> for Forward<'_, E> {
        type Output = ();
        #[inline(always)]
        fn run<L: Lanes<Real = E::Real>>(self) {
            let width = self.x.width;
            for (row, (y, rstd)) in self.y.chunks_mut(width).zip(self.rstd).enumerate() {
                let x = self.x.row(self.first + row);
                let mean = simd::sum(x, |x: L| x * x).to_f64() / width as f64;
                *rstd = E::Real::from_f64(1.0 / (mean + self.eps).sqrt());
                let scale = L::splat(*rstd);
                simd::map2(x, self.weight, y, |x: L, weight| x * scale * weight);
            }
        }
    }

    pub(super) fn backward(
        op: &'static str,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        rstd: &Tensor,
    ) -> Result<RmsNormGradients> {
        let (rows, width) = (x.dims()[0], x.dims()[1]);
        let mut dx = Tensor::empty(&[rows, width], dy.dtype(), dy.device())?;
        let [dweight] = for_float!(op, x.dtype(), E => {
            type R = <E as Float>::Real;
            let (dy, x, isa) = (dy.as_rows::<E>(op)?, x.as_rows::<E>(op)?, Isa::current());
            let (weight, rstd) = (weight.as_slice::<R>()?, rstd.as_slice::<R>()?);
            let blocks = dx.as_mut_slice::<E>()?.chunks_mut(BLOCK * width);
            let mut partials = Partials::<R, 1>::new(rows, width)?;
            parallel::for_each(blocks.zip(partials.blocks()?), |block, (dx, dweight)| {
                simd::run(isa, Backward { dy, x, first: block * BLOCK, dx, dweight, weight, rstd });
            });
            partials.sum(isa)
        })?;
        Ok(RmsNormGradients { dx, dweight })
    }

    struct Backward<'a, E: Float> {
        dy: Rows<'a, E>,
        x: Rows<'a, E>,
        first: usize,
        dx: &'a mut [E],
        dweight: &'a mut [E::Real],
        weight: &'a [E::Real],
        rstd: &'a [E::Real],
    }

    impl<E: Float> Kernel<E::Real> for Backward<'_, E> {
        type Output = ();
        #[inline(always)]
        fn run<L: Lanes<Real = E::Real>>(self) {
            let (width, lanes) = (self.x.width, L::LANES);
            let (whole, count) = (width - width % lanes, L::constant(width as f64));
            let (weight, dweight) = (self.weight, self.dweight);
            dweight.fill(E::Real::default());
            for (row, dx) in self.dx.chunks_mut(width).enumerate() {
                let row = self.first + row;
                let (dy, x, scale) = (self.dy.row(row), self.x.row(row), L::splat(self.rstd[row]));
                let vectors = || {
                    let rows = dy.chunks_exact(lanes).zip(x.chunks_exact(lanes));
                    rows.zip(weight.chunks_exact(lanes)).map(|((dy, x), weight)| ([dy, x], weight))
                };
                let rest = || ([&dy[whole..], &x[whole..]], &weight[whole..]);
                let mut sum = L::constant(0.0);
                for ((rows, weight), dweight) in vectors().zip(dweight.chunks_exact_mut(lanes)) {
                    sum = add_gradient::<L, E>(rows, weight, scale, dweight, sum);
                }
                if whole < width {
                    let (rows, weight) = rest();
                    sum = add_gradient::<L, E>(rows, weight, scale, &mut dweight[whole..], sum);
                }
                let mean = L::splat(sum.reduce_add()) / count;
                for ((rows, weight), dx) in vectors().zip(dx.chunks_exact_mut(lanes)) {
                    gradient::<L, E>(rows, weight, [scale, mean], dx);
                }
                if whole < width {
                    let (rows, weight) = rest();
                    gradient::<L, E>(rows, weight, [scale, mean], &mut dx[whole..]);
                }
            }
        }
    }

    // Up to a vector of a row each: functions, not closures, since whole vectors and the rest take them in two places.

    /// Adds to `dweight`, and to the sum of `g x_hat`, which it returns.
    #[inline(always)]
    fn add_gradient<L: Lanes, E: Float<Real = L::Real>>(
        [dy, x]: [&[E]; 2],
        weight: &[L::Real],
        scale: L,
        dweight: &mut [L::Real],
        sum: L,
    ) -> L {
        let zero = L::Real::default();
        // Past the end dy is zero, so these lanes add nothing.
        let (dy, x_hat) = (simd::load::<L, E>(dy, zero), simd::load::<L, E>(x, zero) * scale);
        simd::store(dy.mul_add(x_hat, simd::load(dweight, zero)), dweight);
        (dy * simd::load(weight, zero)).mul_add(x_hat, sum)
    }

    /// `dx = rstd (g - x_hat * mean of g x_hat)`.
    #[inline(always)]
    fn gradient<L: Lanes, E: Float<Real = L::Real>>(
        [dy, x]: [&[E]; 2],
        weight: &[L::Real],
        [scale, mean]: [L; 2],
        dx: &mut [E],
    ) {
        let zero = L::Real::default();
        let g = simd::load::<L, E>(dy, zero) * simd::load(weight, zero);
        simd::store(scale * (g - simd::load::<L, E>(x, zero) * scale * mean), dx);
    }
}

/// On a CUDA device: `kernels/rms_norm.cu`.
mod cuda {
    use super::{RmsNorm, RmsNormGradients};
    use crate::cuda::Context;
    use crate::ops::layer_norm::cuda::{backward_warps, like, partials, statistic};
    use crate::ops::reduce::cuda::add_partials;
    use crate::{Result, Tensor};
    use std::sync::Arc;
    use vitrine_kernels::Launcher as _;
    use vitrine_kernels::rms_norm::{RmsNormBackward, RmsNormForward};

    pub(super) fn forward(
        context: &Arc<Context>,
        op: &'static str,
        x: &Tensor,
        weight: &Tensor,
        eps: f64,
    ) -> Result<RmsNorm> {
        context.computes(op, x)?;
        let mut out = RmsNorm { y: like(x)?, rstd: statistic(x)? };
        context.launch(RmsNormForward {
            x,
            x_stride: x.row_stride(op)? as u64,
            weight: &weight.contiguous()?,
            y: &mut out.y,
            rstd: &mut out.rstd,
            rows: x.dims()[0] as u32,
            width: x.dims()[1] as u32,
            eps: eps as f32,
        })?;
        Ok(out)
    }

    pub(super) fn backward(
        context: &Arc<Context>,
        op: &'static str,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        rstd: &Tensor,
    ) -> Result<RmsNormGradients> {
        context.computes(op, x)?;
        let mut dx = like(x)?;
        let mut partials = partials::<1>(x)?;
        context.launch(RmsNormBackward {
            warps: backward_warps::<1>(x.dims()[1]),
            dy: &dy.contiguous()?,
            x,
            x_stride: x.row_stride(op)? as u64,
            weight: &weight.contiguous()?,
            rstd: &rstd.contiguous()?,
            dx: &mut dx,
            partials: &mut partials,
            rows: x.dims()[0] as u32,
            width: x.dims()[1] as u32,
        })?;
        let mut dweight = Tensor::empty(&weight.dims()[..1], rstd.dtype(), x.device())?;
        add_partials(context, &partials, &mut dweight, None)?;
        Ok(RmsNormGradients { dx, dweight })
    }
}
