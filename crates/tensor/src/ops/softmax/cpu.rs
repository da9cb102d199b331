//! Softmax on the CPU: a row is one pass for its maximum, one for its sum, and one for the result.

use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::tensor::Rows;
use crate::{Float, Result, Tensor, for_float};

/// Elements in one piece of parallel work, as whole rows.
const PIECE: usize = 1 << 14;

fn rows_a_piece(width: usize) -> usize {
    (PIECE / width).max(1)
}

pub(super) fn forward(op: &'static str, x: &Tensor, logarithm: bool) -> Result<Tensor> {
    let mut y = Tensor::empty(x.dims(), x.dtype(), x.device())?;
    for_float!(op, x.dtype(), E => {
        let (x, isa) = (x.as_rows::<E>(op)?, Isa::current());
        let width = x.width.max(1);
        let rows = rows_a_piece(width);
        parallel::for_each_chunk_mut(y.as_mut_slice::<E>()?, rows * width, |piece, y| {
            simd::run(isa, Forward { x, first: piece * rows, y, logarithm });
        });
        Ok(())
    })?;
    Ok(y)
}

struct Forward<'a, E: Float> {
    x: Rows<'a, E>,
    first: usize,
    y: &'a mut [E],
    logarithm: bool,
}

impl<E: Float> Kernel<E::Real> for Forward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        for (row, y) in self.y.chunks_mut(self.x.width).enumerate() {
            let x = self.x.row(self.first + row);
            let (max, sum) = max_and_sum::<L, E>(x);
            if self.logarithm {
                let (shift, logarithm) = (L::constant(max), L::constant(sum.ln()));
                simd::map(x, y, |x: L| (x - shift) - logarithm);
            } else {
                exponentials::<L, E>(x, y, max, sum);
            }
        }
    }
}

// The loops with exponentials are written out: a closure as long as `exp` may be compiled on its own, outside of the
// trampoline and so without its instructions.

/// The largest x, and `sum exp(x - max)`.
#[inline(always)]
pub(in crate::ops) fn max_and_sum<L: Lanes, E: Float<Real = L::Real>>(x: &[E]) -> (f64, f64) {
    // Past the end of a row lanes are -inf, whose exponential is 0.
    let lowest = L::Real::from_f64(f64::NEG_INFINITY);
    let max = simd::fold(x, L::splat(lowest), lowest, |max: L, x| x.max(max)).reduce_max();
    let (shift, mut sum) = (L::splat(max), L::constant(0.0));
    for x in x.chunks(L::LANES) {
        sum = sum + (simd::load::<L, E>(x, lowest) - shift).exp();
    }
    (max.to_f64(), sum.reduce_add().to_f64())
}

/// `y = exp(x - max) / sum`. The exponentials are taken anew, for y may not hold them precisely.
#[inline(always)]
pub(in crate::ops) fn exponentials<L: Lanes, E: Float<Real = L::Real>>(
    x: &[E],
    y: &mut [E],
    max: f64,
    sum: f64,
) {
    let (shift, scale) = (L::constant(max), L::constant(1.0 / sum));
    for (x, y) in x.chunks(L::LANES).zip(y.chunks_mut(L::LANES)) {
        simd::store((simd::load::<L, E>(x, E::Real::default()) - shift).exp() * scale, y);
    }
}

pub(super) fn backward(op: &'static str, dy: &Tensor, y: &Tensor, logarithm: bool) -> Result<Tensor> {
    let mut dx = Tensor::empty(y.dims(), y.dtype(), y.device())?;
    for_float!(op, y.dtype(), E => {
        let (dy, y, isa) = (dy.as_rows::<E>(op)?, y.as_rows::<E>(op)?, Isa::current());
        let width = y.width.max(1);
        let rows = rows_a_piece(width);
        parallel::for_each_chunk_mut(dx.as_mut_slice::<E>()?, rows * width, |piece, dx| {
            simd::run(isa, Backward { dy, y, first: piece * rows, dx, logarithm });
        });
        Ok(())
    })?;
    Ok(dx)
}

struct Backward<'a, E: Float> {
    dy: Rows<'a, E>,
    y: Rows<'a, E>,
    first: usize,
    dx: &'a mut [E],
    logarithm: bool,
}

impl<E: Float> Kernel<E::Real> for Backward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        for (row, dx) in self.dx.chunks_mut(self.y.width).enumerate() {
            let (dy, y) = (self.dy.row(self.first + row), self.y.row(self.first + row));
            if self.logarithm {
                let sum = L::splat(simd::sum(dy, |dy: L| dy));
                let zero = E::Real::default();
                let operands = dy.chunks(L::LANES).zip(y.chunks(L::LANES));
                for ((dy, y), dx) in operands.zip(dx.chunks_mut(L::LANES)) {
                    let probability = simd::load::<L, E>(y, zero).exp();
                    simd::store(simd::load::<L, E>(dy, zero) - probability * sum, dx);
                }
            } else {
                let dot = L::splat(simd::sum2(dy, y, |dy: L, y| dy * y));
                simd::map2(dy, y, dx, |dy: L, y| y * (dy - dot));
            }
        }
    }
}
