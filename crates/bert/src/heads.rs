//! What stands on the encoder: [`ClassificationHead`] and [`MaskedLmHead`].

use crate::sites::Site;
use crate::{BertConfig, Result, TokenBatch};
use vitrine_autograd::{ParameterId, Var};
use vitrine_nn::{Builder, Dropout, Embedding, Init, LayerNorm, Linear, Pass, Precision};
use vitrine_tensor::Offsets;
use vitrine_tensor::ops::linear::Activation;

/// `dropout(tanh(W h + b))` to logits. Mirrors `BertPooler` and the end of `BertForSequenceClassification` in
/// `transformers/models/bert/modeling_bert.py`.
pub(crate) struct ClassificationHead {
    pooler: Linear,
    dropout: Dropout,
    classifier: Linear,
}

impl ClassificationHead {
    /// `may_be_new`: a checkpoint without a classifier gets a new one, and a new pooler if it lacks that too. A checkpoint
    /// with a classifier was trained with its pooler, so it must have both.
    pub fn new(builder: &mut Builder, config: &BertConfig, may_be_new: bool) -> Result<Self> {
        let width = config.hidden_size;
        builder
            .may_be_new(may_be_new && builder.lacks("classifier.weight") && builder.lacks("classifier.bias"));
        Ok(ClassificationHead {
            pooler: Linear::new(builder, &["bert.pooler.dense"], width, width, Precision::Full)?,
            dropout: Site::Classifier.dropout(config.classifier_dropout()),
            classifier: Linear::new(builder, &["classifier"], config.num_labels(), width, Precision::Full)?,
        })
    }

    /// The `[CLS]` rows `[B, C]` to `tanh(W h + b)`: `[B, C]`.
    pub fn pool<'t>(&self, pass: &Pass<'_, 't>, cls: &Var<'t>) -> Result<Var<'t>> {
        let _scope = pass.tape.scope("pooler");
        Ok(self.pooler.forward(pass, cls, Activation::Tanh)?)
    }

    /// The pooled rows `[B, C]` to logits `[B, labels]`.
    pub fn classify<'t>(&self, pass: &Pass<'_, 't>, batch: &TokenBatch, pooled: &Var<'t>) -> Result<Var<'t>> {
        let _scope = pass.tape.scope("classifier");
        let rows = Offsets::ones(batch.sequences())?;
        let dropped = self.dropout.forward(pooled, &rows)?;
        Ok(self.classifier.forward(pass, &dropped, Activation::None)?)
    }
}

/// `LayerNorm(act(W h + b))`, then the word embeddings as output weights and a bias of their own. Mirrors `BertLMPredictionHead` in
/// `transformers/models/bert/modeling_bert.py`.
pub(crate) struct MaskedLmHead {
    transform: Linear,
    activation: Activation,
    norm: LayerNorm,
    word: Embedding,
    bias: ParameterId,
}

impl MaskedLmHead {
    pub fn new(builder: &mut Builder, config: &BertConfig, word: Embedding) -> Result<Self> {
        let (width, name) = (config.hidden_size, "cls.predictions.transform");
        let (bias, zero) = (["cls.predictions.bias"], Init::Constant(0.0));
        Ok(MaskedLmHead {
            transform: Linear::new(builder, &[format!("{name}.dense")], width, width, Precision::Full)?,
            activation: config.activation()?,
            norm: LayerNorm::new(builder, &format!("{name}.LayerNorm"), width, config.layer_norm_eps)?,
            word,
            bias: builder.parameter(&bias, &[config.vocab_size], zero, Precision::Full)?,
        })
    }

    /// Hidden states `[N, C]` to logits over the vocabulary `[N, V]`.
    pub fn forward<'t>(&self, pass: &Pass<'_, 't>, x: &Var<'t>) -> Result<Var<'t>> {
        let _scope = pass.tape.scope("predictions");
        let transformed = self.transform.forward(pass, x, self.activation)?;
        let normalized = self.norm.forward(pass, &transformed)?;
        let (word, bias) = (pass.parameter(self.word.table), pass.parameter(self.bias));
        Ok(normalized.linear(&word, Some(&bias), Activation::None)?)
    }
}
