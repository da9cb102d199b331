//! One AdamW update of parameters, in one pass over memory; and the global norm of gradients.
//!
//! With `g` the scaled gradient and `t` the step from 1: `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
//! `p = p (1 - lr wd) - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)`.
//! Source: Loshchilov and Hutter, arXiv 1711.05101; `torch.optim.AdamW`.

mod cpu;
mod cuda;

use super::check;
use crate::cuda::Context;
use crate::{DType, Device, Error, Result, Tensor};

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
/// `ShapeMismatch`, `DTypeMismatch`, `DeviceMismatch`; `SharedStorage` when something else still holds a parameter. Then nothing
/// is changed.
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
        let written = [&*update.param, &*update.first_moment, &*update.second_moment];
        if written.into_iter().chain(update.compute.as_deref()).any(Tensor::is_shared) {
            return Err(Error::SharedStorage { op: OP });
        }
        if update.param.device() != device {
            return Err(Error::DeviceMismatch { op: OP, left: device, right: update.param.device() });
        }
    }
    match device {
        Device::Cpu => cpu::update(OP, updates, settings, norm.values.select(0, 1)?.item()?),
        Device::Cuda(ordinal) => cuda::update(&Context::get(ordinal)?, OP, updates, settings, &norm.values),
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
        const OP: &str = "global_norm";
        let device = grads.first().map_or(Device::Cpu, |first| first.device());
        grads.iter().try_for_each(|grad| check::device(OP, grads[0], grad))?;
        let values = match device {
            Device::Cpu => cpu::norm(OP, grads, max_norm),
            Device::Cuda(ordinal) => cuda::norm(&Context::get(ordinal)?, OP, grads, max_norm),
        }?;
        Ok(GradNorm { values })
    }

    /// A factor that was decided before.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn fixed(factor: f64, device: Device) -> Result<Self> {
        let values = Tensor::from_slice(&[f64::NAN, factor], &[2])?;
        let dtype = match device {
            Device::Cpu => DType::F64,
            Device::Cuda(_) => DType::F32,
        };
        Ok(GradNorm { values: values.to_dtype(dtype)?.to_device(device)? })
    }

    /// The same in the host's memory. On a CUDA device this waits for it; reading it afterwards does not.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn fetched(&self) -> Result<Self> {
        Ok(GradNorm { values: self.values.to_device(Device::Cpu)? })
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
}
