//! [`LayerNorm`].

use super::{Dropout, Pass};
use crate::{Builder, Init, Precision, Result};
use vitrine_autograd::{ParameterId, Var};
use vitrine_tensor::Offsets;

/// Normalisation of each row, with scale and shift: `torch.nn.LayerNorm`. Always in full precision.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// `[C]`.
    pub weight: ParameterId,
    /// `[C]`.
    pub bias: ParameterId,
    /// What is added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// `name.weight` and `name.bias`, both `[width]`; new ones are 1 and 0.
    ///
    /// # Errors
    /// As [`Builder::parameter`].
    pub fn new(builder: &mut Builder, name: &str, width: usize, eps: f64) -> Result<Self> {
        let mut vector = |suffix: &str, value: f32| {
            builder.parameter(&[format!("{name}.{suffix}")], &[width], Init::Constant(value), Precision::Full)
        };
        Ok(LayerNorm { weight: vector("weight", 1.0)?, bias: vector("bias", 0.0)?, eps })
    }

    /// `x: [T, C]` to the same shape.
    ///
    /// # Errors
    /// As [`Var::layer_norm`].
    pub fn forward<'t>(&self, pass: &Pass<'_, 't>, x: &Var<'t>) -> Result<Var<'t>> {
        Ok(x.layer_norm(&pass.parameter(self.weight), &pass.parameter(self.bias), self.eps)?)
    }

    /// `LayerNorm(residual + dropout(x))` in one pass, in the dtype of the residual; x may be in a narrower one. Both
    /// `[T, C]`.
    ///
    /// # Errors
    /// As [`Var::dropout_add_layer_norm`].
    pub fn forward_residual<'t>(
        &self,
        pass: &Pass<'_, 't>,
        x: &Var<'t>,
        residual: &Var<'t>,
        dropout: &Dropout,
        offsets: &Offsets,
    ) -> Result<Var<'t>> {
        let (weight, bias) = (pass.parameter(self.weight), pass.parameter(self.bias));
        let Dropout { dropout_p, site } = *dropout;
        Ok(x.dropout_add_layer_norm(residual, &weight, &bias, self.eps, (dropout_p, site), offsets)?)
    }
}
