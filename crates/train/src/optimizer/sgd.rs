//! [`Sgd`].

use super::Optimizer;
use super::state::State;
use crate::Result;
use std::collections::BTreeMap;
use vitrine_autograd::Gradients;
use vitrine_nn::ParameterStore;
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::adamw::GradNorm;
use vitrine_tensor::ops::elementwise::{add, mul, scale, sub};

/// Stochastic gradient descent with momentum, as `torch.optim.SGD`: with `g` the clipped gradient and `p` the parameter,
/// `g = g + weight_decay p`, `b = momentum b + g`, `p = p - lr b`. Biases and LayerNorm parameters do not decay. A
/// parameter's learning rate is `lr` times its `lr_factor`.
///
/// It is composed of general operations, so it takes a few passes over memory where [`AdamW`](super::AdamW) takes one.
#[derive(Clone, Debug)]
pub struct Sgd {
    /// How much of the last step's direction is kept; 0 keeps no state.
    pub momentum: f64,
    /// L2 penalty, as a part of the gradient.
    pub weight_decay: f64,
    directions: State<1>,
}

impl Sgd {
    /// Without Nesterov's variant and without dampening, which are PyTorch's defaults.
    pub fn new(momentum: f64, weight_decay: f64) -> Self {
        Sgd { momentum, weight_decay, directions: State::new(["momentum"]) }
    }
}

impl Optimizer for Sgd {
    fn step(
        &mut self,
        parameters: &mut ParameterStore,
        gradients: &Gradients,
        norm: &GradNorm,
        lr: f64,
        _: usize,
    ) -> Result<()> {
        let factor = norm.factor()?;
        let slots = self.directions.slots(parameters.iter().len());
        for ((id, parameter), slot) in parameters.iter_mut().zip(slots) {
            let Some(gradient) = gradients.parameter(id).filter(|_| parameter.trainable) else { continue };
            let mut direction = mul(gradient, &factor.to_dtype(gradient.dtype())?)?;
            if parameter.decay && self.weight_decay != 0.0 {
                direction = add(&direction, &scale(&parameter.value, self.weight_decay)?)?;
            }
            if self.momentum != 0.0 {
                let [kept] = State::of(slot, gradient)?;
                *kept = add(&scale(kept, self.momentum)?, &direction)?;
                direction = kept.clone();
            }
            parameter.value = sub(&parameter.value, &scale(&direction, lr * parameter.lr_factor)?)?;
            if let Some(copy) = &mut parameter.compute {
                *copy = parameter.value.to_dtype(copy.dtype())?;
            }
        }
        Ok(())
    }

    fn state(&self, parameters: &ParameterStore) -> Result<Vec<(String, Tensor)>> {
        self.directions.named(parameters)
    }

    fn set_state(&mut self, parameters: &ParameterStore, state: BTreeMap<String, Tensor>) -> Result<()> {
        self.directions.set(parameters, state)
    }
}
