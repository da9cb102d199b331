//! [`Optimizer`]: how gradients change parameters. Each kind owns its state; parameters know nothing of it.

mod adamw;
mod ema;
pub mod groups;
mod sgd;
mod state;

pub use adamw::AdamW;
pub use ema::Ema;
pub use sgd::Sgd;

use crate::{Result, TrainError};
use std::collections::BTreeMap;
use vitrine_autograd::Gradients;
use vitrine_nn::{Parameter, ParameterStore};
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::adamw::GradNorm;

/// Changes parameters by their gradients.
pub trait Optimizer {
    /// Updates every trainable parameter that has a gradient, in place, and its copy in the compute dtype with it. Gradients
    /// count times the factor of `norm`, which clips them. `step` counts from 0.
    ///
    /// # Errors
    /// Tensor errors; `ParameterInUse` when something still holds a parameter. Then no parameter is changed.
    fn step(
        &mut self,
        parameters: &mut ParameterStore,
        gradients: &Gradients,
        norm: &GradNorm,
        lr: f64,
        step: usize,
    ) -> Result<()>;

    /// The state by name, `KIND.KEY` for each part of a parameter: what a checkpoint of a run has to keep. Parameters that have
    /// not been updated yet have none. The tensors are views: they have to be dropped before the next step.
    ///
    /// # Errors
    /// Tensor errors.
    fn state(&self, parameters: &ParameterStore) -> Result<Vec<(String, Tensor)>>;

    /// Takes over a state that [`Optimizer::state`] gave for a model of these parameters.
    ///
    /// # Errors
    /// `OptimizerState` for a name that is missing, of another shape or dtype, or of no use here; then nothing is changed.
    fn set_state(&mut self, parameters: &ParameterStore, state: BTreeMap<String, Tensor>) -> Result<()>;

    /// Exchanges the weights with those that are to be evaluated and saved, where the optimizer keeps such ([`Ema`]), and says
    /// whether it does; a second call changes them back. Between the two calls there is no step, and no state to save.
    ///
    /// # Errors
    /// Tensor errors.
    fn swap_averages(&mut self, parameters: &mut ParameterStore) -> Result<bool> {
        let _ = parameters;
        Ok(false)
    }
}

/// `ParameterInUse` while a variable, a tape or another tensor holds the values that are to be updated in place.
fn in_use(parameter: &Parameter) -> Result<()> {
    if parameter.value.is_shared() || parameter.compute.as_ref().is_some_and(Tensor::is_shared) {
        return Err(TrainError::ParameterInUse { name: parameter.name() });
    }
    Ok(())
}
