//! What stands on the encoder: [`ClassificationHead`] and [`MaskedLmHead`].

use crate::parameters::{Builder, LayerNorm, Linear};
use crate::pass::{Pass, Site};
use crate::{BertConfig, Result};
use vitrine_autograd::{ParameterId, Var};
use vitrine_tensor::Offsets;
use vitrine_tensor::ops::linear::Activation;

/// `dropout(tanh(W h + b))` to logits. Mirrors `BertPooler` and the end of `BertForSequenceClassification` in
/// `transformers/models/bert/modeling_bert.py`.
pub(crate) struct ClassificationHead {
    pooler: Linear,
    classifier: Linear,
    dropout_p: f64,
}

impl ClassificationHead {
    /// `may_be_new`: a checkpoint without a classifier gets a new one, and a new pooler if it lacks that too. A checkpoint
    /// with a classifier was trained with its pooler, so it must have both.
    pub fn new(builder: &mut Builder, config: &BertConfig, may_be_new: bool) -> Result<Self> {
        let width = config.hidden_size;
        let may_be_new = may_be_new && builder.lacks("classifier.weight") && builder.lacks("classifier.bias");
        Ok(ClassificationHead {
            pooler: builder.linear(&["bert.pooler.dense"], width, width, may_be_new)?,
            classifier: builder.linear(&["classifier"], config.num_labels(), width, may_be_new)?,
            dropout_p: config.classifier_dropout(),
        })
    }

    /// The `[CLS]` rows `[B, C]` to `tanh(W h + b)`: `[B, C]`.
    pub fn pool<'t>(&self, pass: &Pass<'_, 't>, cls: &Var<'t>) -> Result<Var<'t>> {
        let _scope = pass.tape.scope("pooler");
        pass.linear(cls, &self.pooler, Activation::Tanh)
    }

    /// The pooled rows `[B, C]` to logits `[B, labels]`.
    pub fn classify<'t>(&self, pass: &Pass<'_, 't>, pooled: &Var<'t>) -> Result<Var<'t>> {
        let _scope = pass.tape.scope("classifier");
        let rows = Offsets::ones(pass.batch.sequences())?;
        let dropped = pooled.dropout(self.dropout_p, Site::Classifier.number(), &rows)?;
        pass.linear(&dropped, &self.classifier, Activation::None)
    }
}

/// `LayerNorm(act(W h + b))`, then the word embeddings as output weights and a bias of their own. Mirrors `BertLMPredictionHead` in
/// `transformers/models/bert/modeling_bert.py`.
pub(crate) struct MaskedLmHead {
    transform: Linear,
    activation: Activation,
    norm: LayerNorm,
    word: ParameterId,
    bias: ParameterId,
}

impl MaskedLmHead {
    pub fn new(builder: &mut Builder, config: &BertConfig, word: ParameterId) -> Result<Self> {
        let (width, name) = (config.hidden_size, "cls.predictions.transform");
        Ok(MaskedLmHead {
            transform: builder.linear(&[&format!("{name}.dense")], width, width, false)?,
            activation: config.activation()?,
            norm: builder.layer_norm(&format!("{name}.LayerNorm"), width, config.layer_norm_eps)?,
            word,
            bias: builder.bias("cls.predictions.bias", config.vocab_size)?,
        })
    }

    /// Hidden states `[N, C]` to logits over the vocabulary `[N, V]`.
    pub fn forward<'t>(&self, pass: &Pass<'_, 't>, x: &Var<'t>) -> Result<Var<'t>> {
        let _scope = pass.tape.scope("predictions");
        let parameter = |id| pass.tape.parameter(pass.parameters, id);
        let transformed = pass.linear(x, &self.transform, self.activation)?;
        let normalized = transformed.layer_norm(
            &parameter(self.norm.weight),
            &parameter(self.norm.bias),
            self.norm.eps,
        )?;
        Ok(normalized.linear(&parameter(self.word), Some(&parameter(self.bias)), Activation::None)?)
    }
}
