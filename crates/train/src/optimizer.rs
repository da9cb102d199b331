//! AdamW over a [`ParameterStore`], with the gradient clipped by its global norm.

use crate::{Result, TrainError};
use vitrine_autograd::{Gradients, Parameter, ParameterStore};
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::adamw::{AdamW as Settings, GradNorm, Update, adamw_step};

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

    /// Updates every trainable parameter, and its copy in the compute dtype with it; returns the gradient's global norm, which
    /// on a CUDA device is not waited for. `step` counts from 0.
    ///
    /// The gradient is multiplied by `max_grad_norm / (norm + 1e-6)` where that is below 1
    /// (`torch.nn.utils.clip_grad_norm_`), inside the update's own pass over memory.
    ///
    /// # Errors
    /// A trainable parameter without a gradient, named; `ParameterInUse`; tensor errors. Then no parameter is changed.
    pub fn step(
        &self,
        parameters: &mut ParameterStore,
        gradients: &Gradients,
        step: usize,
        lr: f64,
    ) -> Result<GradNorm> {
        gradients.audit(parameters)?;
        let norm = gradients.norm(self.max_grad_norm)?;
        let mut updates = Vec::new();
        for (id, parameter) in parameters.iter_mut() {
            let Some(grad) = gradients.parameter(id).filter(|_| parameter.trainable) else { continue };
            let name = parameter.name();
            let Parameter { value: param, compute, first_moment, second_moment, decay, .. } = parameter;
            for moment in [&mut *first_moment, &mut *second_moment] {
                if moment.is_none() {
                    *moment = Some(Tensor::zeros(grad.dims(), grad.dtype(), grad.device())?);
                }
            }
            if param.is_shared() || compute.as_ref().is_some_and(Tensor::is_shared) {
                return Err(TrainError::ParameterInUse { name });
            }
            let (Some(first_moment), Some(second_moment)) = (first_moment, second_moment) else { continue };
            let weight_decay = if *decay { self.weight_decay } else { 0.0 };
            let compute = compute.as_mut();
            updates.push(Update { param, compute, grad, first_moment, second_moment, weight_decay });
        }
        let settings =
            Settings { lr, beta1: self.beta1, beta2: self.beta2, eps: self.eps, step: step as u32 + 1 };
        adamw_step(&mut updates, &settings, &norm)?;
        Ok(norm)
    }
}
