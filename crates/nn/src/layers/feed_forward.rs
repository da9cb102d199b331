//! [`FeedForward`].

use super::{Linear, Pass};
use crate::{Builder, LayerPoint, Precision, Result};
use vitrine_autograd::Var;
use vitrine_tensor::ops::linear::Activation;

/// `act(x U^T + a) W^T + b`. Under mixed precision it computes in the compute dtype.
#[derive(Clone, Copy, Debug)]
pub struct FeedForward {
    up: Linear,
    activation: Activation,
    down: Linear,
}

impl FeedForward {
    /// The projection `up: [inner, width]` and back `down: [width, inner]`.
    ///
    /// # Errors
    /// As [`Builder::parameter`].
    pub fn new(
        builder: &mut Builder,
        up: &str,
        down: &str,
        width: usize,
        inner: usize,
        activation: Activation,
    ) -> Result<Self> {
        Ok(FeedForward {
            up: Linear::new(builder, &[up], inner, width, Precision::Mixed)?,
            activation,
            down: Linear::new(builder, &[down], width, inner, Precision::Mixed)?,
        })
    }

    /// `x: [T, C]` to the same shape.
    ///
    /// # Errors
    /// As [`Var::linear`].
    pub fn forward<'t>(&self, pass: &Pass<'_, 't>, x: &Var<'t>) -> Result<Var<'t>> {
        let hidden = pass.tap_in_layer(LayerPoint::Hidden, self.up.forward(pass, x, self.activation)?)?;
        pass.tap_in_layer(LayerPoint::FeedForwardOutput, self.down.forward(pass, &hidden, Activation::None)?)
    }
}
