//! [`Dropout`].

use crate::Result;
use vitrine_autograd::Var;
use vitrine_tensor::Offsets;

/// Drops elements while training, and multiplies the others by `1 / (1 - dropout_p)`: `torch.nn.Dropout`. The mask is a
/// function of the seed, the step, the site, and the element's place in its sequence.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// The probability of dropping.
    pub dropout_p: f64,
    /// The number of the place in the model: no two places share their masks.
    pub site: u16,
}

impl Dropout {
    /// `x: [T, C]`, whose rows are those of `offsets`; x itself outside of training.
    ///
    /// # Errors
    /// As [`Var::dropout`].
    pub fn forward<'t>(&self, x: &Var<'t>, offsets: &Offsets) -> Result<Var<'t>> {
        Ok(x.dropout(self.dropout_p, self.site, offsets)?)
    }
}
