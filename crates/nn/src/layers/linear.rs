//! [`Linear`].

use super::Pass;
use crate::adapters::adapted;
use crate::{Builder, Init, Precision, Result};
use vitrine_autograd::{ParameterId, Var};
use vitrine_tensor::ops::linear::Activation;

/// `act(x W^T + b)`: `torch.nn.Linear`, with the activation in the same pass. Several outputs of one input are one parameter
/// with several parts.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// `[N, K]`.
    pub weight: ParameterId,
    /// `[N]`.
    pub bias: ParameterId,
}

impl Linear {
    /// `names[i].weight: [rows, width]` and `names[i].bias: [rows]`, one below the other; new weights are normal, new biases 0.
    /// Under mixed precision it computes in `precision`.
    ///
    /// # Errors
    /// As [`Builder::parameter`].
    pub fn new<S: AsRef<str>>(
        builder: &mut Builder,
        names: &[S],
        rows: usize,
        width: usize,
        precision: Precision,
    ) -> Result<Self> {
        let keys =
            |suffix: &str| names.iter().map(|name| format!("{}.{suffix}", name.as_ref())).collect::<Vec<_>>();
        Ok(Linear {
            weight: builder.parameter(&keys("weight"), &[rows, width], Init::Normal, precision)?,
            bias: builder.parameter(&keys("bias"), &[rows], Init::Constant(0.0), precision)?,
        })
    }

    /// `x: [T, K]` to `[T, N]`, in the dtype of the weight, to which an F32 x is rounded. What the weight's
    /// [adapters](crate::Adapter) make is added before the activation.
    ///
    /// # Errors
    /// As [`Var::linear`].
    pub fn forward<'t>(&self, pass: &Pass<'_, 't>, x: &Var<'t>, activation: Activation) -> Result<Var<'t>> {
        let (weight, bias) = (pass.parameter(self.weight), pass.parameter(self.bias));
        let parameter = pass.parameters.get(self.weight);
        if parameter.adapters.is_empty() {
            return Ok(x.linear(&weight, Some(&bias), activation)?);
        }
        let y = x.linear(&weight, Some(&bias), Activation::None)?.add(&adapted(pass, parameter, x)?)?;
        Ok(match activation {
            Activation::None => y,
            Activation::GeluErf => y.gelu_erf()?,
            Activation::GeluTanh => y.gelu_tanh()?,
            Activation::Relu => y.relu()?,
            Activation::Tanh => y.tanh()?,
        })
    }
}
