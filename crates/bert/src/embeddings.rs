//! [`Embeddings`]: tokens to the first hidden state. Mirrors `BertEmbeddings` in
//! `transformers/models/bert/modeling_bert.py`.

use crate::parameters::{Builder, LayerNorm};
use crate::pass::{Pass, Site};
use crate::{BertConfig, Result};
use vitrine_autograd::{EmbedParameters, ParameterId, Var};

/// `dropout(LayerNorm(word[id] + position[p] + token_type[t]))`.
pub(crate) struct Embeddings {
    pub word: ParameterId,
    position: ParameterId,
    token_type: ParameterId,
    norm: LayerNorm,
    dropout_p: f64,
}

impl Embeddings {
    pub fn new(builder: &mut Builder, config: &BertConfig) -> Result<Self> {
        let width = config.hidden_size;
        let mut table =
            |name: &str, rows| builder.embedding(&format!("bert.embeddings.{name}.weight"), rows, width);
        Ok(Embeddings {
            word: table("word_embeddings", config.vocab_size)?,
            position: table("position_embeddings", config.max_position_embeddings)?,
            token_type: table("token_type_embeddings", config.type_vocab_size)?,
            norm: builder.layer_norm("bert.embeddings.LayerNorm", width, config.layer_norm_eps)?,
            dropout_p: config.hidden_dropout_prob,
        })
    }

    /// The batch to `[T, C]`.
    pub fn forward<'t>(&self, pass: &Pass<'_, 't>) -> Result<Var<'t>> {
        let _scope = pass.tape.scope("embeddings");
        let parameter = |id| pass.tape.parameter(pass.parameters, id);
        let parameters = EmbedParameters {
            word: &parameter(self.word),
            position: &parameter(self.position),
            token_type: &parameter(self.token_type),
            weight: &parameter(self.norm.weight),
            bias: &parameter(self.norm.bias),
            eps: self.norm.eps,
        };
        let embedded = Var::embed_layer_norm(pass.batch.tokens(), &parameters)?;
        Ok(embedded.dropout(self.dropout_p, Site::Embeddings.number(), pass.batch.offsets())?)
    }
}
