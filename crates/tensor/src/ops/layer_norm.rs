//! Layer normalisation: `y = (x - mean) * rstd * weight + bias` over the last dimension.
//!
//! `mean = sum(x) / C`, `rstd = 1 / sqrt(sum((x - mean)^2) / C + eps)`: the variance in a second pass over the row, which
//! is in cache, because `E[x^2] - E[x]^2` cancels catastrophically (with BERT's eps of 1e-12, to NaN).
//! Backward, with `x_hat = (x - mean) * rstd` and `g = dy * weight`:
//! `dx = rstd * (g - mean(g) - x_hat * mean(g * x_hat))`, `dweight = sum_rows(dy * x_hat)`, `dbias = sum_rows(dy)`.
//! Source: Ba, Kiros and Hinton, arXiv 1607.06450; `torch.nn.functional.layer_norm`.

use super::check;
use crate::cpu::isa::{Available, Isa};
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes, Real};
use crate::tensor::Rows;
use crate::{Device, Error, Float, Result, Tensor, cuda, for_float};

/// Rows in one piece of parallel work; also the granularity of the partial sums of `dweight` and `dbias`.
pub(super) const BLOCK: usize = 32;

/// What [`layer_norm`] returns; backward needs the statistics.
#[derive(Debug)]
pub struct LayerNorm {
    /// `[T, C]`, dtype of x.
    pub y: Tensor,
    /// `[T]`, accumulator dtype.
    pub mean: Tensor,
    /// `[T]`: one over the standard deviation, accumulator dtype.
    pub rstd: Tensor,
}

/// What [`layer_norm_backward`] returns.
#[derive(Debug)]
pub struct LayerNormGradients {
    /// `[T, C]`, dtype of dy.
    pub dx: Tensor,
    /// `[C]`, accumulator dtype.
    pub dweight: Tensor,
    /// `[C]`, accumulator dtype.
    pub dbias: Tensor,
}

/// Normalises the rows of `x: [T, C]` (rows may be strided); `weight` and `bias: [C]` in the accumulator's dtype.
///
/// # Errors
/// `ShapeMismatch`, `DTypeMismatch`, `NotContiguous`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<LayerNorm> {
    const OP: &str = "layer_norm";
    let (rows, width) = check::matrix(OP, "x [T, C]", x)?;
    check_parameters(OP, x, width, [weight, bias])?;
    if x.device() != Device::Cpu {
        return cuda::layer_norm(x, weight, bias, eps);
    }
    let statistic = || Tensor::empty(&[rows], x.dtype().accumulator(), x.device());
    let mut out = LayerNorm {
        y: Tensor::empty(&[rows, width], x.dtype(), x.device())?,
        mean: statistic()?,
        rstd: statistic()?,
    };
    for_float!(OP, x.dtype(), E => {
        type R = <E as Float>::Real;
        let x = x.as_rows::<E>(OP)?;
        let (weight, bias) = (weight.as_slice::<R>()?, bias.as_slice::<R>()?);
        let isa = Isa::current();
        let blocks = out.y.as_mut_slice::<E>()?.chunks_mut(BLOCK * width);
        let means = out.mean.as_mut_slice::<R>()?.chunks_mut(BLOCK);
        let rstds = out.rstd.as_mut_slice::<R>()?.chunks_mut(BLOCK);
        parallel::for_each(blocks.zip(means).zip(rstds), |block, ((y, mean), rstd)| {
            let first = block * BLOCK;
            simd::run(isa, Forward { x, first, y, mean, rstd, weight, bias, eps });
        });
        Ok(())
    })?;
    Ok(out)
}

pub(super) fn check_parameters(
    op: &'static str,
    x: &Tensor,
    width: usize,
    parameters: [&Tensor; 2],
) -> Result<()> {
    if width == 0 {
        let got = x.dims().to_vec();
        return Err(Error::ShapeMismatch { op, expected: "at least one channel".into(), got });
    }
    for (parameter, what) in parameters.into_iter().zip(["weight", "bias"]) {
        check::shape(op, what, parameter, &[width])?;
        check::dtype(op, parameter, x.dtype().accumulator())?;
        check::device(op, x, parameter)?;
    }
    Ok(())
}

pub(super) fn check_statistics(op: &'static str, x: &Tensor, statistics: [&Tensor; 2]) -> Result<()> {
    for (statistic, what) in statistics.into_iter().zip(["mean", "rstd"]) {
        check::shape(op, what, statistic, &x.dims()[..1])?;
        check::dtype(op, statistic, x.dtype().accumulator())?;
        check::device(op, x, statistic)?;
    }
    Ok(())
}

struct Forward<'a, E: Float> {
    x: Rows<'a, E>,
    first: usize,
    y: &'a mut [E],
    mean: &'a mut [E::Real],
    rstd: &'a mut [E::Real],
    weight: &'a [E::Real],
    bias: &'a [E::Real],
    eps: f64,
}

impl<E: Float> Kernel<E::Real> for Forward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        let width = self.x.width;
        for (row, y) in self.y.chunks_mut(width).enumerate() {
            let x = self.x.row(self.first + row);
            let (mean, rstd) = statistics::<L, E>(x, self.eps);
            (self.mean[row], self.rstd[row]) = (mean, rstd);
            normalize::<L, E>(x, y, mean, rstd, self.weight, self.bias);
        }
    }
}

/// Mean and rstd of one row, in two passes.
#[inline(always)]
pub(super) fn statistics<L: Lanes, E: Float<Real = L::Real>>(x: &[E], eps: f64) -> (L::Real, L::Real) {
    let count = x.len() as f64;
    let mean = L::Real::from_f64(simd::sum(x, |x: L| x).to_f64() / count);
    let centre = L::splat(mean);
    let squares = simd::sum(x, |x: L| (x - centre) * (x - centre)).to_f64();
    (mean, L::Real::from_f64(1.0 / (squares / count + eps).sqrt()))
}

/// The statistics of a row, in every lane. Its methods take up to a vector of a row each: functions, not closures, since
/// loops over whole vectors and their tails call them in two places.
#[derive(Clone, Copy)]
struct Statistics<L> {
    mean: L,
    rstd: L,
}

impl<L: Lanes> Statistics<L> {
    #[inline(always)]
    fn new(mean: L::Real, rstd: L::Real) -> Self {
        Statistics { mean: L::splat(mean), rstd: L::splat(rstd) }
    }

    /// `(x - mean) * rstd`.
    #[inline(always)]
    fn x_hat<E: Float<Real = L::Real>>(self, x: &[E]) -> L {
        (simd::load::<L, E>(x, L::Real::default()) - self.mean) * self.rstd
    }

    #[inline(always)]
    fn normalize<E: Float<Real = L::Real>>(self, x: &[E], weight: &[L::Real], bias: &[L::Real], y: &mut [E]) {
        let zero = L::Real::default();
        simd::store(self.x_hat(x).mul_add(simd::load(weight, zero), simd::load(bias, zero)), y);
    }

    /// Adds to `dweight`, `dbias` and the sums of `g = dy * weight` and of `g x_hat`.
    #[inline(always)]
    fn add_gradients<E: Float<Real = L::Real>>(
        self,
        [dy, x]: [&[E]; 2],
        weight: &[L::Real],
        [dweight, dbias]: [&mut [L::Real]; 2],
        [sum_g, sum_gx]: &mut [L; 2],
    ) {
        let zero = L::Real::default();
        // Past the end dy is zero, so these lanes add nothing.
        let (dy, x_hat) = (simd::load::<L, E>(dy, zero), self.x_hat(x));
        let g = dy * simd::load(weight, zero);
        *sum_g = *sum_g + g;
        *sum_gx = g.mul_add(x_hat, *sum_gx);
        simd::store(dy.mul_add(x_hat, simd::load(dweight, zero)), dweight);
        simd::store(simd::load::<L, L::Real>(dbias, zero) + dy, dbias);
    }

    /// `dx = rstd (g - mean of g - x_hat * mean of g x_hat)`.
    #[inline(always)]
    fn gradient<E: Float<Real = L::Real>>(
        self,
        [dy, x]: [&[E]; 2],
        weight: &[L::Real],
        [mean_g, mean_gx]: [L; 2],
        dx: &mut [E],
    ) {
        let zero = L::Real::default();
        let g = simd::load::<L, E>(dy, zero) * simd::load(weight, zero);
        simd::store(self.rstd * (g - mean_g - self.x_hat(x) * mean_gx), dx);
    }
}

/// `y = (x - mean) * rstd * weight + bias` for one row.
#[inline(always)]
pub(super) fn normalize<L: Lanes, E: Float<Real = L::Real>>(
    x: &[E],
    y: &mut [E],
    mean: L::Real,
    rstd: L::Real,
    weight: &[L::Real],
    bias: &[L::Real],
) {
    let (width, lanes) = (y.len(), L::LANES);
    assert!(x.len() == width && weight.len() == width && bias.len() == width);
    let statistics = Statistics::<L>::new(mean, rstd);
    let parameters = weight.chunks_exact(lanes).zip(bias.chunks_exact(lanes));
    let rows = x.chunks_exact(lanes).zip(y.chunks_exact_mut(lanes));
    for ((x, y), (weight, bias)) in rows.zip(parameters) {
        statistics.normalize(x, weight, bias, y);
    }
    let whole = width - width % lanes;
    if whole < width {
        statistics.normalize(&x[whole..], &weight[whole..], &bias[whole..], &mut y[whole..]);
    }
}

/// Gradients of [`layer_norm`]. `dy` and `x: [T, C]` (rows of x may be strided).
///
/// # Errors
/// `ShapeMismatch`, `DTypeMismatch`, `NotContiguous`.
pub fn layer_norm_backward(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
) -> Result<LayerNormGradients> {
    const OP: &str = "layer_norm_backward";
    let (rows, width) = check::matrix(OP, "x [T, C]", x)?;
    check::shape(OP, "dy", dy, &[rows, width])?;
    check::same_type(OP, x, dy)?;
    check_parameters(OP, x, width, [weight, weight])?;
    check_statistics(OP, x, [mean, rstd])?;
    if x.device() != Device::Cpu {
        return cuda::layer_norm_backward(dy, x, weight, mean, rstd);
    }
    let mut dx = Tensor::empty(&[rows, width], dy.dtype(), dy.device())?;
    let (dweight, dbias) = for_float!(OP, x.dtype(), E => {
        type R = <E as Float>::Real;
        let (dy, x) = (dy.as_rows::<E>(OP)?, x.as_rows::<E>(OP)?);
        let (weight, mean, rstd) = (weight.as_slice::<R>()?, mean.as_slice::<R>()?, rstd.as_slice::<R>()?);
        let isa = Isa::current();
        let blocks = dx.as_mut_slice::<E>()?.chunks_mut(BLOCK * width);
        let mut partials = Partials::<R>::new(rows, width)?;
        parallel::for_each(blocks.zip(partials.blocks()?), |block, (dx, sums)| {
            simd::run(isa, Backward { dy, x, first: block * BLOCK, dx, sums, weight, mean, rstd });
        });
        partials.sum(isa)
    })?;
    Ok(LayerNormGradients { dx, dweight, dbias })
}

/// Partial sums of `dweight` and `dbias`, one pair of rows a block of [`BLOCK`] rows.
pub(super) struct Partials<R: Real> {
    sums: Tensor,
    width: usize,
    real: std::marker::PhantomData<R>,
}

impl<R: Real> Partials<R> {
    pub(super) fn new(rows: usize, width: usize) -> Result<Self> {
        let sums = Tensor::empty(&[rows.div_ceil(BLOCK), 2, width], R::DTYPE, Device::Cpu)?;
        Ok(Partials { sums, width, real: std::marker::PhantomData })
    }

    /// The place of each block: `dweight`, then `dbias`.
    pub(super) fn blocks(&mut self) -> Result<std::slice::ChunksMut<'_, R>> {
        Ok(self.sums.as_mut_slice::<R>()?.chunks_mut(2 * self.width))
    }

    /// Adds the blocks up, first to last, in parallel over columns.
    pub(super) fn sum(self, isa: Available) -> Result<(Tensor, Tensor)> {
        const COLUMNS: usize = 256;
        let partials = self.sums.as_slice::<R>()?;
        let width = self.width;
        let mut total = Tensor::zeros(&[2, width], R::DTYPE, Device::Cpu)?;
        parallel::for_each_chunk_mut(total.as_mut_slice::<R>()?, COLUMNS, |piece, total| {
            for block in partials.chunks(2 * width) {
                let x = &block[piece * COLUMNS..][..total.len()];
                simd::run(isa, Add { y: &mut *total, x });
            }
        });
        // Each in storage of its own, as a parameter's gradient is.
        Ok((total.select(0, 0)?.copy()?, total.select(0, 1)?.copy()?))
    }
}

/// `y += x`.
pub(super) struct Add<'a, R> {
    pub(super) y: &'a mut [R],
    pub(super) x: &'a [R],
}

impl<R: Real> Kernel<R> for Add<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = R>>(self) {
        simd::update(self.y, self.x, |y: L, x| y + x);
    }
}

struct Backward<'a, E: Float> {
    dy: Rows<'a, E>,
    x: Rows<'a, E>,
    first: usize,
    dx: &'a mut [E],
    sums: &'a mut [E::Real],
    weight: &'a [E::Real],
    mean: &'a [E::Real],
    rstd: &'a [E::Real],
}

impl<E: Float> Kernel<E::Real> for Backward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        let width = self.x.width;
        let (dweight, dbias) = self.sums.split_at_mut(width);
        dweight.fill(E::Real::default());
        dbias.fill(E::Real::default());
        for (row, dx) in self.dx.chunks_mut(width).enumerate() {
            let row = self.first + row;
            let (dy, x) = (self.dy.row(row), self.x.row(row));
            backward_row::<L, E>(dy, x, self.weight, self.mean[row], self.rstd[row], dx, dweight, dbias);
        }
    }
}

/// One row of the gradient; adds into `dweight` and `dbias`.
#[inline(always)]
pub(super) fn backward_row<L: Lanes, E: Float<Real = L::Real>>(
    dy: &[E],
    x: &[E],
    weight: &[L::Real],
    mean: L::Real,
    rstd: L::Real,
    dx: &mut [E],
    dweight: &mut [L::Real],
    dbias: &mut [L::Real],
) {
    let (width, lanes) = (dx.len(), L::LANES);
    assert!(dy.len() == width && x.len() == width && weight.len() == width);
    assert!(dweight.len() == width && dbias.len() == width);
    let statistics = Statistics::<L>::new(mean, rstd);
    let whole = width - width % lanes;
    let mut sums = [L::constant(0.0); 2];
    let operands = dy.chunks_exact(lanes).zip(x.chunks_exact(lanes)).zip(weight.chunks_exact(lanes));
    let targets = dweight.chunks_exact_mut(lanes).zip(dbias.chunks_exact_mut(lanes));
    for (((dy, x), weight), (dweight, dbias)) in operands.zip(targets) {
        statistics.add_gradients([dy, x], weight, [dweight, dbias], &mut sums);
    }
    if whole < width {
        let targets = [&mut dweight[whole..], &mut dbias[whole..]];
        statistics.add_gradients([&dy[whole..], &x[whole..]], &weight[whole..], targets, &mut sums);
    }
    let count = L::constant(width as f64);
    let means = sums.map(|sum| L::splat(sum.reduce_add()) / count);
    let operands = dy.chunks_exact(lanes).zip(x.chunks_exact(lanes)).zip(weight.chunks_exact(lanes));
    for (((dy, x), weight), dx) in operands.zip(dx.chunks_exact_mut(lanes)) {
        statistics.gradient([dy, x], weight, means, dx);
    }
    if whole < width {
        statistics.gradient([&dy[whole..], &x[whole..]], &weight[whole..], means, &mut dx[whole..]);
    }
}
