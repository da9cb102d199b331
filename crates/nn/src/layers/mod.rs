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

pub use attention::MultiHeadAttention;
pub use dropout::Dropout;
pub use embedding::{Embedding, Embeddings};
pub use feed_forward::FeedForward;
pub use layer_norm::LayerNorm;
pub use linear::Linear;

use crate::{LayerPoint, ParameterStore, Point, Result, Taps};
use vitrine_autograd::{ParameterId, Tape, Var};

/// One forward pass: the tape that it runs on, and the parameters.
#[derive(Clone, Copy)]
pub struct Pass<'a, 't> {
    /// The tape.
    pub tape: &'t Tape,
    /// The parameters that the layers were built with.
    pub parameters: &'a ParameterStore,
    /// None where nothing is tapped.
    taps: Option<&'a Taps>,
    /// The layer that computes.
    layer: usize,
}

impl<'a, 't> Pass<'a, 't> {
    /// A pass without taps.
    pub fn new(tape: &'t Tape, parameters: &'a ParameterStore) -> Self {
        Pass { tape, parameters, taps: None, layer: 0 }
    }

    /// The same pass with taps, of which a model has [begun](Taps::begin) the forward pass.
    #[must_use]
    pub fn with_taps(self, taps: &'a Taps) -> Self {
        Pass { taps: (!taps.is_empty()).then_some(taps), ..self }
    }

    /// The same pass inside of a layer.
    #[must_use]
    pub fn in_layer(self, layer: usize) -> Self {
        Pass { layer, ..self }
    }

    /// Whether something is tapped in this layer.
    pub fn touches_layer(&self, layer: usize) -> bool {
        self.taps.is_some_and(|taps| taps.touches_layer(layer))
    }

    /// A value of the model at one of its points: what taps make of it, `x` itself without taps.
    ///
    /// # Errors
    /// Those of functions that replace it.
    pub fn tap(&self, point: Point, x: Var<'t>) -> Result<Var<'t>> {
        match self.taps {
            Some(taps) => Ok(taps.apply(point, None, &[], x)?),
            None => Ok(x),
        }
    }

    /// [`Pass::tap`] at a point of the layer.
    ///
    /// # Errors
    /// As [`Pass::tap`].
    pub fn tap_in_layer(&self, point: LayerPoint, x: Var<'t>) -> Result<Var<'t>> {
        self.tap(Point::Layer(self.layer, point), x)
    }

    /// The taps, if there is one at a point.
    fn taps_at(&self, point: Point) -> Option<&'a Taps> {
        self.taps.filter(|taps| taps.touches(point))
    }

    /// The taps, if there is one at one of these points of the layer.
    fn taps_in_layer(&self, points: &[LayerPoint]) -> Option<&'a Taps> {
        self.taps.filter(|taps| points.iter().any(|&point| taps.touches(Point::Layer(self.layer, point))))
    }

    /// A parameter on the tape.
    pub fn parameter(&self, id: ParameterId) -> Var<'t> {
        self.tape.parameter(id, self.parameters.get(id).operand())
    }
}
