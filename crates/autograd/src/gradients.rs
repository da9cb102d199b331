//! What backward returns.

use crate::tape::TapeId;
use crate::{AutogradError, ParameterId, ParameterStore, Result, VarId};
use std::collections::BTreeMap;
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::adamw::GradNorm;

/// The gradients of one backward pass: of parameters, and of variables that were to be kept.
#[derive(Debug)]
pub struct Gradients {
    tape: TapeId,
    pub(crate) parameters: BTreeMap<ParameterId, Tensor>,
    pub(crate) kept: BTreeMap<VarId, Tensor>,
}

impl Gradients {
    /// None so far.
    pub(crate) fn of_tape(tape: TapeId) -> Self {
        Gradients { tape, parameters: BTreeMap::new(), kept: BTreeMap::new() }
    }

    /// The gradient of a parameter: F32 (F64 in the reference), if it took part in the loss and is trainable.
    pub fn parameter(&self, id: ParameterId) -> Option<&Tensor> {
        self.parameters.get(&id)
    }

    /// The gradient of a leaf, or of a variable that backward was told to keep; none where it took no part in the loss.
    ///
    /// # Errors
    /// `OtherTape` for a variable of another tape than the one that made these gradients.
    pub fn of(&self, id: VarId) -> Result<Option<&Tensor>> {
        if id.tape != self.tape {
            return Err(AutogradError::OtherTape { op: "Gradients::of" });
        }
        Ok(self.kept.get(&id))
    }

    /// The Euclidean norm over all parameters' gradients together, and the factor that clips it to `max_norm`.
    ///
    /// # Errors
    /// Tensor errors.
    pub fn norm(&self, max_norm: Option<f64>) -> Result<GradNorm> {
        Ok(GradNorm::of(&self.parameters.values().collect::<Vec<_>>(), max_norm)?)
    }

    /// Checks that every trainable parameter has a gradient: a forgotten one would silently stay as it was initialised.
    ///
    /// # Errors
    /// `MissingGradient` with all that have none.
    pub fn audit(&self, store: &ParameterStore) -> Result<()> {
        let missing = |(id, parameter): &(ParameterId, &crate::Parameter)| {
            parameter.trainable && !self.parameters.contains_key(id)
        };
        let keys: Vec<String> = store.iter().filter(missing).map(|(_, parameter)| parameter.name()).collect();
        if keys.is_empty() { Ok(()) } else { Err(AutogradError::MissingGradient { keys }) }
    }
}
