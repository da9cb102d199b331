//! [`MultiHeadAttention`].

use super::{Dropout, Linear, Pass};
use crate::{Builder, Precision, Result};
use vitrine_autograd::{AttentionSettings, Var};
use vitrine_tensor::ops::attention::Queries;
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::{Offsets, Tensor};

/// `softmax(Q K^T / sqrt(D)) V W^T + b`, with queries, keys and values of one projection (Vaswani et al., arXiv 1706.03762).
/// Under mixed precision it computes in the compute dtype.
#[derive(Clone, Copy, Debug)]
pub struct MultiHeadAttention {
    qkv: Linear,
    output: Linear,
    heads: usize,
    softmax_scale: f64,
    dropout: Dropout,
}

/// What an attention computes.
pub struct Attended<'t> {
    /// `[T, C]`, or `[B, C]` where only each sequence's first row is a query row.
    pub output: Var<'t>,
    /// For each sequence of S tokens the probabilities `[heads, S, S]` of the heads in `probabilities_for`.
    pub probabilities: Vec<Tensor>,
}

impl MultiHeadAttention {
    /// The projections to queries, keys and values, and that of the output, each `[width, width]`; `heads` divides `width`.
    /// `dropout` is that of the probabilities.
    ///
    /// # Errors
    /// As [`Builder::parameter`].
    pub fn new<S: AsRef<str>>(
        builder: &mut Builder,
        qkv: &[S; 3],
        output: &str,
        width: usize,
        heads: usize,
        dropout: Dropout,
    ) -> Result<Self> {
        Ok(MultiHeadAttention {
            qkv: Linear::new(builder, qkv, width, width, Precision::Mixed)?,
            output: Linear::new(builder, &[output], width, width, Precision::Mixed)?,
            heads,
            softmax_scale: 1.0 / ((width / heads) as f64).sqrt(),
            dropout,
        })
    }

    /// `x: [T, C]`, whose rows attend to those of their own sequence in `offsets`.
    ///
    /// # Errors
    /// As [`Var::linear`] and [`Var::attention`].
    pub fn forward<'t>(
        &self,
        pass: &Pass<'_, 't>,
        x: &Var<'t>,
        queries: Queries,
        offsets: &Offsets,
        probabilities_for: &[usize],
    ) -> Result<Attended<'t>> {
        let qkv = self.qkv.forward(pass, x, Activation::None)?;
        let settings = AttentionSettings {
            heads: self.heads,
            softmax_scale: self.softmax_scale,
            queries,
            dropout_p: self.dropout.dropout_p,
            site: self.dropout.site,
            probabilities_for: probabilities_for.to_vec(),
        };
        let (context, probabilities) = qkv.attention(offsets, &settings)?;
        Ok(Attended { output: self.output.forward(pass, &context, Activation::None)?, probabilities })
    }
}
