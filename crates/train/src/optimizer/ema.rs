//! [`Ema`].

use super::state::State;
use super::{Optimizer, in_use};
use crate::{Result, TrainError};
use std::collections::BTreeMap;
use vitrine_autograd::Gradients;
use vitrine_nn::ParameterStore;
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::adamw::GradNorm;
use vitrine_tensor::ops::elementwise::{add, scale, sub};

/// The kind of its tensors in a state.
const AVERAGE: &str = "average";

/// Another optimizer, and an exponential moving average of the weights that it makes: after each step
/// `a = a + (1 - decay) (p - a)`, and after the first `a = p`. As `torch.optim.swa_utils.AveragedModel` with
/// `get_ema_multi_avg_fn(decay)`, updated after each step (Polyak averaging). It costs a tensor in F32 for each trained
/// parameter, and some passes over memory.
pub struct Ema {
    inner: Box<dyn Optimizer>,
    decay: f64,
    averages: State<1>,
    /// Whether the averages are in the model, and the weights here.
    swapped: bool,
}

impl Ema {
    /// Averages what `inner` does; `decay` is from 0, the weights themselves, to below 1.
    pub fn new(inner: Box<dyn Optimizer>, decay: f64) -> Self {
        Ema { inner, decay, averages: State::new([AVERAGE]), swapped: false }
    }

    fn check_not_swapped(&self) -> Result<()> {
        if !self.swapped {
            return Ok(());
        }
        let why = "the averaged weights are in the model; exchange them with the trained ones first";
        Err(TrainError::OptimizerState { name: AVERAGE.into(), why })
    }
}

impl Optimizer for Ema {
    fn step(
        &mut self,
        parameters: &mut ParameterStore,
        gradients: &Gradients,
        norm: &GradNorm,
        lr: f64,
        step: usize,
    ) -> Result<()> {
        self.check_not_swapped()?;
        self.inner.step(parameters, gradients, norm, lr, step)?;
        let slots = self.averages.slots(parameters.iter().len());
        for ((id, parameter), slot) in parameters.iter().zip(slots) {
            if !parameter.trainable || gradients.parameter(id).is_none() {
                continue;
            }
            let value = &parameter.value;
            let average = match slot.take() {
                // A copy: a tensor that shares the memory would be a parameter in use.
                None => scale(value, 1.0)?,
                Some([average]) => {
                    let average = average.to_device(value.device())?;
                    add(&average, &scale(&sub(value, &average)?, 1.0 - self.decay)?)?
                }
            };
            *slot = Some([average]);
        }
        Ok(())
    }

    fn state(&self, parameters: &ParameterStore) -> Result<Vec<(String, Tensor)>> {
        self.check_not_swapped()?;
        let mut state = self.inner.state(parameters)?;
        state.extend(self.averages.named(parameters)?);
        Ok(state)
    }

    fn set_state(&mut self, parameters: &ParameterStore, state: BTreeMap<String, Tensor>) -> Result<()> {
        self.check_not_swapped()?;
        let is_average = |name: &str| name.strip_prefix(AVERAGE).is_some_and(|rest| rest.starts_with('.'));
        let (own, inner) = state.into_iter().partition(|(name, _)| is_average(name));
        // Its own first, which may be refused, then the other's: nothing is changed by a state that is refused.
        let mut averages = self.averages.clone();
        averages.set(parameters, own)?;
        self.inner.set_state(parameters, inner)?;
        self.averages = averages;
        Ok(())
    }

    fn swap_averages(&mut self, parameters: &mut ParameterStore) -> Result<bool> {
        let slots = self.averages.slots(parameters.iter().len());
        for ((_, parameter), slot) in parameters.iter_mut().zip(slots) {
            let Some([average]) = slot else { continue };
            in_use(parameter)?;
            let copy = match &parameter.compute {
                Some(copy) => Some(average.to_dtype(copy.dtype())?),
                None => None,
            };
            std::mem::swap(&mut parameter.value, average);
            parameter.compute = copy;
        }
        self.swapped = !self.swapped;
        Ok(true)
    }
}
