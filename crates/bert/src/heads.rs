//! What stands on the encoder: [`ClassificationHead`] and [`MaskedLmHead`].

use crate::sites::Site;
use crate::{ModelConfig, Result};
use vitrine_autograd::{ParameterId, Var};
use vitrine_nn::{Builder, Dropout, Embedding, Init, LayerNorm, Linear, Pass, Point, Precision};
use vitrine_tensor::Offsets;
use vitrine_tensor::ops::linear::Activation;

/// `dropout(act(W h + b))` to logits, h dropped out too in some families. Mirrors `BertPooler` and the end of
/// `BertForSequenceClassification` in `transformers/models/bert/modeling_bert.py`.
pub(crate) struct ClassificationHead {
    input_dropout: Option<Dropout>,
    pooler: Linear,
    activation: Activation,
    dropout: Dropout,
    classifier: Linear,
}

impl ClassificationHead {
    /// `may_be_new`: a checkpoint without a classifier gets a new one, and a new pooler if it lacks that too. A checkpoint
    /// with a classifier was trained with its pooler, so it must have both.
    pub fn new(builder: &mut Builder, config: &ModelConfig, may_be_new: bool) -> Result<Self> {
        let (width, names) = (config.hidden_size, &config.family.classifier);
        let lacks = |part: &str| builder.lacks(&format!("{}.{part}", names.output));
        let may_be_new = may_be_new && lacks("weight") && lacks("bias");
        builder.may_be_new(may_be_new);
        let dropout_p = config.classifier_dropout();
        Ok(ClassificationHead {
            input_dropout: names.drops_input.then(|| Site::HeadInput.dropout(dropout_p)),
            pooler: Linear::new(builder, &[names.dense], width, width, Precision::Full)?,
            activation: names.activation,
            dropout: Site::Classifier.dropout(dropout_p),
            classifier: Linear::new(builder, &[names.output], config.num_labels(), width, Precision::Full)?,
        })
    }

    /// The first rows `[B, C]` to `act(W h + b)`: `[B, C]`.
    pub fn pool<'t>(&self, pass: &Pass<'_, 't>, first: &Var<'t>) -> Result<Var<'t>> {
        let _scope = pass.tape.scope("pooler");
        let first = match &self.input_dropout {
            Some(dropout) => dropout.forward(first, &Offsets::ones(first.dims()[0])?)?,
            None => first.clone(),
        };
        Ok(pass.tap(Point::Pooler, self.pooler.forward(pass, &first, self.activation)?)?)
    }

    /// The pooled rows `[B, C]` to logits `[B, labels]`.
    pub fn classify<'t>(&self, pass: &Pass<'_, 't>, pooled: &Var<'t>) -> Result<Var<'t>> {
        let _scope = pass.tape.scope("classifier");
        let rows = Offsets::ones(pooled.dims()[0])?;
        let dropped = self.dropout.forward(pooled, &rows)?;
        Ok(pass.tap(Point::Logits, self.classifier.forward(pass, &dropped, Activation::None)?)?)
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
    pub fn new(builder: &mut Builder, config: &ModelConfig, word: Embedding) -> Result<Self> {
        let (width, names) = (config.hidden_size, &config.family.masked_lm);
        let zero = Init::Constant(0.0);
        Ok(MaskedLmHead {
            transform: Linear::new(builder, &[names.dense], width, width, Precision::Full)?,
            activation: names.activation.map_or_else(|| config.activation(), Ok)?,
            norm: LayerNorm::new(builder, names.norm, width, config.layer_norm_eps)?,
            word,
            bias: builder.parameter(&[names.bias], &[config.vocab_size], zero, Precision::Mixed)?,
        })
    }

    /// Hidden states `[N, C]` to logits over the vocabulary `[N, V]`.
    pub fn forward<'t>(&self, pass: &Pass<'_, 't>, x: &Var<'t>) -> Result<Var<'t>> {
        let _scope = pass.tape.scope("predictions");
        let transformed = self.transform.forward(pass, x, self.activation)?;
        let normalized = pass.tap(Point::MaskedTransform, self.norm.forward(pass, &transformed)?)?;
        let (word, bias) = (pass.parameter(self.word.table), pass.parameter(self.bias));
        // The product over the vocabulary is the largest of a small model's step. Inference guesses few words, and rounded logits tie.
        let word = match &pass.parameters.get(self.bias).compute {
            Some(rounded) if pass.tape.records() => word.to_dtype(rounded.dtype())?,
            _ => word,
        };
        let logits = normalized.linear(&word, Some(&bias), Activation::None)?;
        Ok(pass.tap(Point::MaskedLogits, logits.to_dtype(x.value().dtype())?)?)
    }
}
