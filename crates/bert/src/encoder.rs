//! [`Encoder`]: the embeddings and the stack of layers, without a head, for every [`Family`](crate::Family). Mirrors
//! `BertEmbeddings`, `BertLayer`, `BertEncoder` and `BertModel` in `transformers/models/bert/modeling_bert.py`.

use crate::sites::Site;
use crate::{ModelConfig, Result, TokenBatch};
use std::sync::Arc;
use vitrine_autograd::{AutogradError, Segment, Var};
use vitrine_nn::{
    Builder, Dropout, Embedding, Embeddings, FeedForward, LayerNorm, LayerPoint, MultiHeadAttention, Pass,
    Point,
};
use vitrine_tensor::Offsets;
use vitrine_tensor::ops::attention::Queries;

/// The rows of a layer's result that are computed.
#[derive(Clone)]
enum Kept {
    /// Of every token.
    All,
    /// Of each sequence's first token.
    First,
    /// Of these tokens of the batch, numbered `0..T`.
    Listed(Arc<[u32]>),
}

/// One layer: attention, then a feed-forward network, each with dropout, residual and LayerNorm.
struct Layer {
    index: usize,
    attention: MultiHeadAttention,
    attention_dropout: Dropout,
    attention_norm: LayerNorm,
    feed_forward: FeedForward,
    feed_forward_dropout: Dropout,
    feed_forward_norm: LayerNorm,
}

impl Layer {
    fn new(builder: &mut Builder, config: &ModelConfig, index: usize) -> Result<Self> {
        let (base, names) = (config.family.names.base, &config.family.layer);
        let name = |part: &str| format!("{base}.{}.{index}.{part}", names.stack);
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        Ok(Layer {
            index,
            attention: MultiHeadAttention::new(
                builder,
                &names.query_key_value.map(name),
                &name(names.attention_output),
                width,
                config.num_attention_heads,
                Site::AttentionProbabilities(index).dropout(config.attention_probs_dropout_prob),
            )?,
            attention_dropout: Site::AttentionOutput(index).dropout(config.hidden_dropout_prob),
            attention_norm: LayerNorm::new(builder, &name(names.attention_norm), width, eps)?,
            feed_forward: FeedForward::new(
                builder,
                &name(names.up),
                &name(names.down),
                width,
                config.intermediate_size,
                config.activation()?,
            )?,
            feed_forward_dropout: Site::FeedForwardOutput(index).dropout(config.hidden_dropout_prob),
            feed_forward_norm: LayerNorm::new(builder, &name(names.feed_forward_norm), width, eps)?,
        })
    }

    /// `x: [T, C]` to the kept rows `[N, C]`; `rows` are the sequences that they count as for dropout.
    fn forward<'t>(
        &self,
        pass: &Pass<'_, 't>,
        batch: &TokenBatch,
        x: &Var<'t>,
        kept: &Kept,
        rows: &Offsets,
    ) -> vitrine_nn::Result<Var<'t>> {
        let pass = &pass.in_layer(self.index);
        let _scope = pass.tape.scope(format!("encoder.layer.{}", self.index));
        let attended = {
            let _scope = pass.tape.scope("attention");
            let queries = match kept {
                Kept::First => Queries::First,
                // Attention costs little beside the products after it, so these gather its rows instead.
                Kept::All | Kept::Listed(_) => Queries::All,
            };
            let attended = self.attention.forward(pass, x, queries, batch.offsets())?;
            let (output, residual) = match kept {
                Kept::All => (attended, x.clone()),
                Kept::First => (attended, x.gather_rows(batch.offsets().firsts())?),
                Kept::Listed(rows) => (attended.gather_rows(rows)?, x.gather_rows(rows)?),
            };
            let (norm, dropout) = (&self.attention_norm, &self.attention_dropout);
            norm.forward_residual(pass, &output, &residual, dropout, rows)?
        };
        let attended = pass.tap_in_layer(LayerPoint::AttentionNorm, attended)?;
        let _scope = pass.tape.scope("feed_forward");
        let inner = self.feed_forward.forward(pass, &attended)?;
        let (norm, dropout) = (&self.feed_forward_norm, &self.feed_forward_dropout);
        pass.tap_in_layer(LayerPoint::Output, norm.forward_residual(pass, &inner, &attended, dropout, rows)?)
    }
}

/// Embeddings and layers: a model without a head.
pub(crate) struct Encoder {
    pub embeddings: Embeddings,
    dropout: Dropout,
    layers: Vec<Arc<Layer>>,
}

impl Encoder {
    pub fn new(builder: &mut Builder, config: &ModelConfig) -> Result<Self> {
        let (width, family) = (config.hidden_size, config.family);
        let name = |part: &str| format!("{}.embeddings.{part}", family.names.base);
        let mut table = |part: &str, rows| Embedding::new(builder, &name(part), rows, width);
        let embeddings = Embeddings {
            word: table("word_embeddings", config.vocab_size)?,
            position: table("position_embeddings", config.max_position_embeddings)?,
            token_type: match family.field("type_vocab_size") {
                Some(_) => Some(table("token_type_embeddings", config.type_vocab_size)?),
                None => None,
            },
            norm: LayerNorm::new(builder, &name("LayerNorm"), width, config.layer_norm_eps)?,
        };
        let layer = |index| Ok(Arc::new(Layer::new(builder, config, index)?));
        Ok(Encoder {
            embeddings,
            dropout: Site::Embeddings.dropout(config.hidden_dropout_prob),
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
        })
    }

    /// The last hidden state of every token: `[T, C]`.
    pub fn forward<'t>(&self, pass: &Pass<'_, 't>, batch: &TokenBatch) -> Result<Var<'t>> {
        self.run(pass, batch, &Kept::All, &mut |_| Ok(()))
    }

    /// The last hidden state of these tokens `[N, C]`, numbered `0..T`. The last layer computes nothing else of what follows
    /// its attention, unless it is tapped. Its dropout there is a function of a row's place in the list, not in its sequence.
    pub fn forward_rows<'t>(
        &self,
        pass: &Pass<'_, 't>,
        batch: &TokenBatch,
        rows: &Arc<[u32]>,
    ) -> Result<Var<'t>> {
        if self.taps_last_layer(pass) {
            return Ok(self.forward(pass, batch)?.gather_rows(rows)?);
        }
        self.run(pass, batch, &Kept::Listed(Arc::clone(rows)), &mut |_| Ok(()))
    }

    /// The last hidden state of each sequence's `[CLS]`: `[B, C]`. After the keys and values, the last layer needs no other
    /// row, so it computes no other unless it is tapped.
    pub fn forward_cls<'t>(&self, pass: &Pass<'_, 't>, batch: &TokenBatch) -> Result<Var<'t>> {
        if self.taps_last_layer(pass) {
            return Ok(self.forward(pass, batch)?.gather_rows(batch.offsets().firsts())?);
        }
        self.run(pass, batch, &Kept::First, &mut |_| Ok(()))
    }

    /// The hidden state of each sequence's `[CLS]` after each layer but the last, `[B, C]` each, and that after the last.
    pub fn forward_cls_of_layers<'t>(
        &self,
        pass: &Pass<'_, 't>,
        batch: &TokenBatch,
    ) -> Result<(Vec<Var<'t>>, Var<'t>)> {
        let mut before = Vec::with_capacity(self.layers.len());
        let last = self.run(pass, batch, &Kept::First, &mut |x| {
            before.push(x.gather_rows(batch.offsets().firsts())?);
            Ok(())
        })?;
        Ok((before, last))
    }

    /// The hidden states of every token after each layer, `[T, C]` each.
    pub fn forward_layers<'t>(&self, pass: &Pass<'_, 't>, batch: &TokenBatch) -> Result<Vec<Var<'t>>> {
        let mut layers = Vec::with_capacity(self.layers.len());
        let last = self.run(pass, batch, &Kept::All, &mut |x| {
            layers.push(x.clone());
            Ok(())
        })?;
        layers.push(last);
        Ok(layers)
    }

    fn taps_last_layer(&self, pass: &Pass<'_, '_>) -> bool {
        pass.touches_layer(self.layers.len().saturating_sub(1))
    }

    /// `between` sees what goes from a layer to the next, `[T, C]`.
    fn run<'t>(
        &self,
        pass: &Pass<'_, 't>,
        batch: &TokenBatch,
        last: &Kept,
        between: &mut dyn FnMut(&Var<'t>) -> Result<()>,
    ) -> Result<Var<'t>> {
        let mut x = {
            let _scope = pass.tape.scope("embeddings");
            self.dropout.forward(&self.embeddings.forward(pass, batch.tokens())?, batch.offsets())?
        };
        x = pass.tap(Point::Embeddings, x)?;
        // A [CLS] row is position 0 of its sequence: with these offsets it draws the mask that it has among all rows.
        let last_rows = match last {
            Kept::All => batch.offsets().clone(),
            Kept::First => Offsets::ones(batch.sequences())?,
            Kept::Listed(rows) => Offsets::ones(rows.len())?,
        };
        // Segments outlive this call: they own what they read, which is cheap to share.
        let checkpoint = pass.tape.checkpoints_layers();
        let owned = checkpoint.then(|| (Arc::new(pass.parameters.clone()), Arc::new(batch.clone())));
        for (layer_index, layer) in self.layers.iter().enumerate() {
            let is_last = layer_index + 1 == self.layers.len();
            let (kept, rows) = if is_last { (last, &last_rows) } else { (&Kept::All, batch.offsets()) };
            // What is tapped has to stand on this tape, so a layer with taps is not computed again.
            x = match &owned {
                Some((parameters, batch)) if !pass.touches_layer(layer_index) => {
                    let (layer, parameters, batch) =
                        (Arc::clone(layer), Arc::clone(parameters), Arc::clone(batch));
                    let (kept, rows) = (kept.clone(), rows.clone());
                    let segment = Segment::new(move |tape, x| {
                        let y = layer.forward(&Pass::new(tape, &parameters), &batch, x, &kept, &rows);
                        y.map_err(AutogradError::function)
                    });
                    let _scope = pass.tape.scope(format!("encoder.layer.{layer_index}"));
                    x.segment(segment)?
                }
                _ => layer.forward(pass, batch, &x, kept, rows)?,
            };
            if !is_last {
                between(&x)?;
            }
        }
        Ok(x)
    }
}
