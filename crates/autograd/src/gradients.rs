//! What backward returns.

use crate::tape::TapeId;
use crate::{AutogradError, ParameterId, Result, VarId};
use std::collections::{BTreeMap, BTreeSet};
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::elementwise::add;

/// The gradients of one backward pass: of parameters, and of variables that were to be kept.
#[derive(Debug)]
pub struct Gradients {
    tape: TapeId,
    pub(crate) parameters: BTreeMap<ParameterId, Tensor>,
    pub(crate) kept: BTreeMap<VarId, Tensor>,
    /// What backward was told to keep.
    asked: BTreeSet<VarId>,
}

impl Gradients {
    /// None so far, of a backward pass that was told to keep those of these variables.
    pub(crate) fn of_tape(tape: TapeId, asked: &[VarId]) -> Self {
        let asked = asked.iter().copied().collect();
        Gradients { tape, parameters: BTreeMap::new(), kept: BTreeMap::new(), asked }
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

    /// Whether backward was told to keep the gradient of this variable: then [`Gradients::of`] has none only if the variable took no
    /// part in the loss.
    pub fn was_asked_for(&self, id: VarId) -> bool {
        self.asked.contains(&id)
    }

    /// Adds the parameters' gradients of another backward pass: of another part of the same rows. Those that were kept for
    /// variables stay what they are.
    ///
    /// # Errors
    /// Errors of the sum.
    pub fn add(&mut self, other: Gradients) -> Result<()> {
        for (id, gradient) in other.parameters {
            let sum = match self.parameters.remove(&id) {
                None => gradient,
                Some(so_far) => add(&so_far, &gradient)?,
            };
            self.parameters.insert(id, sum);
        }
        Ok(())
    }

    /// Every parameter that has a gradient, with it, in the order of the numbers.
    pub fn parameters(&self) -> impl Iterator<Item = (ParameterId, &Tensor)> {
        self.parameters.iter().map(|(&id, gradient)| (id, gradient))
    }
}
