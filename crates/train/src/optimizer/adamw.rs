//! [`AdamW`].

use super::state::State;
use super::{Optimizer, in_use};
use crate::Result;
use std::collections::BTreeMap;
use vitrine_autograd::Gradients;
use vitrine_nn::ParameterStore;
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::adamw::{AdamW as Settings, GradNorm, Update, adamw_step};

/// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101) and bias correction, as
/// `torch.optim.AdamW`. Biases and LayerNorm parameters do not decay. A parameter's learning rate is `lr` times its `lr_factor`. Clipping, decay, both moments, the update and the rounding
/// of copies are one pass over memory.
#[derive(Clone, Debug)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, per unit of learning rate.
    pub weight_decay: f64,
    moments: State<2>,
}

impl AdamW {
    /// The Hugging Face Trainer's settings, but for the decay given.
    pub fn new(weight_decay: f64) -> Self {
        let moments = State::new(["first_moment", "second_moment"]);
        AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay, moments }
    }
}

impl Optimizer for AdamW {
    fn step(
        &mut self,
        parameters: &mut ParameterStore,
        gradients: &Gradients,
        norm: &GradNorm,
        lr: f64,
        step: usize,
    ) -> Result<()> {
        // One pass for all parameters of the same learning rate: one in all, without layer-wise decay.
        let mut groups: Vec<(f64, Vec<Update<'_>>)> = Vec::new();
        let slots = self.moments.slots(parameters.iter().len());
        for ((id, parameter), slot) in parameters.iter_mut().zip(slots) {
            let Some(grad) = gradients.parameter(id).filter(|_| parameter.trainable) else { continue };
            in_use(parameter)?;
            let [first_moment, second_moment] = State::of(slot, grad)?;
            let weight_decay = if parameter.decay { self.weight_decay } else { 0.0 };
            let (param, compute) = (&mut parameter.value, parameter.compute.as_mut());
            let update = Update { param, compute, grad, first_moment, second_moment, weight_decay };
            match groups.iter_mut().find(|(factor, _)| *factor == parameter.lr_factor) {
                Some((_, updates)) => updates.push(update),
                None => groups.push((parameter.lr_factor, vec![update])),
            }
        }
        let AdamW { beta1, beta2, eps, .. } = *self;
        for (factor, mut updates) in groups {
            let settings = Settings { lr: factor * lr, beta1, beta2, eps, step: step as u32 + 1 };
            adamw_step(&mut updates, &settings, norm)?;
        }
        Ok(())
    }

    fn state(&self, parameters: &ParameterStore) -> Result<Vec<(String, Tensor)>> {
        self.moments.named(parameters)
    }

    fn set_state(&mut self, parameters: &ParameterStore, state: BTreeMap<String, Tensor>) -> Result<()> {
        self.moments.set(parameters, state)
    }
}
