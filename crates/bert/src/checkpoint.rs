//! [`Checkpoint`]: a model folder that is open, and the models that can be read from it. Every command that is given a model
//! comes through here.

use crate::config::{MAX_LABELS, at};
use crate::encoder::Encoder;
use crate::folder::{check_model_folder, unfinished_run};
use crate::heads::{ClassificationHead, MaskedLmHead};
use crate::labels::numbered_labels;
use crate::{
    BaseModel, BertError, CONFIG_FILE, Family, KeyReport, MaskedLm, ModelConfig, Result, SequenceClassifier,
    Tokenizer, Weights, files,
};
use vitrine_nn::ParameterStore;
use vitrine_nn::listed;
use vitrine_nn::{Builder, NnError, Point, Source};

/// Which classifier stands on the encoder of a checkpoint.
#[derive(Clone, Copy, Debug)]
pub enum Head<'a> {
    /// The checkpoint's, with its classes: what evaluating and predicting need.
    Keep,
    /// A new one for classes of these names, whatever the checkpoint has; its pooler stays if it has one.
    New {
        /// The names, in the order of the classes.
        names: &'a [String],
        /// What the new weights are a function of.
        seed: u64,
    },
    /// The checkpoint's if it has one, whose classes are called so from now on; else a new one.
    KeepOrNew {
        /// The names, in the order of the classifier's rows; as many as it has.
        names: &'a [String],
        /// What new weights are a function of.
        seed: u64,
    },
}

/// A model that was read, and what a user should know about it.
pub struct Loaded<M> {
    /// The model.
    pub model: M,
    /// Its tokenizer, whose ids all exist in the model.
    pub tokenizer: Tokenizer,
    /// New and unused parameters and contradictions in the files, a line each kind; empty when everything fits.
    pub notes: Vec<String>,
}

/// An open model, of a folder or in memory: its config is read, and of its weights the names and shapes. Nothing of the size of a model is
/// allocated before these are found to fit.
pub struct Checkpoint {
    source: Source,
    config: ModelConfig,
    weights: Weights,
}

impl Checkpoint {
    /// Opens a model: a folder, or files in memory.
    ///
    /// # Errors
    /// `Unusable` for what is no model folder, with what to pass instead; as [`ModelConfig::from_source`] and [`Weights::open`].
    pub fn open(source: impl Into<Source>) -> Result<Self> {
        let source = source.into();
        if let Some(folder) = source.folder() {
            check_model_folder(folder)?;
        }
        let config = ModelConfig::from_source(&source)?;
        let weights = Weights::open(&source, &config.family.names)?;
        Ok(Checkpoint { source, config, weights })
    }

    /// Opens a model for `read`. What a killed run has begun to replace in its folder is finished first, which the second value
    /// says, and everything is read again if a run replaces the model meanwhile.
    ///
    /// # Errors
    /// `Folder` if the folder does not come to rest; as [`Checkpoint::open`]; those of `read`.
    pub fn read<T>(
        source: impl Into<Source>,
        read: impl Fn(Checkpoint) -> Result<T>,
    ) -> Result<(T, Option<String>)> {
        let source = source.into();
        let open = || read(Checkpoint::open(&source)?);
        // What is in memory does not change.
        let Some(folder) = source.folder() else { return Ok((open()?, None)) };
        let (value, note) = files::read_whole(folder, open)?;
        let run = unfinished_run(folder);
        let older = run.map(|run| format!("{}: the model there is from before: {run}", folder.display()));
        Ok((value, note.or(older)))
    }

    /// The sizes and settings.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The names of the trained classifier's classes, in order (`LABEL_0`, `LABEL_1`, .. where nobody chose any); none without a
    /// classifier of texts.
    ///
    /// # Errors
    /// `Config` when config.json and the weights contradict each other, and for a regression.
    pub fn classes(&self) -> Result<Option<Vec<String>>> {
        let Some(rows) = self.rows().filter(|_| self.config.classifies_texts()) else { return Ok(None) };
        self.config.classes(rows).map(Some).map_err(|error| self.in_config(error))
    }

    /// The classifier of this folder, under this head.
    ///
    /// # Errors
    /// `Config`, `Weights`; `NoClassifier` where there is none to keep; `Classes` where the one that is kept has another number of
    /// classes than `names`; those of reading the weights and the tokenizer.
    pub fn classifier(mut self, head: Head) -> Result<Loaded<SequenceClassifier>> {
        let mut notes = self.notes();
        let (names, seed, kept) = match head {
            Head::Keep => (self.classes()?, None, true),
            Head::New { names, seed } => (Some(names.to_vec()), Some(seed), false),
            Head::KeepOrNew { names, seed } => {
                let has = self.classes()?;
                if let Some(has) = has.as_ref().filter(|has| has.len() != names.len()) {
                    let (folder, has, wanted) = (self.source.path().to_owned(), has.clone(), names.to_vec());
                    return Err(BertError::Classes { folder, has, wanted });
                }
                (Some(names.to_vec()), Some(seed), has.is_some())
            }
        };
        if !kept || !self.config.classifies_texts() {
            if let Some(rows) = self.rows() {
                notes.push(format!("the classifier in the file, of {rows} rows, is not used"));
            }
            // A layer in front of it that belongs to the base model stays.
            let (names, base) = (&self.config.family.classifier, self.config.family.names.base);
            for name in [names.dense, names.output].iter().filter(|name| !name.starts_with(base)) {
                ["weight", "bias"].iter().for_each(|part| self.weights.discard(&format!("{name}.{part}")));
            }
        }
        if let Some(names) = names {
            self.config = self.config.with_labels(&names);
        }
        if seed.is_some() {
            self.config.check_training().map_err(|error| self.in_config(error))?;
        }
        let Checkpoint { source, config, weights } = self;
        let output = config.family.classifier.output;
        let without_head =
            !["weight", "bias"].iter().any(|part| weights.contains(&format!("{output}.{part}")));
        let family = config.family;
        let tokenizer = tokenizer(&source, &config)?;
        let built = SequenceClassifier::from_weights(config, weights, seed);
        let (model, report) = built.map_err(|error| match error {
            BertError::Nn(NnError::Weights { report, .. })
                if without_head && only_head_is_missing(&report, family) =>
            {
                let others = match report.unexpected.as_slice() {
                    [] => String::new(),
                    unexpected => format!(" (and {})", listed(unexpected)),
                };
                BertError::NoClassifier { folder: source.path().to_owned(), others }
            }
            other => at(&source.path_of(CONFIG_FILE), other),
        })?;
        notes.extend_from_slice(tokenizer.notes());
        notes.extend(about(&report));
        Ok(Loaded { model, tokenizer, notes })
    }

    /// The masked language model of this folder.
    ///
    /// # Errors
    /// `Unusable` where the weights have no head that guesses tokens; `Config`, `Weights`; those of reading the weights and the
    /// tokenizer.
    pub fn masked_lm(self) -> Result<Loaded<MaskedLm>> {
        let mut notes = self.notes();
        let Checkpoint { source, config, weights } = self;
        let path = source.path_of(CONFIG_FILE);
        if !weights.contains(config.family.masked_lm.bias) {
            let class = config.family.architecture("ForMaskedLM");
            let why = format!(
                "no masked-language-model head in it; it takes a pretrained model ({class}), or one of `vitrine pretrain`"
            );
            return Err(BertError::Unusable { path: source.path().to_owned(), why });
        }
        config.check_masked_lm().map_err(|error| at(&path, error))?;
        let tokenizer = tokenizer(&source, &config)?;
        let (model, report) = MaskedLm::from_weights(config, weights).map_err(|error| at(&path, error))?;
        notes.extend_from_slice(tokenizer.notes());
        notes.extend(about(&report));
        Ok(Loaded { model, tokenizer, notes })
    }

    /// The encoder of this folder, whatever stands on it.
    ///
    /// # Errors
    /// `Config`, `Weights`; those of reading the weights and the tokenizer.
    pub fn base(self) -> Result<Loaded<BaseModel>> {
        let mut notes = self.notes();
        let Checkpoint { source, config, weights } = self;
        let tokenizer = tokenizer(&source, &config)?;
        let built = BaseModel::from_weights(config, weights);
        let (model, report) = built.map_err(|error| at(&source.path_of(CONFIG_FILE), error))?;
        notes.extend_from_slice(tokenizer.notes());
        notes.extend(about(&report));
        Ok(Loaded { model, tokenizer, notes })
    }

    /// The points at which the model of this folder can be tapped: those of [`TappedModel`](crate::TappedModel).
    pub fn points(&self) -> Vec<Point> {
        let head: &[Point] = match () {
            () if self.is_classifier() => &[Point::Pooler, Point::Logits],
            () if self.is_masked_lm() => &[Point::MaskedTransform, Point::MaskedLogits],
            () if self.has_pooler() => &[Point::Pooler],
            () => &[],
        };
        [&Point::of_encoder(self.config.num_hidden_layers)[..], head].concat()
    }

    /// Whether the weights have a trained classifier of texts.
    pub fn is_classifier(&self) -> bool {
        self.rows().is_some() && self.config.classifies_texts()
    }

    /// Whether the weights have a head that guesses tokens.
    pub fn is_masked_lm(&self) -> bool {
        self.weights.contains(self.config.family.masked_lm.bias)
    }

    /// Whether the encoder comes with the hidden layer of a classifier, as `BertModel` does.
    pub fn has_pooler(&self) -> bool {
        let (names, base) = (&self.config.family.classifier, self.config.family.names.base);
        names.dense.starts_with(base) && self.weights.contains(&format!("{}.weight", names.dense))
    }

    /// As a classifier, a masked language model or a bare encoder, whichever the weights are. What is looked at need not be
    /// usable: a classifier may also be a regression.
    ///
    /// # Errors
    /// `Config`, `Weights`; those of reading the weights.
    pub fn any(self) -> Result<AnyModel> {
        let mut notes = self.notes();
        let path = self.source.path_of(CONFIG_FILE);
        let (config, builder) = self.plan()?;
        let (parameters, report) = builder.finish().map_err(|error| at(&path, error.into()))?;
        notes.extend(about(&report));
        Ok(AnyModel { config, parameters, notes })
    }

    /// Compares the names and shapes of the weights with the config, and reads nothing else.
    ///
    /// # Errors
    /// `Config`, `Weights`.
    pub fn check(self) -> Result<KeyReport> {
        Ok(self.plan()?.1.report()?)
    }

    /// The parameters of the model that the weights are for, not read yet.
    fn plan(self) -> Result<(ModelConfig, Builder)> {
        let Checkpoint { mut config, weights, source } = self;
        let rows = classifier_rows(&config, &weights);
        let is_masked_lm = weights.contains(config.family.masked_lm.bias);
        let mut builder = Builder::from_weights(weights, 0, config.initializer_range);
        let encoder = Encoder::new(&mut builder, &config)?;
        match rows {
            Some(rows) if config.classifies_texts() => {
                match config.classes(rows) {
                    Ok(names) => config = config.with_labels(&names),
                    // What is looked at has as many as it has.
                    Err(_) if rows != config.num_labels() && rows <= MAX_LABELS => {
                        config.id2label = numbered_labels(rows);
                    }
                    Err(_) => {}
                }
                ClassificationHead::new(&mut builder, &config, false)?;
            }
            _ if is_masked_lm => {
                config.check_masked_lm().map_err(|error| at(&source.path_of(CONFIG_FILE), error))?;
                MaskedLmHead::new(&mut builder, &config, encoder.embeddings.word)?;
            }
            _ => {}
        }
        Ok((config, builder))
    }

    /// The rows of the trained classifier.
    fn rows(&self) -> Option<usize> {
        classifier_rows(&self.config, &self.weights)
    }

    fn notes(&self) -> Vec<String> {
        [self.config.notes(), self.weights.notes().to_vec()].concat()
    }

    fn in_config(&self, error: BertError) -> BertError {
        at(&self.source.path_of(CONFIG_FILE), error)
    }
}

fn classifier_rows(config: &ModelConfig, weights: &Weights) -> Option<usize> {
    weights.dims(&format!("{}.weight", config.family.classifier.output))?.first().copied()
}

/// Whether an encoder is complete and nothing but a classifier's part is missing.
fn only_head_is_missing(report: &KeyReport, family: &Family) -> bool {
    report.misshaped.is_empty() && report.missing.iter().all(|(key, _)| family.is_in_classifier(key))
}

/// Any model folder, as the model that its weights are for: what `vitrine inspect` looks at.
pub struct AnyModel {
    config: ModelConfig,
    parameters: ParameterStore,
    notes: Vec<String>,
}

impl AnyModel {
    /// The sizes and settings.
    pub fn config(&self) -> &ModelConfig {
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

/// Reads whatever model the weights are: [`Checkpoint::any`].
///
/// # Errors
/// Those of [`Checkpoint::open`] and [`Checkpoint::any`].
pub fn load_any(source: impl Into<Source>) -> Result<AnyModel> {
    let (mut model, finished) = Checkpoint::read(source, Checkpoint::any)?;
    model.notes.extend(finished);
    Ok(model)
}

/// The model's tokenizer, whose ids must exist in the model.
fn tokenizer(source: &Source, config: &ModelConfig) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::from_dir(source)?.for_positions(config.max_length());
    let size = tokenizer.vocabulary_size();
    if size <= config.vocab_size {
        return Ok(tokenizer);
    }
    let expected = format!("at least the tokenizer's {size} tokens");
    let origin = source.path_of(CONFIG_FILE).display().to_string();
    Err(BertError::Config { origin, field: "vocab_size", expected, got: config.vocab_size.to_string() })
}

/// What a user should know about a checkpoint that fits.
fn about(report: &KeyReport) -> Vec<String> {
    [("new, to be trained", &report.new), ("in the file, of no use to this model", &report.unexpected)]
        .into_iter()
        .filter(|(_, keys)| !keys.is_empty())
        .map(|(what, keys)| format!("{what}: {}", listed(keys)))
        .collect()
}
