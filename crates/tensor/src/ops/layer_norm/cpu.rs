//! LayerNorm on the CPU: a row at a time, both passes while it is in cache.

use super::{LayerNorm, LayerNormGradients};
use crate::cpu::isa::{Available, Isa};
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes, Real};
use crate::tensor::Rows;
use crate::{Device, Float, Result, Tensor, for_float};

/// Rows in one piece of parallel work; also the granularity of the partial sums of `dweight` and `dbias`.
pub(in crate::ops) const BLOCK: usize = 32;

pub(super) fn forward(
    op: &'static str,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<LayerNorm> {
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    let statistic = || Tensor::empty(&[rows], x.dtype().accumulator(), x.device());
    let mut out = LayerNorm {
        y: Tensor::empty(&[rows, width], x.dtype(), x.device())?,
        mean: statistic()?,
        rstd: statistic()?,
    };
    for_float!(op, x.dtype(), E => {
        type R = <E as Float>::Real;
        let x = x.as_rows::<E>(op)?;
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
pub(in crate::ops) fn statistics<L: Lanes, E: Float<Real = L::Real>>(
    x: &[E],
    eps: f64,
) -> (L::Real, L::Real) {
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
pub(in crate::ops) fn normalize<L: Lanes, E: Float<Real = L::Real>>(
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

pub(super) fn backward(
    op: &'static str,
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
) -> Result<LayerNormGradients> {
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    let mut dx = Tensor::empty(&[rows, width], dy.dtype(), dy.device())?;
    let [dweight, dbias] = for_float!(op, x.dtype(), E => {
        type R = <E as Float>::Real;
        let (dy, x) = (dy.as_rows::<E>(op)?, x.as_rows::<E>(op)?);
        let (weight, mean, rstd) = (weight.as_slice::<R>()?, mean.as_slice::<R>()?, rstd.as_slice::<R>()?);
        let isa = Isa::current();
        let blocks = dx.as_mut_slice::<E>()?.chunks_mut(BLOCK * width);
        let mut partials = Partials::<R, 2>::new(rows, width)?;
        parallel::for_each(blocks.zip(partials.blocks()?), |block, (dx, sums)| {
            simd::run(isa, Backward { dy, x, first: block * BLOCK, dx, sums, weight, mean, rstd });
        });
        partials.sum(isa)
    })?;
    Ok(LayerNormGradients { dx, dweight, dbias })
}

/// Partial sums of the gradients of `N` parameters, such as `dweight` and `dbias`: `N` rows a block of [`BLOCK`] rows.
pub(in crate::ops) struct Partials<R: Real, const N: usize> {
    sums: Tensor,
    width: usize,
    real: std::marker::PhantomData<R>,
}

impl<R: Real, const N: usize> Partials<R, N> {
    pub(in crate::ops) fn new(rows: usize, width: usize) -> Result<Self> {
        let sums = Tensor::empty(&[rows.div_ceil(BLOCK), N, width], R::DTYPE, Device::Cpu)?;
        Ok(Partials { sums, width, real: std::marker::PhantomData })
    }

    /// The place of each block: one parameter after the other.
    pub(in crate::ops) fn blocks(&mut self) -> Result<std::slice::ChunksMut<'_, R>> {
        Ok(self.sums.as_mut_slice::<R>()?.chunks_mut(N * self.width))
    }

    /// Adds the blocks up, first to last, in parallel over columns.
    pub(in crate::ops) fn sum(self, isa: Available) -> Result<[Tensor; N]> {
        const COLUMNS: usize = 256;
        let partials = self.sums.as_slice::<R>()?;
        let width = self.width;
        let mut total = Tensor::zeros(&[N, width], R::DTYPE, Device::Cpu)?;
        parallel::for_each_chunk_mut(total.as_mut_slice::<R>()?, COLUMNS, |piece, total| {
            for block in partials.chunks(N * width) {
                let x = &block[piece * COLUMNS..][..total.len()];
                simd::run(isa, Add { y: &mut *total, x });
            }
        });
        // Each in storage of its own, as a parameter's gradient is.
        let gradients: Result<Vec<Tensor>> = (0..N).map(|index| total.select(0, index)?.copy()).collect();
        Ok(gradients?.try_into().expect("internal: N gradients"))
    }
}

/// `y += x`.
pub(in crate::ops) struct Add<'a, R> {
    pub(in crate::ops) y: &'a mut [R],
    pub(in crate::ops) x: &'a [R],
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
pub(in crate::ops) fn backward_row<L: Lanes, E: Float<Real = L::Real>>(
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
