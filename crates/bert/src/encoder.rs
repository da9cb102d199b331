//! [`Encoder`]: the embeddings and the stack of layers, without a head. Mirrors `BertLayer`, `BertIntermediate`,
//! `BertOutput`, `BertEncoder` and `BertModel` in `transformers/models/bert/modeling_bert.py`.

use crate::attention::Attention;
use crate::embeddings::Embeddings;
use crate::parameters::{Builder, LayerNorm, Linear};
use crate::pass::{Pass, Site};
use crate::{BertConfig, Result};
use std::sync::Arc;
use vitrine_autograd::{AutogradError, Segment, Var};
use vitrine_tensor::ops::attention::Queries;
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::{Offsets, Tensor};

/// What a forward pass should hand out beside its result.
#[derive(Clone, Debug, Default)]
pub struct Observe {
    /// All hidden states: the embeddings' output and every layer's.
    pub hidden_states: bool,
    /// The heads whose attention probabilities are wanted, in every layer.
    pub attention_heads: Vec<usize>,
}

impl Observe {
    /// Hidden states and the attention probabilities of all heads.
    pub fn everything(config: &BertConfig) -> Self {
        Observe { hidden_states: true, attention_heads: (0..config.num_attention_heads).collect() }
    }

    fn wants_all_rows(&self) -> bool {
        self.hidden_states || !self.attention_heads.is_empty()
    }
}

/// What the encoder computes.
pub struct Encoded<'t> {
    /// The last hidden state: `[T, C]`, or `[B, C]` where only the `[CLS]` rows were asked for.
    pub last: Var<'t>,
    /// Empty, or the embeddings' output followed by each layer's: L + 1 of `[T, C]`.
    pub hidden_states: Vec<Var<'t>>,
    /// Empty, or for each layer and sequence of S tokens the probabilities `[heads, S, S]`.
    pub attentions: Vec<Vec<Tensor>>,
}

/// One layer: attention, then a feed-forward network, each with residual and LayerNorm.
struct Layer {
    attention: Attention,
    intermediate: Linear,
    activation: Activation,
    output: Linear,
    norm: LayerNorm,
    index: usize,
    dropout_p: f64,
}

impl Layer {
    fn new(builder: &mut Builder, config: &BertConfig, index: usize) -> Result<Self> {
        let name = |part: &str| format!("bert.encoder.layer.{index}.{part}");
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        Ok(Layer {
            attention: Attention::new(builder, config, index)?,
            intermediate: builder.linear(&[&name("intermediate.dense")], inner, width, false)?,
            activation: config.activation()?,
            output: builder.linear(&[&name("output.dense")], width, inner, false)?,
            norm: builder.layer_norm(&name("output.LayerNorm"), width, config.layer_norm_eps)?,
            index,
            dropout_p: config.hidden_dropout_prob,
        })
    }

    fn forward<'t>(
        &self,
        pass: &Pass<'_, 't>,
        x: &Var<'t>,
        queries: Queries,
        offsets: &Offsets,
        probabilities_for: &[usize],
    ) -> Result<(Var<'t>, Vec<Tensor>)> {
        let _scope = pass.tape.scope(format!("encoder.layer.{}", self.index));
        let (attended, probabilities) =
            self.attention.forward(pass, x, queries, offsets, probabilities_for)?;
        let _scope = pass.tape.scope("feed_forward");
        let inner = pass.linear(&attended, &self.intermediate, self.activation)?;
        let projected = pass.linear(&inner, &self.output, Activation::None)?;
        let site = Site::FeedForwardOutput(self.index);
        let y =
            pass.dropout_add_layer_norm(&projected, &attended, &self.norm, site, self.dropout_p, offsets)?;
        Ok((y, probabilities))
    }
}

/// Embeddings and layers: BERT without a head.
pub(crate) struct Encoder {
    pub embeddings: Embeddings,
    layers: Vec<Arc<Layer>>,
}

impl Encoder {
    pub fn new(builder: &mut Builder, config: &BertConfig) -> Result<Self> {
        Ok(Encoder {
            embeddings: Embeddings::new(builder, config)?,
            layers: (0..config.num_hidden_layers)
                .map(|index| Ok(Arc::new(Layer::new(builder, config, index)?)))
                .collect::<Result<_>>()?,
        })
    }

    /// The last hidden state of every token.
    pub fn forward<'t>(&self, pass: &Pass<'_, 't>, observe: &Observe) -> Result<Encoded<'t>> {
        self.run(pass, observe, Queries::All)
    }

    /// The last hidden state of each sequence's `[CLS]`: `[B, C]`. After the keys and values, the last layer needs no other
    /// row, so it computes no other unless something is observed.
    pub fn forward_cls<'t>(&self, pass: &Pass<'_, 't>, observe: &Observe) -> Result<Encoded<'t>> {
        if !observe.wants_all_rows() {
            return self.run(pass, observe, Queries::First);
        }
        let encoded = self.run(pass, observe, Queries::All)?;
        let last = encoded.last.gather_rows(pass.batch.offsets().firsts())?;
        Ok(Encoded { last, ..encoded })
    }

    fn run<'t>(&self, pass: &Pass<'_, 't>, observe: &Observe, last: Queries) -> Result<Encoded<'t>> {
        let mut x = self.embeddings.forward(pass)?;
        let mut hidden_states = Vec::new();
        let mut attentions = Vec::new();
        // A [CLS] row is position 0 of its sequence: with these offsets it draws the mask that it has among all rows.
        let first_rows = Offsets::ones(pass.batch.sequences())?;
        // Segments outlive this call: they own what they read, which is cheap to share.
        let checkpoint = pass.tape.checkpoints_layers() && observe.attention_heads.is_empty();
        let owned = checkpoint.then(|| (Arc::new(pass.parameters.clone()), Arc::new(pass.batch.clone())));
        for (layer_index, layer) in self.layers.iter().enumerate() {
            if observe.hidden_states {
                hidden_states.push(x.clone());
            }
            let queries = if layer_index + 1 == self.layers.len() { last } else { Queries::All };
            let offsets = match queries {
                Queries::All => pass.batch.offsets(),
                Queries::First => &first_rows,
            };
            if let Some((parameters, batch)) = &owned {
                let (layer, parameters, batch) =
                    (Arc::clone(layer), Arc::clone(parameters), Arc::clone(batch));
                let offsets = offsets.clone();
                let segment = Segment::new(move |tape, x| {
                    let pass = Pass { tape, parameters: &parameters, batch: &batch };
                    Ok(layer.forward(&pass, x, queries, &offsets, &[]).map_err(AutogradError::function)?.0)
                });
                let _scope = pass.tape.scope(format!("encoder.layer.{layer_index}"));
                x = x.segment(pass.parameters, segment)?;
                continue;
            }
            let (y, probabilities) = layer.forward(pass, &x, queries, offsets, &observe.attention_heads)?;
            if !observe.attention_heads.is_empty() {
                attentions.push(probabilities);
            }
            x = y;
        }
        if observe.hidden_states {
            hidden_states.push(x.clone());
        }
        Ok(Encoded { last: x, hidden_states, attentions })
    }
}
