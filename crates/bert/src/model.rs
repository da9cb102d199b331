//! The models: [`BertModel`], [`BertForSequenceClassification`], [`BertForMaskedLm`]; how they are made and read. Named after,
//! and equal to, the classes in `transformers/models/bert/modeling_bert.py`.

use crate::encoder::{Encoded, Encoder, Observe};
use crate::heads::{ClassificationHead, MaskedLmHead};
use crate::parameters::Builder;
use crate::pass::Pass;
use crate::{
    BertConfig, BertError, CONFIG_FILE, DataColumns, KeyReport, Result, StagedFiles, TokenBatch, Tokenizer,
    Weights, files, save,
};
use std::path::Path;
use std::sync::Arc;
use vitrine_autograd::{Parameter, ParameterStore, Tape, Var};
use vitrine_tensor::{DType, Device};

macro_rules! model {
    ($(#[$doc:meta])* $name:ident { $($part:ident: $type:ty),* } $architecture:literal) => {
        $(#[$doc])*
        pub struct $name {
            config: BertConfig,
            parameters: ParameterStore,
            $($part: $type,)*
        }

        impl $name {
            /// The name of the class in `transformers`.
            pub const ARCHITECTURE: &'static str = $architecture;

            /// The sizes and settings.
            pub fn config(&self) -> &BertConfig {
                &self.config
            }

            /// The parameters.
            pub fn parameters(&self) -> &ParameterStore {
                &self.parameters
            }

            /// The parameters, for an optimizer.
            pub fn parameters_mut(&mut self) -> &mut ParameterStore {
                &mut self.parameters
            }

            /// Makes tapes compute in `dtype` (BF16: mixed precision; F32: as the masters are). The layers' matrices get copies
            /// in it, and so do the activations between them up to the next LayerNorm; the residual stream, embedding tables,
            /// of which a batch reads few rows, biases, LayerNorm, heads, logits, loss and all gradients of parameters stay
            /// F32. The layers' biases have a copy beside, for cuBLASLt, which adds no other. PyTorch's autocast draws the
            /// line at the same places.
            ///
            /// # Errors
            /// Errors of the conversion.
            pub fn compute_in(&mut self, dtype: DType) -> Result<()> {
                let is_mixed = |parameter: &Parameter| {
                    let key = &parameter.parts[0].key;
                    key.starts_with("bert.encoder.") && !key.contains("LayerNorm")
                };
                for (_, parameter) in self.parameters.iter_mut().filter(|(_, parameter)| is_mixed(parameter)) {
                    parameter.compute_in(dtype)?;
                }
                Ok(())
            }

            /// Moves all parameters to a device: from then on everything is computed there.
            ///
            /// # Errors
            /// Errors of the device.
            pub fn to_device(&mut self, device: Device) -> Result<()> {
                for (_, parameter) in self.parameters.iter_mut() {
                    parameter.to_device(device)?;
                }
                Ok(())
            }

            /// Writes a folder that `transformers` loads as it is: config, weights in F32, tokenizer files. The files appear
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
                let tokenizer_files = tokenizer.files(self.config.max_position_embeddings);
                save::save(files, &self.config.to_json($architecture), &self.parameters, tokenizer_files)
            }

            /// Takes the room on the disk that `save_into` will need.
            ///
            /// # Errors
            /// `Io` for a full disk.
            pub fn reserve_in(&self, files: &mut StagedFiles, tokenizer: &Tokenizer) -> Result<()> {
                let tokenizer_files = tokenizer.files(self.config.max_position_embeddings);
                save::reserve(files, &self.config.to_json($architecture), &self.parameters, tokenizer_files)
            }

            fn pass<'a, 't>(&'a self, tape: &'t Tape, batch: &'a TokenBatch) -> Pass<'a, 't> {
                Pass { tape, parameters: &self.parameters, batch }
            }
        }
    };
}

model! {
    /// Tokens to hidden states, without a head.
    BertModel { encoder: Encoder } "BertModel"
}
model! {
    /// A class for each sequence: `classifier(dropout(tanh(pooler(h_cls))))`.
    BertForSequenceClassification { encoder: Encoder, head: ClassificationHead } "BertForSequenceClassification"
}
model! {
    /// A guess at the token for each position.
    BertForMaskedLm { encoder: Encoder, head: MaskedLmHead } "BertForMaskedLM"
}

/// What a classifier computes, with what was observed on the way.
pub struct Classified<'t> {
    /// `[B, labels]`.
    pub logits: Var<'t>,
    /// `tanh(W h_cls + b)`: `[B, C]`.
    pub pooled: Var<'t>,
    /// The encoder's part.
    pub encoded: Encoded<'t>,
}

/// A model read from a folder, and what a user should know about it.
pub struct Loaded<M> {
    /// The model.
    pub model: M,
    /// Its tokenizer, whose ids all exist in the model.
    pub tokenizer: Tokenizer,
    /// New and unused parameters, a line each kind; empty when everything fits.
    pub notes: Vec<String>,
}

impl BertModel {
    /// New weights, a function of the seed.
    ///
    /// # Errors
    /// `Config`; tensor errors.
    pub fn random(config: BertConfig, seed: u64) -> Result<Self> {
        let builder = Builder::random(seed, config.initializer_range);
        Ok(Self::build(config, builder)?.0)
    }

    /// The weights of a checkpoint.
    ///
    /// # Errors
    /// `Config`, `Weights`, and as [`Weights::take`].
    pub fn from_weights(config: BertConfig, weights: Weights) -> Result<(Self, KeyReport)> {
        let builder = Builder::from_weights(weights, 0, config.initializer_range);
        Self::build(config, builder)
    }

    fn build(config: BertConfig, mut builder: Builder) -> Result<(Self, KeyReport)> {
        config.check()?;
        let encoder = Encoder::new(&mut builder, &config)?;
        let (parameters, report) = builder.finish()?;
        Ok((BertModel { config, parameters, encoder }, report))
    }

    /// The batch to hidden states.
    ///
    /// # Errors
    /// Tensor and tape errors.
    pub fn forward<'t>(&self, tape: &'t Tape, batch: &TokenBatch, observe: &Observe) -> Result<Encoded<'t>> {
        self.encoder.forward(&self.pass(tape, batch), observe)
    }
}

impl BertForSequenceClassification {
    /// New weights, a function of the seed; as many classes as the config has labels.
    ///
    /// # Errors
    /// `Config`; tensor errors.
    pub fn random(config: BertConfig, seed: u64) -> Result<Self> {
        let builder = Builder::random(seed, config.initializer_range);
        Ok(Self::build(config, builder, true)?.0)
    }

    /// The weights of a checkpoint. With a `new_head_seed`, a checkpoint without a classifier gets a new one.
    ///
    /// # Errors
    /// `Config`, `Weights`, and as [`Weights::take`].
    pub fn from_weights(
        config: BertConfig,
        weights: Weights,
        new_head_seed: Option<u64>,
    ) -> Result<(Self, KeyReport)> {
        let builder = Builder::from_weights(weights, new_head_seed.unwrap_or(0), config.initializer_range);
        Self::build(config, builder, new_head_seed.is_some())
    }

    /// A trained classifier, from a model folder.
    ///
    /// # Errors
    /// Those of reading each file; `NoClassifier`.
    pub fn load(folder: &Path) -> Result<Loaded<Self>> {
        let (mut loaded, finished) = files::read_whole(folder, || Self::load_now(folder))?;
        loaded.notes.extend(finished);
        Ok(loaded)
    }

    fn load_now(folder: &Path) -> Result<Loaded<Self>> {
        let config = BertConfig::from_file(&folder.join(CONFIG_FILE))?;
        let tokenizer = tokenizer(folder, &config)?;
        let weights = Weights::open(folder)?;
        if !weights.contains("classifier.weight") {
            return Err(BertError::NoClassifier { folder: folder.to_owned() });
        }
        let (model, report) = Self::from_weights(config, weights, None)?;
        let notes = [tokenizer.notes(), &notes(&report)].concat();
        Ok(Loaded { model, tokenizer, notes })
    }

    /// A model folder to be fine-tuned on these classes. A new head has these; a trained one must have as many, and gets
    /// their names unless it has names of its own.
    ///
    /// # Errors
    /// Those of reading each file; `Weights` when a trained head has another number of classes.
    pub fn from_pretrained(folder: &Path, label_names: &[String], seed: u64) -> Result<Loaded<Self>> {
        let read = || Self::from_pretrained_now(folder, label_names, seed);
        let (mut loaded, finished) = files::read_whole(folder, read)?;
        loaded.notes.extend(finished);
        Ok(loaded)
    }

    fn from_pretrained_now(folder: &Path, label_names: &[String], seed: u64) -> Result<Loaded<Self>> {
        let config = BertConfig::from_file(&folder.join(CONFIG_FILE))?;
        let tokenizer = tokenizer(folder, &config)?;
        let weights = Weights::open(folder)?;
        let keep_names = weights.contains("classifier.weight")
            && config.num_labels() == label_names.len()
            && config.named_labels().is_some();
        let config = if keep_names { config } else { config.with_labels(label_names) };
        let (model, report) = Self::from_weights(config, weights, Some(seed))?;
        let notes = [tokenizer.notes(), &notes(&report)].concat();
        Ok(Loaded { model, tokenizer, notes })
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

    fn build(config: BertConfig, mut builder: Builder, new_head: bool) -> Result<(Self, KeyReport)> {
        config.check()?;
        let encoder = Encoder::new(&mut builder, &config)?;
        let head = ClassificationHead::new(&mut builder, &config, new_head)?;
        let (parameters, report) = builder.finish()?;
        Ok((BertForSequenceClassification { config, parameters, encoder, head }, report))
    }

    /// The batch to logits and what is observed. Observing hidden states or attention computes all rows of the last layer;
    /// otherwise only `[CLS]` rows are, with the same result.
    ///
    /// # Errors
    /// Tensor and tape errors.
    pub fn forward<'t>(
        &self,
        tape: &'t Tape,
        batch: &TokenBatch,
        observe: &Observe,
    ) -> Result<Classified<'t>> {
        let pass = self.pass(tape, batch);
        let encoded = self.encoder.forward_cls(&pass, observe)?;
        let pooled = self.head.pool(&pass, &encoded.last)?;
        let logits = self.head.classify(&pass, &pooled)?;
        Ok(Classified { logits, pooled, encoded })
    }

    /// The batch to logits `[B, labels]`.
    ///
    /// # Errors
    /// As [`BertForSequenceClassification::forward`].
    pub fn logits<'t>(&self, tape: &'t Tape, batch: &TokenBatch) -> Result<Var<'t>> {
        Ok(self.forward(tape, batch, &Observe::default())?.logits)
    }

    /// The mean cross entropy over the batch's sequences, a scalar.
    ///
    /// # Errors
    /// `Batch` without labels; as [`BertForSequenceClassification::forward`].
    pub fn loss<'t>(&self, tape: &'t Tape, batch: &TokenBatch) -> Result<Var<'t>> {
        let labels = batch.labels().ok_or_else(no_labels)?;
        let logits = self.logits(tape, batch)?;
        let _scope = tape.scope("loss");
        Ok(logits.cross_entropy(labels)?)
    }
}

impl BertForMaskedLm {
    /// New weights, a function of the seed.
    ///
    /// # Errors
    /// `Config`; tensor errors.
    pub fn random(config: BertConfig, seed: u64) -> Result<Self> {
        let builder = Builder::random(seed, config.initializer_range);
        Ok(Self::build(config, builder)?.0)
    }

    /// The weights of a checkpoint.
    ///
    /// # Errors
    /// `Config`, `Weights`, and as [`Weights::take`].
    pub fn from_weights(config: BertConfig, weights: Weights) -> Result<(Self, KeyReport)> {
        let builder = Builder::from_weights(weights, 0, config.initializer_range);
        Self::build(config, builder)
    }

    fn build(config: BertConfig, mut builder: Builder) -> Result<(Self, KeyReport)> {
        config.check()?;
        let encoder = Encoder::new(&mut builder, &config)?;
        let head = MaskedLmHead::new(&mut builder, &config, encoder.embeddings.word)?;
        let (parameters, report) = builder.finish()?;
        Ok((BertForMaskedLm { config, parameters, encoder, head }, report))
    }

    /// Logits over the vocabulary for these rows of the batch (numbered `0..T`): `[rows, V]`.
    ///
    /// # Errors
    /// Tensor and tape errors.
    pub fn logits<'t>(&self, tape: &'t Tape, batch: &TokenBatch, rows: &Arc<[u32]>) -> Result<Var<'t>> {
        let pass = self.pass(tape, batch);
        let encoded = self.encoder.forward(&pass, &Observe::default())?;
        self.head.forward(&pass, &encoded.last.gather_rows(rows)?)
    }

    /// The mean cross entropy of the tokens at these rows, a scalar.
    ///
    /// # Errors
    /// As [`BertForMaskedLm::logits`].
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

/// Any BERT folder, as the model that its weights are for: what `vitrine inspect` looks at.
pub struct AnyModel {
    config: BertConfig,
    parameters: ParameterStore,
    notes: Vec<String>,
}

impl AnyModel {
    /// The sizes and settings.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The parameters.
    pub fn parameters(&self) -> &ParameterStore {
        &self.parameters
    }

    /// As [`Loaded::notes`].
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Reads a folder as a classifier, a masked language model or a bare encoder, whichever its weights are.
///
/// # Errors
/// Those of reading each file.
pub fn load_any(folder: &Path) -> Result<AnyModel> {
    let (mut model, finished) = files::read_whole(folder, || load_any_now(folder))?;
    model.notes.extend(finished);
    Ok(model)
}

fn load_any_now(folder: &Path) -> Result<AnyModel> {
    let config = BertConfig::from_file(&folder.join(CONFIG_FILE))?;
    let weights = Weights::open(folder)?;
    if weights.contains("classifier.weight") {
        let (model, report) = BertForSequenceClassification::from_weights(config, weights, None)?;
        return Ok(AnyModel { config: model.config, parameters: model.parameters, notes: notes(&report) });
    }
    if weights.contains("cls.predictions.bias") {
        let (model, report) = BertForMaskedLm::from_weights(config, weights)?;
        return Ok(AnyModel { config: model.config, parameters: model.parameters, notes: notes(&report) });
    }
    let (model, report) = BertModel::from_weights(config, weights)?;
    Ok(AnyModel { config: model.config, parameters: model.parameters, notes: notes(&report) })
}

/// The folder's tokenizer, whose ids must exist in the model.
fn tokenizer(folder: &Path, config: &BertConfig) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::from_dir(folder)?.for_positions(config.max_position_embeddings);
    let size = tokenizer.vocabulary_size();
    if size <= config.vocab_size {
        return Ok(tokenizer);
    }
    let expected = format!("at least the tokenizer's {size} tokens");
    let origin = folder.join(CONFIG_FILE).display().to_string();
    Err(BertError::Config { origin, field: "vocab_size", expected, got: config.vocab_size.to_string() })
}

fn no_labels() -> BertError {
    BertError::Batch {
        sequence: 0,
        name: "labels",
        expected: "there, to compute a loss".into(),
        got: "none".into(),
    }
}

/// What a user should know about a checkpoint that fits.
fn notes(report: &KeyReport) -> Vec<String> {
    [("new, to be trained", &report.new), ("in the file, of no use to this model", &report.unexpected)]
        .into_iter()
        .filter(|(_, keys)| !keys.is_empty())
        .map(|(what, keys)| {
            let shown = keys[..keys.len().min(8)].join(", ");
            let others = if keys.len() > 8 { format!(" and {} more", keys.len() - 8) } else { String::new() };
            format!("{what}: {shown}{others}")
        })
        .collect()
}
