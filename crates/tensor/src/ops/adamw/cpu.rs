//! AdamW on the CPU: a piece of a parameter, its gradient and its moments in one pass.

use super::{AdamW, Update};
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes, Real};
use crate::{DType, Error, Float, Result, Tensor, for_float};
use half::bf16;

/// Elements in one piece of parallel work: four arrays of 64 KiB each.
const PIECE: usize = 1 << 14;

pub(super) fn update(
    op: &'static str,
    updates: &mut [Update<'_>],
    settings: &AdamW,
    grad_scale: f64,
) -> Result<()> {
    updates.iter_mut().try_for_each(|update| {
        let len = update.param.numel();
        match (update.param.dtype(), update.compute.take()) {
            (DType::F32, Some(compute)) => {
                let copies = compute.as_mut_slice::<bf16>()?.chunks_mut(PIECE).map(Some);
                update_one::<f32, bf16>(update, copies, settings, grad_scale)
            }
            (DType::F32, None) => update_one::<f32, f32>(update, no_copies(len), settings, grad_scale),
            (DType::F64, None) => update_one::<f64, f64>(update, no_copies(len), settings, grad_scale),
            (got, _) => Err(Error::DTypeMismatch { op, expected: "f32 or f64 (the masters)".into(), got }),
        }
    })
}

/// A place for nothing beside each piece of a parameter.
fn no_copies<'a, E: 'a>(len: usize) -> impl ExactSizeIterator<Item = Option<&'a mut [E]>> + Send {
    (0..len.div_ceil(PIECE)).map(|_| None)
}

fn update_one<'a, R: Real, C: Float<Real = R> + 'a>(
    update: &mut Update<'_>,
    copies: impl ExactSizeIterator<Item = Option<&'a mut [C]>> + Send,
    settings: &AdamW,
    grad_scale: f64,
) -> Result<()> {
    let (isa, weight_decay) = (Isa::current(), update.weight_decay);
    let grads = update.grad.as_slice::<R>()?.chunks(PIECE);
    let params = update.param.as_mut_slice::<R>()?.chunks_mut(PIECE);
    let firsts = update.first_moment.as_mut_slice::<R>()?.chunks_mut(PIECE);
    let seconds = update.second_moment.as_mut_slice::<R>()?.chunks_mut(PIECE);
    parallel::for_each(
        params.zip(copies).zip(grads).zip(firsts).zip(seconds),
        |_, ((((p, copy), g), m), v)| {
            simd::run(isa, Pass { p, copy, g, m, v, settings, weight_decay, grad_scale });
        },
    );
    Ok(())
}

struct Pass<'a, 'b, R, C> {
    p: &'a mut [R],
    copy: Option<&'b mut [C]>,
    g: &'a [R],
    m: &'a mut [R],
    v: &'a mut [R],
    settings: &'a AdamW,
    weight_decay: f64,
    grad_scale: f64,
}

impl<R: Real, C: Float<Real = R>> Kernel<R> for Pass<'_, '_, R, C> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = R>>(self) {
        let AdamW { lr, beta1, beta2, eps, step } = *self.settings;
        let correction1 = 1.0 - beta1.powi(step as i32);
        let correction2 = (1.0 - beta2.powi(step as i32)).sqrt();
        let [scale, b1, b2] = [self.grad_scale, beta1, beta2].map(L::constant);
        let [rest1, rest2] = [1.0 - beta1, 1.0 - beta2].map(L::constant);
        let [keep, rate] = [1.0 - lr * self.weight_decay, lr / correction1].map(L::constant);
        let [root_scale, eps] = [1.0 / correction2, eps].map(L::constant);
        let (lanes, zero) = (L::LANES, R::default());
        let state = self.m.chunks_mut(lanes).zip(self.v.chunks_mut(lanes));
        for ((p, g), (m, v)) in self.p.chunks_mut(lanes).zip(self.g.chunks(lanes)).zip(state) {
            let gradient = simd::load::<L, R>(g, zero) * scale;
            let first = b1 * simd::load(m, zero) + rest1 * gradient;
            let second = b2 * simd::load(v, zero) + rest2 * gradient * gradient;
            let step = rate * first / second.sqrt().mul_add(root_scale, eps);
            simd::store(first, m);
            simd::store(second, v);
            simd::store(simd::load::<L, R>(p, zero) * keep - step, p);
        }
        if let Some(copy) = self.copy {
            // The piece is still in the cache.
            simd::map(self.p, copy, |p: L| p);
        }
    }
}

/// `[2]`: the global norm, and the factor that clips it.
pub(super) fn norm(op: &'static str, grads: &[&Tensor], max_norm: Option<f64>) -> Result<Tensor> {
    let mut total = 0.0;
    for grad in grads {
        total += for_float!(op, grad.dtype(), E => {
            let x = grad.as_slice::<E>()?;
            let isa = Isa::current();
            let squares = |range: std::ops::Range<usize>| simd::run(isa, Squares { x: &x[range] }).to_f64();
            Ok(parallel::map_reduce(x.len(), PIECE, squares, |a, b| a + b).unwrap_or(0.0))
        })?;
    }
    let norm = total.sqrt();
    let factor = max_norm.map_or(1.0, |max| (max / (norm + 1e-6)).min(1.0));
    Tensor::from_slice(&[norm, factor], &[2])
}

struct Squares<'a, E> {
    x: &'a [E],
}

impl<E: Float> Kernel<E::Real> for Squares<'_, E> {
    type Output = E::Real;
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) -> E::Real {
        let square = |sum: L, x: L| x.mul_add(x, sum);
        simd::fold(self.x, L::constant(0.0), E::Real::default(), square).reduce_add()
    }
}
