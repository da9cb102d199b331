//! One AdamW update of parameters, in one pass over memory; and the global norm of gradients.
//!
//! With `g` the scaled gradient and `t` the step from 1: `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
//! `p = p (1 - lr wd) - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)`.
//! Source: Loshchilov and Hutter, arXiv 1711.05101; `torch.optim.AdamW`.

use super::check;
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes, Real};
use crate::{DType, Device, Error, Float, Result, Tensor, cuda, for_float};
use half::bf16;

/// Elements in one piece of parallel work: four arrays of 64 KiB each.
const PIECE: usize = 1 << 14;

/// The settings of one update.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The step, from 1.
    pub step: u32,
}

/// One parameter of an update.
#[derive(Debug)]
pub struct Update<'a> {
    /// The parameter, changed in place: F32, or F64 in the reference.
    pub param: &'a mut Tensor,
    /// A BF16 copy of an F32 parameter that is refreshed in the same pass.
    pub compute: Option<&'a mut Tensor>,
    /// The gradient, of the parameter's dtype.
    pub grad: &'a Tensor,
    /// The mean of gradients, changed in place.
    pub first_moment: &'a mut Tensor,
    /// The mean of their squares, changed in place.
    pub second_moment: &'a mut Tensor,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// Updates parameters and their moments in place from gradients times the factor of `norm`. On a CUDA device it is one launch
/// for all.
///
/// # Errors
/// `ShapeMismatch`, `DTypeMismatch`, `DeviceMismatch`; `SharedStorage` when something else still holds a parameter.
pub fn adamw_step(updates: &mut [Update<'_>], settings: &AdamW, norm: &GradNorm) -> Result<()> {
    const OP: &str = "adamw_step";
    let Some(device) = updates.first().map(|update| update.param.device()) else { return Ok(()) };
    if norm.values.device() != device {
        return Err(Error::DeviceMismatch { op: OP, left: device, right: norm.values.device() });
    }
    for update in updates.iter() {
        for tensor in [update.grad, &*update.first_moment, &*update.second_moment] {
            check::shape(OP, "parameter, gradient and moments", tensor, update.param.dims())?;
            check::same_type(OP, update.param, tensor)?;
        }
        if let Some(compute) = &update.compute {
            check::shape(OP, "compute", compute, update.param.dims())?;
            check::dtype(OP, compute, DType::BF16)?;
            check::device(OP, update.param, compute)?;
        }
        if update.param.device() != device {
            return Err(Error::DeviceMismatch { op: OP, left: device, right: update.param.device() });
        }
    }
    if device != Device::Cpu {
        return cuda::adamw_step(updates, settings, norm.values());
    }
    let grad_scale = norm.values.select(0, 1)?.item()?;
    updates.iter_mut().try_for_each(|update| {
        let len = update.param.numel();
        match (update.param.dtype(), update.compute.take()) {
            (DType::F32, Some(compute)) => {
                let copies = compute.as_mut_slice::<bf16>()?.chunks_mut(PIECE).map(Some);
                update_one::<f32, bf16>(update, copies, settings, grad_scale)
            }
            (DType::F32, None) => update_one::<f32, f32>(update, no_copies(len), settings, grad_scale),
            (DType::F64, None) => update_one::<f64, f64>(update, no_copies(len), settings, grad_scale),
            (got, _) => {
                Err(Error::DTypeMismatch { op: OP, expected: "f32 or f64 (the masters)".into(), got })
            }
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

/// The global norm of gradients, and the factor that clips them to a largest norm. It stays on the gradients' device, so that an
/// update can follow without waiting for it.
#[derive(Clone, Debug)]
pub struct GradNorm {
    /// `[2]`: the norm and the factor. F64, or F32 on a CUDA device.
    values: Tensor,
}

impl GradNorm {
    /// `sqrt(sum of squares)` over all elements of all gradients, added up in a fixed order, pieces in f64; the factor is
    /// `min(1, max_norm / (norm + 1e-6))` (`torch.nn.utils.clip_grad_norm_`), or 1 without a largest norm.
    ///
    /// # Errors
    /// `DTypeMismatch`, `NotContiguous`, `DeviceMismatch`.
    pub fn of(grads: &[&Tensor], max_norm: Option<f64>) -> Result<Self> {
        if let Some(first) = grads.first().filter(|grad| grad.device() != Device::Cpu) {
            grads.iter().try_for_each(|grad| check::device("global_norm", first, grad))?;
            return Ok(GradNorm { values: cuda::grad_norm(grads, max_norm)? });
        }
        let mut total = 0.0;
        for grad in grads {
            total += for_float!("global_norm", grad.dtype(), E => {
                let x = grad.as_slice::<E>()?;
                let isa = Isa::current();
                let squares = |range: std::ops::Range<usize>| simd::run(isa, Squares { x: &x[range] }).to_f64();
                Ok(parallel::map_reduce(x.len(), PIECE, squares, |a, b| a + b).unwrap_or(0.0))
            })?;
        }
        let norm = total.sqrt();
        let factor = max_norm.map_or(1.0, |max| (max / (norm + 1e-6)).min(1.0));
        Ok(GradNorm { values: Tensor::from_slice(&[norm, factor], &[2])? })
    }

    /// A factor that was decided before.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn fixed(factor: f64, device: Device) -> Result<Self> {
        let values = Tensor::from_slice(&[f64::NAN, factor], &[2])?;
        let dtype = if device == Device::Cpu { DType::F64 } else { DType::F32 };
        Ok(GradNorm { values: values.to_dtype(dtype)?.to_device(device)? })
    }

    /// The norm. On a CUDA device this waits for it.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn norm(&self) -> Result<f64> {
        self.values.select(0, 0)?.item()
    }

    /// The factor, a scalar on the device of the gradients.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn factor(&self) -> Result<Tensor> {
        self.values.select(0, 1)
    }

    /// `[2]`, for the update.
    pub(crate) fn values(&self) -> &Tensor {
        &self.values
    }
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
