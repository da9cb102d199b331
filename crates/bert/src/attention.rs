//! [`Attention`]: self-attention with its output projection, residual and LayerNorm. Mirrors `BertSelfAttention` and
//! `BertSelfOutput` in `transformers/models/bert/modeling_bert.py`.

use crate::parameters::{Builder, LayerNorm, Linear};
use crate::pass::{Pass, Site};
use crate::{BertConfig, Result};
use vitrine_autograd::{AttentionSettings, Var};
use vitrine_tensor::ops::attention::Queries;
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::{Offsets, Tensor};

/// `LayerNorm(x + dropout(softmax(Q K^T / sqrt(D)) V W^T + b))`, queries, keys and values from one projection.
pub(crate) struct Attention {
    qkv: Linear,
    output: Linear,
    norm: LayerNorm,
    layer: usize,
    heads: usize,
    softmax_scale: f64,
    probabilities_dropout_p: f64,
    hidden_dropout_p: f64,
}

impl Attention {
    pub fn new(builder: &mut Builder, config: &BertConfig, layer: usize) -> Result<Self> {
        let name = |part: &str| format!("bert.encoder.layer.{layer}.attention.{part}");
        let width = config.hidden_size;
        let [query, key, value] = ["self.query", "self.key", "self.value"].map(name);
        Ok(Attention {
            qkv: builder.linear(&[&query, &key, &value], width, width, false)?,
            output: builder.linear(&[&name("output.dense")], width, width, false)?,
            norm: builder.layer_norm(&name("output.LayerNorm"), width, config.layer_norm_eps)?,
            layer,
            heads: config.num_attention_heads,
            softmax_scale: 1.0 / (config.head_size() as f64).sqrt(),
            probabilities_dropout_p: config.attention_probs_dropout_prob,
            hidden_dropout_p: config.hidden_dropout_prob,
        })
    }

    /// `x: [T, C]` to `[T, C]`, or to `[B, C]` when only each sequence's first row asks; `offsets` describes the result.
    /// With it the probabilities of the heads in `probabilities_for`, by sequence.
    pub fn forward<'t>(
        &self,
        pass: &Pass<'_, 't>,
        x: &Var<'t>,
        queries: Queries,
        offsets: &Offsets,
        probabilities_for: &[usize],
    ) -> Result<(Var<'t>, Vec<Tensor>)> {
        let _scope = pass.tape.scope("attention");
        let qkv = pass.linear(x, &self.qkv, Activation::None)?;
        let settings = AttentionSettings {
            heads: self.heads,
            softmax_scale: self.softmax_scale,
            queries,
            dropout_p: self.probabilities_dropout_p,
            site: Site::AttentionProbabilities(self.layer).number(),
            probabilities_for: probabilities_for.to_vec(),
        };
        let (context, probabilities) = qkv.attention(pass.batch.offsets(), &settings)?;
        let projected = pass.linear(&context, &self.output, Activation::None)?;
        let residual = match queries {
            Queries::All => x.clone(),
            Queries::First => x.gather_rows(pass.batch.offsets().firsts())?,
        };
        let site = Site::AttentionOutput(self.layer);
        let y = pass.dropout_add_layer_norm(
            &projected,
            &residual,
            &self.norm,
            site,
            self.hidden_dropout_p,
            offsets,
        )?;
        Ok((y, probabilities))
    }
}
