//! The models of every [`Family`](crate::Family): [`BaseModel`], [`SequenceClassifier`], [`MaskedLm`]; how they are made and
//! read. Equal to the classes `BertModel`, `BertForSequenceClassification` and `BertForMaskedLM` in
//! `transformers/models/bert/modeling_bert.py`, and their relatives.

use crate::encoder::Encoder;
use crate::heads::{ClassificationHead, MaskedLmHead};
use crate::{
    BertError, Checkpoint, DataColumns, Head, KeyReport, Loaded, ModelConfig, Result, StagedFiles,
    TokenBatch, Tokenizer, Weights, save,
};
use std::path::Path;
use std::sync::Arc;
use vitrine_autograd::{Tape, Var};
use vitrine_nn::{Builder, Model, ParameterStore, Pass, Point, Source, Taps};
use vitrine_tensor::{DType, Device};

macro_rules! model {
    ($(#[$doc:meta])* $name:ident { $($part:ident: $type:ty),* } $suffix:literal, points of the head $points:expr) => {
        $(#[$doc])*
        pub struct $name {
            config: ModelConfig,
            parameters: ParameterStore,
            $($part: $type,)*
        }

        impl $name {
            /// The sizes and settings.
            pub fn config(&self) -> &ModelConfig {
                &self.config
            }

            /// The parameters.
            pub fn parameters(&self) -> &ParameterStore {
                &self.parameters
            }

            /// The parameters, to be changed.
            pub fn parameters_mut(&mut self) -> &mut ParameterStore {
                &mut self.parameters
            }

            /// Makes tapes compute in `dtype` (BF16: mixed precision; F32: as the masters are): attention and feed-forward
            /// networks compute in it, and so do the activations between them up to the next LayerNorm. On a tape that records,
            /// the product over the vocabulary is one in it, too; its logits are F32 again. The residual stream, embeddings,
            /// LayerNorm, the classifier's head, loss and all gradients of parameters stay F32. PyTorch's autocast draws the
            /// line at the same places, but for the heads: it computes them in `dtype` in inference, too.
            ///
            /// # Errors
            /// Errors of the conversion.
            pub fn compute_in(&mut self, dtype: DType) -> Result<()> {
                Ok(self.parameters.compute_in(dtype)?)
            }

            /// Moves all parameters to a device: from then on everything is computed there.
            ///
            /// # Errors
            /// Errors of the device.
            pub fn to_device(&mut self, device: Device) -> Result<()> {
                Ok(self.parameters.to_device(device)?)
            }

            /// From now on folders are written in F32, F16 or BF16, and the model computes with values that this type has:
            /// what is measured is what was saved.
            ///
            /// # Errors
            /// `Overflow` for a weight beyond the type's largest value, and nothing is changed; errors of the device.
            pub fn save_as(&mut self, dtype: DType) -> Result<()> {
                self.parameters.round_to(dtype)?;
                self.config.dtype = dtype;
                Ok(())
            }

            /// Writes a folder that `transformers` loads as it is: config, weights (in F32, or as `save_as` says), tokenizer files. The files appear
            /// together at the end, or not at all.
            ///
            /// # Errors
            /// `Io`, also for a full disk.
            pub fn save(&self, folder: &Path, tokenizer: &Tokenizer) -> Result<()> {
                let mut files = StagedFiles::new(folder)?;
                self.save_into(&mut files, tokenizer)?;
                files.commit()
            }

            /// As `save`, beside other files that should appear together with the model.
            ///
            /// # Errors
            /// `Io`, also for a full disk.
            pub fn save_into(&self, files: &mut StagedFiles, tokenizer: &Tokenizer) -> Result<()> {
                let tokenizer_files = tokenizer.files(&self.config);
                let config = self.config.to_json(&self.config.family.architecture($suffix));
                save::save(files, (&config, self.config.dtype), &self.parameters, tokenizer_files)
            }

            /// Takes the room on the disk that `save_into` will need.
            ///
            /// # Errors
            /// `Io` for a full disk.
            pub fn reserve_in(&self, files: &mut StagedFiles, tokenizer: &Tokenizer) -> Result<()> {
                let tokenizer_files = tokenizer.files(&self.config);
                let config = self.config.to_json(&self.config.family.architecture($suffix));
                save::reserve(files, (&config, self.config.dtype), &self.parameters, tokenizer_files)
            }

            /// The points that [`Taps`] may read or change, in the order in which they are computed.
            pub fn points(&self) -> Vec<Point> {
                [&Point::of_encoder(self.config.num_hidden_layers)[..], &$points].concat()
            }

            /// Begins a forward pass.
            fn pass<'a, 't>(&'a self, tape: &'t Tape, batch: &TokenBatch, taps: &'a Taps) -> Result<Pass<'a, 't>> {
                if !taps.is_empty() {
                    taps.begin(&self.points(), self.config.num_attention_heads, batch.sequences())?;
                }
                Ok(Pass::new(tape, &self.parameters).with_taps(taps))
            }
        }

        impl Model for $name {
            fn parameters(&self) -> &ParameterStore {
                &self.parameters
            }

            fn parameters_mut(&mut self) -> &mut ParameterStore {
                &mut self.parameters
            }
        }
    };
}

model! {
    /// Tokens to hidden states, without a head.
    BaseModel { encoder: Encoder } "Model", points of the head []
}
model! {
    /// A class for each sequence: `classifier(dropout(tanh(pooler(h_cls))))`.
    SequenceClassifier { encoder: Encoder, head: ClassificationHead } "ForSequenceClassification", points of the head [Point::Pooler, Point::Logits]
}
model! {
    /// A guess at the token for each position.
    MaskedLm { encoder: Encoder, head: MaskedLmHead } "ForMaskedLM", points of the head [Point::MaskedTransform, Point::MaskedLogits]
}

/// What a classifier computes.
pub struct Classified<'t> {
    /// `[B, labels]`.
    pub logits: Var<'t>,
    /// `tanh(W h_cls + b)`: `[B, C]`.
    pub pooled: Var<'t>,
    /// The last hidden state of each sequence's first token: `[B, C]`.
    pub first: Var<'t>,
}

impl BaseModel {
    /// New weights, a function of the seed.
    ///
    /// # Errors
    /// `Config`; tensor errors.
    pub fn random(config: ModelConfig, seed: u64) -> Result<Self> {
        config.check_training()?;
        let builder = Builder::random(seed, config.initializer_range);
        Ok(Self::build(config, builder)?.0)
    }

    /// The weights of a checkpoint.
    ///
    /// # Errors
    /// `Config`, `Weights`, and as [`Weights::read`].
    pub fn from_weights(config: ModelConfig, weights: Weights) -> Result<(Self, KeyReport)> {
        let builder = Builder::from_weights(weights, 0, config.initializer_range);
        Self::build(config, builder)
    }

    fn build(config: ModelConfig, mut builder: Builder) -> Result<(Self, KeyReport)> {
        config.check()?;
        let encoder = Encoder::new(&mut builder, &config)?;
        let (parameters, report) = builder.finish()?;
        Ok((BaseModel { config, parameters, encoder }, report))
    }

    /// The batch to the last hidden state of every token: `[T, C]`.
    ///
    /// # Errors
    /// Tensor and tape errors; `Tap` for a tap that the model does not have.
    pub fn forward<'t>(&self, tape: &'t Tape, batch: &TokenBatch, taps: &Taps) -> Result<Var<'t>> {
        self.encoder.forward(&self.pass(tape, batch, taps)?, batch)
    }

    /// The hidden states of every token after each layer, `[T, C]` each.
    ///
    /// # Errors
    /// Tensor and tape errors.
    pub fn hidden_states<'t>(&self, tape: &'t Tape, batch: &TokenBatch) -> Result<Vec<Var<'t>>> {
        self.encoder.forward_layers(&Pass::new(tape, &self.parameters), batch)
    }
}

impl SequenceClassifier {
    /// New weights, a function of the seed; as many classes as the config has labels.
    ///
    /// # Errors
    /// `Config`; tensor errors.
    pub fn random(config: ModelConfig, seed: u64) -> Result<Self> {
        config.check_classifier()?;
        config.check_training()?;
        let builder = Builder::random(seed, config.initializer_range);
        Ok(Self::build(config, builder, true)?.0)
    }

    /// The weights of a checkpoint. With a `new_head_seed`, a checkpoint without a classifier gets a new one.
    ///
    /// # Errors
    /// `Config`, `Weights`, and as [`Weights::read`].
    pub fn from_weights(
        config: ModelConfig,
        weights: Weights,
        new_head_seed: Option<u64>,
    ) -> Result<(Self, KeyReport)> {
        config.check_classifier()?;
        let builder = Builder::from_weights(weights, new_head_seed.unwrap_or(0), config.initializer_range);
        Self::build(config, builder, new_head_seed.is_some())
    }

    /// A trained classifier: [`Checkpoint::classifier`] with [`Head::Keep`].
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`] and [`Checkpoint::classifier`].
    pub fn load(source: impl Into<Source>) -> Result<Loaded<Self>> {
        Self::load_with(source, Head::Keep)
    }

    /// As [`load`](Self::load), with this head.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`] and [`Checkpoint::classifier`].
    pub fn load_with(source: impl Into<Source>, head: Head) -> Result<Loaded<Self>> {
        let (mut loaded, finished) = Checkpoint::read(source, |checkpoint| checkpoint.classifier(head))?;
        loaded.notes.extend(finished);
        Ok(loaded)
    }

    /// Gives the classes these names, and remembers the columns of the data that it is trained on.
    ///
    /// # Errors
    /// `Config` when there are more or fewer names than classes.
    pub fn describe(&mut self, label_names: &[String], columns: &DataColumns) -> Result<()> {
        let classes = self.config.num_labels();
        if label_names.len() != classes {
            let (expected, got) = (format!("{classes} names"), label_names.len().to_string());
            return Err(BertError::Config { origin: "config".into(), field: "id2label", expected, got });
        }
        self.config = self.config.clone().with_labels(label_names).with_data_columns(columns);
        Ok(())
    }

    fn build(config: ModelConfig, mut builder: Builder, new_head: bool) -> Result<(Self, KeyReport)> {
        config.check()?;
        let encoder = Encoder::new(&mut builder, &config)?;
        let head = ClassificationHead::new(&mut builder, &config, new_head)?;
        let (parameters, report) = builder.finish()?;
        Ok((SequenceClassifier { config, parameters, encoder, head }, report))
    }

    /// The batch to logits, with taps. A tap in the last layer computes all its rows; otherwise only `[CLS]` rows are, with the same
    /// result.
    ///
    /// # Errors
    /// Tensor and tape errors; `Tap` for a tap that the model does not have.
    pub fn forward<'t>(&self, tape: &'t Tape, batch: &TokenBatch, taps: &Taps) -> Result<Classified<'t>> {
        let pass = self.pass(tape, batch, taps)?;
        let first = self.encoder.forward_cls(&pass, batch)?;
        let pooled = self.head.pool(&pass, &first)?;
        let logits = self.head.classify(&pass, &pooled)?;
        Ok(Classified { logits, pooled, first })
    }

    /// The batch to logits, and the hidden state of each sequence's first token after each layer, `[B, C]` each.
    ///
    /// # Errors
    /// Tensor and tape errors.
    pub fn forward_with_firsts<'t>(
        &self,
        tape: &'t Tape,
        batch: &TokenBatch,
    ) -> Result<(Classified<'t>, Vec<Var<'t>>)> {
        let pass = Pass::new(tape, &self.parameters);
        let (mut firsts, first) = self.encoder.forward_cls_of_layers(&pass, batch)?;
        firsts.push(first.clone());
        let pooled = self.head.pool(&pass, &first)?;
        let logits = self.head.classify(&pass, &pooled)?;
        Ok((Classified { logits, pooled, first }, firsts))
    }

    /// The batch to logits `[B, labels]`.
    ///
    /// # Errors
    /// As [`SequenceClassifier::forward`].
    pub fn logits<'t>(&self, tape: &'t Tape, batch: &TokenBatch) -> Result<Var<'t>> {
        Ok(self.forward(tape, batch, &Taps::new())?.logits)
    }

    /// The mean cross entropy over the batch's sequences, a scalar.
    ///
    /// # Errors
    /// `Batch` without labels; as [`SequenceClassifier::forward`].
    pub fn loss<'t>(&self, tape: &'t Tape, batch: &TokenBatch) -> Result<Var<'t>> {
        let labels = batch.require_labels()?;
        let logits = self.logits(tape, batch)?;
        let _scope = tape.scope("loss");
        Ok(logits.cross_entropy(labels)?)
    }
}

impl MaskedLm {
    /// New weights, a function of the seed.
    ///
    /// # Errors
    /// `Config`; tensor errors.
    pub fn random(config: ModelConfig, seed: u64) -> Result<Self> {
        config.check_training()?;
        let builder = Builder::random(seed, config.initializer_range);
        Ok(Self::build(config, builder)?.0)
    }

    /// The weights of a checkpoint.
    ///
    /// # Errors
    /// `Config`, `Weights`, and as [`Weights::read`].
    pub fn from_weights(config: ModelConfig, weights: Weights) -> Result<(Self, KeyReport)> {
        let builder = Builder::from_weights(weights, 0, config.initializer_range);
        Self::build(config, builder)
    }

    fn build(config: ModelConfig, mut builder: Builder) -> Result<(Self, KeyReport)> {
        config.check()?;
        config.check_masked_lm()?;
        let encoder = Encoder::new(&mut builder, &config)?;
        let head = MaskedLmHead::new(&mut builder, &config, encoder.embeddings.word)?;
        let (parameters, report) = builder.finish()?;
        Ok((MaskedLm { config, parameters, encoder, head }, report))
    }

    /// A pretrained model: [`Checkpoint::masked_lm`].
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`] and [`Checkpoint::masked_lm`].
    pub fn load(source: impl Into<Source>) -> Result<Loaded<Self>> {
        let (mut loaded, finished) = Checkpoint::read(source, Checkpoint::masked_lm)?;
        loaded.notes.extend(finished);
        Ok(loaded)
    }

    /// What a saved config.json says of dropout. A model that is pretrained without any is mostly fine-tuned with some.
    pub fn save_dropout(&mut self, hidden_dropout_prob: f64, attention_probs_dropout_prob: f64) {
        self.config.hidden_dropout_prob = hidden_dropout_prob;
        self.config.attention_probs_dropout_prob = attention_probs_dropout_prob;
    }

    /// Logits over the vocabulary for these rows of the batch (numbered `0..T`): `[rows, V]`. After its attention, the last layer
    /// computes only these.
    ///
    /// # Errors
    /// Tensor and tape errors.
    pub fn logits<'t>(&self, tape: &'t Tape, batch: &TokenBatch, rows: &Arc<[u32]>) -> Result<Var<'t>> {
        self.forward(tape, batch, rows, &Taps::new())
    }

    /// [`MaskedLm::logits`] with taps. A tap in the last layer computes all its rows.
    ///
    /// # Errors
    /// As [`MaskedLm::logits`]; `Tap` for a tap that the model does not have.
    pub fn forward<'t>(
        &self,
        tape: &'t Tape,
        batch: &TokenBatch,
        rows: &Arc<[u32]>,
        taps: &Taps,
    ) -> Result<Var<'t>> {
        let pass = self.pass(tape, batch, taps)?;
        let rows = self.encoder.forward_rows(&pass, batch, rows)?;
        self.head.forward(&pass, &rows)
    }

    /// The hidden states of every token after each layer, `[T, C]` each. The [head](Self::head) makes logits of them.
    ///
    /// # Errors
    /// Tensor and tape errors.
    pub fn hidden_states<'t>(&self, tape: &'t Tape, batch: &TokenBatch) -> Result<Vec<Var<'t>>> {
        self.encoder.forward_layers(&Pass::new(tape, &self.parameters), batch)
    }

    /// The head alone, over hidden states of any layer `[N, C]`: logits over the vocabulary `[N, V]`. Of the last layer's they are the
    /// model's guesses.
    ///
    /// # Errors
    /// Tensor and tape errors.
    pub fn head<'t>(&self, tape: &'t Tape, states: &Var<'t>) -> Result<Var<'t>> {
        self.head.forward(&Pass::new(tape, &self.parameters), states)
    }

    /// The mean cross entropy of the tokens at these rows, a scalar.
    ///
    /// # Errors
    /// As [`MaskedLm::logits`].
    pub fn loss<'t>(
        &self,
        tape: &'t Tape,
        batch: &TokenBatch,
        rows: &Arc<[u32]>,
        targets: &Arc<[u32]>,
    ) -> Result<Var<'t>> {
        let logits = self.logits(tape, batch, rows)?;
        let _scope = tape.scope("loss");
        Ok(logits.cross_entropy(targets)?)
    }
}
