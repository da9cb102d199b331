//! Layers: structs of parameters, made by a [`Builder`](crate::Builder), with a `forward` over
//! [`Var`].
//!
//! A layer holds the ids of its parameters and its settings, no tensors: the [`ParameterStore`] owns these, and a [`Pass`]
//! brings the two together with a tape. Shapes: `T` rows, the tokens of a batch without padding, which lie in the sequences
//! of `offsets`; `C` the hidden width.

mod attention;
mod dropout;
mod embedding;
mod feed_forward;
mod layer_norm;
mod linear;

pub use attention::{Attended, MultiHeadAttention};
pub use dropout::Dropout;
pub use embedding::{Embedding, Embeddings};
pub use feed_forward::FeedForward;
pub use layer_norm::LayerNorm;
pub use linear::Linear;

use crate::ParameterStore;
use vitrine_autograd::{ParameterId, Tape, Var};

/// One forward pass: the tape that it runs on, and the parameters.
#[derive(Clone, Copy)]
pub struct Pass<'a, 't> {
    /// The tape.
    pub tape: &'t Tape,
    /// The parameters that the layers were built with.
    pub parameters: &'a ParameterStore,
}

impl<'t> Pass<'_, 't> {
    /// A parameter on the tape.
    pub fn parameter(&self, id: ParameterId) -> Var<'t> {
        self.tape.parameter(id, self.parameters.get(id).operand())
    }
}
