//! [`MultiHeadAttention`].

use super::{Dropout, Linear, Pass};
use crate::{Builder, LayerPoint, Precision, Result};
use vitrine_autograd::{AttentionSettings, Var};
use vitrine_tensor::Offsets;
use vitrine_tensor::ops::attention::Queries;
use vitrine_tensor::ops::linear::Activation;

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

    /// `x: [T, C]`, whose rows attend to those of their own sequence in `offsets`, to `[T, C]`, or `[B, C]` where only each
    /// sequence's first row is a query row.
    ///
    /// # Errors
    /// As [`Var::linear`] and [`Var::attention`].
    pub fn forward<'t>(
        &self,
        pass: &Pass<'_, 't>,
        x: &Var<'t>,
        queries: Queries,
        offsets: &Offsets,
    ) -> Result<Var<'t>> {
        let qkv = Self::tapped_parts(pass, self.qkv.forward(pass, x, Activation::None)?)?;
        let settings = AttentionSettings {
            heads: self.heads,
            softmax_scale: self.softmax_scale,
            queries,
            dropout_p: self.dropout.dropout_p,
            site: self.dropout.site,
            probabilities_for: Vec::new(),
        };
        let context = match pass.taps_in_layer(&[LayerPoint::Scores, LayerPoint::Probabilities]) {
            Some(taps) => taps.attend(pass.layer, &qkv, offsets, &settings)?,
            None => qkv.attention(offsets, &settings)?.0,
        };
        let context = pass.tap_in_layer(LayerPoint::Context, context)?;
        pass.tap_in_layer(LayerPoint::AttentionOutput, self.output.forward(pass, &context, Activation::None)?)
    }

    /// `[T, 3C]` with what taps make of its three parts.
    fn tapped_parts<'t>(pass: &Pass<'_, 't>, qkv: Var<'t>) -> Result<Var<'t>> {
        const PARTS: [LayerPoint; 3] = [LayerPoint::Query, LayerPoint::Key, LayerPoint::Value];
        if pass.taps_in_layer(&PARTS).is_none() {
            return Ok(qkv);
        }
        let width = qkv.dims()[1] / 3;
        let part = |which: usize| pass.tap_in_layer(PARTS[which], qkv.narrow(1, which * width, width)?);
        let [query, key, value] = [part(0)?, part(1)?, part(2)?];
        Ok(query.cat(&[&key, &value], 1)?)
    }
}
