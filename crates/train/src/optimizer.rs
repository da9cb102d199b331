//! AdamW over a [`ParameterStore`], with the gradient clipped by its global norm.

use crate::Result;
use vitrine_autograd::{Gradients, ParameterStore};
use vitrine_tensor::ops::adamw::{AdamW as Update, adamw_step};
use vitrine_tensor::{Device, Tensor};

/// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101) and bias correction, as
/// `torch.optim.AdamW`. Biases and LayerNorm parameters do not decay. Moments live in the parameters.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, per unit of learning rate.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; none leaves it as it is.
    pub max_grad_norm: Option<f64>,
}

impl AdamW {
    /// The Hugging Face Trainer's settings, but for the decay and the clipping given.
    pub fn new(weight_decay: f64, max_grad_norm: Option<f64>) -> Self {
        AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay, max_grad_norm }
    }

    /// Updates every trainable parameter, and its copy in the compute dtype with it. `step` counts from 0; `grad_norm` is the gradient's global norm.
    ///
    /// The gradient is multiplied by `max_grad_norm / (grad_norm + 1e-6)` where that is below 1
    /// (`torch.nn.utils.clip_grad_norm_`), inside the update's own pass over memory.
    ///
    /// # Errors
    /// A trainable parameter without a gradient, named; tensor errors.
    pub fn step(
        &self,
        parameters: &mut ParameterStore,
        gradients: &Gradients,
        step: usize,
        lr: f64,
        grad_norm: f64,
    ) -> Result<()> {
        gradients.audit(parameters)?;
        let clip = self.max_grad_norm.map_or(1.0, |max| (max / (grad_norm + 1e-6)).min(1.0));
        for (id, parameter) in parameters.iter_mut() {
            let Some(gradient) = gradients.parameter(id).filter(|_| parameter.trainable) else { continue };
            let update = Update {
                lr,
                beta1: self.beta1,
                beta2: self.beta2,
                eps: self.eps,
                weight_decay: if parameter.decay { self.weight_decay } else { 0.0 },
                step: step as u32 + 1,
            };
            let zeros = || Tensor::zeros(gradient.dims(), gradient.dtype(), Device::Cpu);
            let mut first = parameter.first_moment.take().map_or_else(zeros, Ok)?;
            let mut second = parameter.second_moment.take().map_or_else(zeros, Ok)?;
            let compute = parameter.compute.as_mut();
            adamw_step(&mut parameter.value, compute, gradient, &mut first, &mut second, &update, clip)?;
            parameter.first_moment = Some(first);
            parameter.second_moment = Some(second);
        }
        Ok(())
    }
}
