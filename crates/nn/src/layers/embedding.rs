//! [`Embedding`], and [`Embeddings`] of tokens as BERT has them.

use super::{LayerNorm, Pass};
use crate::{Builder, Init, Point, Precision, Result};
use vitrine_autograd::{EmbedParameters, ParameterId, TokenIds, Var};
use vitrine_tensor::Tensor;

/// A table of vectors: `torch.nn.Embedding`. Always in full precision, since a batch reads few of its rows.
#[derive(Clone, Copy, Debug)]
pub struct Embedding {
    /// `[V, C]`.
    pub table: ParameterId,
}

impl Embedding {
    /// The table `name.weight: [rows, width]`; a new one is normal.
    ///
    /// # Errors
    /// As [`Builder::parameter`].
    pub fn new(builder: &mut Builder, name: &str, rows: usize, width: usize) -> Result<Self> {
        let key = format!("{name}.weight");
        Ok(Embedding { table: builder.parameter(&[key], &[rows, width], Init::Normal, Precision::Full)? })
    }

    /// Rows `ids` of the table: `[ids.len(), C]`.
    ///
    /// # Errors
    /// As [`Var::embedding`].
    pub fn forward<'t>(&self, pass: &Pass<'_, 't>, ids: &[u32]) -> Result<Var<'t>> {
        Ok(pass.parameter(self.table).embedding(ids)?)
    }
}

/// `LayerNorm(word[id] + position[p] + token_type[t])`, in one pass.
#[derive(Clone, Copy, Debug)]
pub struct Embeddings {
    /// `[V, C]`.
    pub word: Embedding,
    /// `[positions, C]`.
    pub position: Embedding,
    /// `[types, C]`; none where the model has no token types, and its batches only type 0.
    pub token_type: Option<Embedding>,
    /// Over the sum.
    pub norm: LayerNorm,
}

impl Embeddings {
    /// The tokens to `[T, C]`.
    ///
    /// # Errors
    /// As [`Var::embed_layer_norm`]; where word embeddings are tapped, of the operations that it joins.
    pub fn forward<'t>(&self, pass: &Pass<'_, 't>, tokens: &TokenIds) -> Result<Var<'t>> {
        let word = pass.parameter(self.word.table);
        let token_type = match &self.token_type {
            Some(token_type) => pass.parameter(token_type.table),
            None => {
                let (dtype, device) = (word.value().dtype(), word.value().device());
                pass.tape.constant(Tensor::zeros(&[1, word.dims()[1]], dtype, device)?)
            }
        };
        if pass.taps_at(Point::Words).is_some() {
            let words = pass.tap(Point::Words, word.embedding(&tokens.ids)?)?;
            let positions = pass.parameter(self.position.table).embedding(&tokens.positions)?;
            let sum = words.add(&positions)?.add(&token_type.embedding(&tokens.token_types)?)?;
            return self.norm.forward(pass, &sum);
        }
        let parameters = EmbedParameters {
            word: &word,
            position: &pass.parameter(self.position.table),
            token_type: &token_type,
            weight: &pass.parameter(self.norm.weight),
            bias: &pass.parameter(self.norm.bias),
            eps: self.norm.eps,
        };
        Ok(Var::embed_layer_norm(tokens, &parameters)?)
    }
}
