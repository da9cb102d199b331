//! What a tape knows of a parameter: its [`ParameterId`] and the [`Operand`] to compute with.

use vitrine_tensor::Tensor;

/// The number of a parameter in the collection that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParameterId(usize);

impl ParameterId {
    /// The parameter of this number.
    pub fn new(index: usize) -> Self {
        ParameterId(index)
    }

    /// The number.
    pub fn index(self) -> usize {
        self.0
    }
}

/// What a tape computes with in the place of a parameter.
#[derive(Clone, Debug)]
pub struct Operand {
    /// The values, in the dtype to compute in.
    pub value: Tensor,
    /// The same values in a narrower dtype, if they are kept: an operation that needs them so does not round again.
    pub rounded: Option<Tensor>,
    /// Whether a gradient is wanted.
    pub trainable: bool,
}
