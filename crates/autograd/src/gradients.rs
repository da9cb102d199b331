//! What backward returns.

use crate::{ParameterId, VarId};
use std::collections::BTreeMap;
use vitrine_tensor::Tensor;

/// The gradients of one backward pass: of parameters, and of variables that were to be kept.
#[derive(Debug, Default)]
pub struct Gradients {
    pub(crate) parameters: BTreeMap<ParameterId, Tensor>,
    pub(crate) kept: BTreeMap<VarId, Tensor>,
}

impl Gradients {
    /// The gradient of a parameter: F32 (F64 in the reference), if it took part in the loss and is trainable.
    pub fn parameter(&self, id: ParameterId) -> Option<&Tensor> {
        self.parameters.get(&id)
    }

    /// The gradient of a leaf, or of a variable that backward was told to keep.
    pub fn of(&self, id: VarId) -> Option<&Tensor> {
        self.kept.get(&id)
    }

    /// Every parameter that has a gradient, with it, in the order of the numbers.
    pub fn parameters(&self) -> impl Iterator<Item = (ParameterId, &Tensor)> {
        self.parameters.iter().map(|(&id, gradient)| (id, gradient))
    }
}
