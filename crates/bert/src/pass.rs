//! [`Pass`]: one forward pass: a tape, the parameters, and the batch's layout; and the numbering of dropout sites.

use crate::parameters::{LayerNorm, Linear};
use crate::{Result, TokenBatch};
use vitrine_autograd::{ParameterStore, Tape, Var};
use vitrine_tensor::Offsets;
use vitrine_tensor::ops::linear::Activation;

/// Places of dropout. A site, the number that a mask depends on, is a function of the place alone:
///
/// | place | site |
/// |---|---|
/// | after the embeddings' LayerNorm | 0 |
/// | before the classifier | 1 |
/// | layer l: attention probabilities | 4 + 4 l |
/// | layer l: after the attention's output projection | 5 + 4 l |
/// | layer l: after the feed-forward's second projection | 6 + 4 l |
#[derive(Clone, Copy)]
pub(crate) enum Site {
    Embeddings,
    Classifier,
    AttentionProbabilities(usize),
    AttentionOutput(usize),
    FeedForwardOutput(usize),
}

impl Site {
    pub fn number(self) -> u16 {
        // `BertConfig::check` bounds the number of layers.
        match self {
            Site::Embeddings => 0,
            Site::Classifier => 1,
            Site::AttentionProbabilities(layer) => 4 + 4 * layer as u16,
            Site::AttentionOutput(layer) => 5 + 4 * layer as u16,
            Site::FeedForwardOutput(layer) => 6 + 4 * layer as u16,
        }
    }
}

/// What every part of a model needs to run.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a, 't> {
    pub tape: &'t Tape,
    pub parameters: &'a ParameterStore,
    pub batch: &'a TokenBatch,
}

impl<'t> Pass<'_, 't> {
    /// `act(x W^T + b)`, in the precision of the weight.
    pub fn linear(&self, x: &Var<'t>, layer: &Linear, activation: Activation) -> Result<Var<'t>> {
        let weight = self.tape.parameter(self.parameters, layer.weight);
        let bias = self.tape.parameter(self.parameters, layer.bias);
        Ok(x.linear(&weight, Some(&bias), activation)?)
    }

    /// `LayerNorm(residual + dropout(x))`, in the precision of the residual; x may be in the encoder's.
    pub fn dropout_add_layer_norm(
        &self,
        x: &Var<'t>,
        residual: &Var<'t>,
        norm: &LayerNorm,
        site: Site,
        dropout_p: f64,
        offsets: &Offsets,
    ) -> Result<Var<'t>> {
        let weight = self.tape.parameter(self.parameters, norm.weight);
        let bias = self.tape.parameter(self.parameters, norm.bias);
        let dropout = (dropout_p, site.number());
        Ok(x.dropout_add_layer_norm(residual, &weight, &bias, norm.eps, dropout, offsets)?)
    }
}
