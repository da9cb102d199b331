//! [`Subject`]: what is explained, a model of any kind with its tokenizer.

use crate::{ExplainError, Result};
use vitrine_autograd::{Tape, Var};
use vitrine_bert::{
    BaseModel, BertError, Checkpoint, Head, Loaded, MaskedLm, ModelConfig, Point, SequenceClassifier, Source,
    Taps, TokenBatch, Tokenizer, Truncation,
};
use vitrine_nn::{Model, ParameterStore};
use vitrine_tensor::{DType, Device, Tensor};

/// What the weights are.
enum Kind {
    Encoder(BaseModel),
    Classifier(SequenceClassifier),
    MaskedLm(MaskedLm),
}

/// A model and its tokenizer. Its parameters are frozen: gradients are computed of what it computes only.
///
/// Nothing is drawn at random and no call changes it, so threads may share it.
pub struct Subject {
    kind: Kind,
    tokenizer: Tokenizer,
    name: String,
    notes: Vec<String>,
    /// Another model, whose head the lens looks through.
    lens: Option<MaskedLm>,
}

impl Subject {
    /// Reads a model as a classifier, a masked language model or an encoder, whichever its weights are, to compute on the CPU in F32.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`], [`Checkpoint::classifier`], [`Checkpoint::masked_lm`] and [`Checkpoint::base`].
    pub fn load(source: impl Into<Source>) -> Result<Subject> {
        let source = source.into();
        let name = source.path().display().to_string();
        let (loaded, finished) = Checkpoint::read(source, read_kind)?;
        let mut subject = Subject::new(loaded.model, loaded.tokenizer, name);
        subject.notes = loaded.notes;
        subject.notes.extend(finished);
        Ok(subject)
    }

    /// A classifier in memory, such as one that is being trained.
    pub fn from_classifier(model: SequenceClassifier, tokenizer: Tokenizer) -> Subject {
        Subject::new(Kind::Classifier(model), tokenizer, "this model".into())
    }

    /// A masked language model in memory.
    pub fn from_masked_lm(model: MaskedLm, tokenizer: Tokenizer) -> Subject {
        Subject::new(Kind::MaskedLm(model), tokenizer, "this model".into())
    }

    fn new(mut kind: Kind, tokenizer: Tokenizer, name: String) -> Subject {
        freeze(kind.parameters_mut());
        Subject { kind, tokenizer, name, notes: Vec::new(), lens: None }
    }

    /// Takes the masked-language-model head of another model for the lens, such as that of the model which this one was fine-tuned
    /// from. Words are those of this model's tokenizer.
    ///
    /// # Errors
    /// As [`MaskedLm::load`]; `OtherSizes` for a head of another width or vocabulary.
    pub fn borrow_head(&mut self, source: impl Into<Source>) -> Result<()> {
        let source = source.into();
        let name = source.path().display().to_string();
        let mut other = MaskedLm::load(source)?;
        let sizes = |config: &ModelConfig| [config.hidden_size, config.vocab_size];
        let (expected, got) = (sizes(self.config()), sizes(other.model.config()));
        if expected != got {
            return Err(ExplainError::OtherSizes { model: name, expected, got });
        }
        freeze(other.model.parameters_mut());
        self.notes.extend(other.notes);
        self.lens = Some(other.model);
        Ok(())
    }

    /// Moves the parameters to a device and computes in `dtype` there. F32 is what explanations are tested in.
    ///
    /// # Errors
    /// Errors of the device and of the conversion.
    pub fn prepare(&mut self, device: Device, dtype: DType) -> Result<()> {
        let lens = self.lens.as_mut().map(Model::parameters_mut);
        for parameters in [Some(self.kind.parameters_mut()), lens].into_iter().flatten() {
            parameters.to_device(device)?;
            parameters.compute_in(dtype)?;
        }
        Ok(())
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a user should know about its files, a line each; usually nothing.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The sizes and settings.
    pub fn config(&self) -> &ModelConfig {
        match &self.kind {
            Kind::Encoder(model) => model.config(),
            Kind::Classifier(model) => model.config(),
            Kind::MaskedLm(model) => model.config(),
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Cuts long texts so from now on.
    pub fn set_truncation(&mut self, truncation: Truncation) {
        self.tokenizer = self.tokenizer.clone().with_truncation(truncation);
    }

    /// The parameters.
    pub fn parameters(&self) -> &ParameterStore {
        match &self.kind {
            Kind::Encoder(model) => model.parameters(),
            Kind::Classifier(model) => model.parameters(),
            Kind::MaskedLm(model) => model.parameters(),
        }
    }

    /// The names of the trained classifier's classes; none without one.
    pub fn classes(&self) -> Option<Vec<String>> {
        matches!(self.kind, Kind::Classifier(_)).then(|| self.config().label_names())
    }

    /// Whether there is a head that guesses tokens, for the lens.
    pub fn has_masked_lm(&self) -> bool {
        self.masked_lm().is_some()
    }

    /// The model whose head guesses tokens: this one, or the one that it is borrowed from.
    pub(crate) fn masked_lm(&self) -> Option<&MaskedLm> {
        match &self.kind {
            Kind::MaskedLm(model) => Some(model),
            Kind::Encoder(_) | Kind::Classifier(_) => self.lens.as_ref(),
        }
    }

    /// Refuses a model without a classifier, and a class that it does not have.
    ///
    /// # Errors
    /// `NoClassifier`, `NoClass`.
    pub fn check_class(&self, class: usize) -> Result<()> {
        if !matches!(self.kind, Kind::Classifier(_)) {
            return Err(ExplainError::NoClassifier { model: self.name.clone() });
        }
        match self.config().num_labels() {
            classes if class < classes => Ok(()),
            classes => Err(ExplainError::NoClass { class, classes }),
        }
    }

    /// Copies of one text as a batch.
    pub(crate) fn copies(&self, ids: &[u32], count: usize) -> Result<TokenBatch> {
        Ok(TokenBatch::new(std::iter::repeat_n(ids, count), None, self.config())?)
    }

    /// Runs a batch for what taps see. Returns the logits of classes `[B, K]`; none without a classifier.
    pub(crate) fn run<'t>(&self, tape: &'t Tape, batch: &TokenBatch, taps: &Taps) -> Result<Option<Var<'t>>> {
        Ok(match &self.kind {
            Kind::Encoder(model) => {
                model.forward(tape, batch, taps)?;
                None
            }
            Kind::Classifier(model) => Some(model.forward(tape, batch, taps)?.logits),
            Kind::MaskedLm(model) => {
                model.forward(tape, batch, &batch.offsets().firsts().into(), taps)?;
                None
            }
        })
    }

    /// As [`run`](Self::run), of a classifier.
    pub(crate) fn logits<'t>(&self, tape: &'t Tape, batch: &TokenBatch, taps: &Taps) -> Result<Var<'t>> {
        let none = || ExplainError::NoClassifier { model: self.name.clone() };
        self.run(tape, batch, taps)?.ok_or_else(none)
    }

    /// The word embeddings of these tokens alone, row-major `[ids.len(), C]`.
    pub(crate) fn words(&self, ids: &[u32]) -> Result<Vec<f64>> {
        let mut taps = Taps::new();
        let words = taps.read(Point::Words);
        self.run(&Tape::inference(), &self.copies(ids, 1)?, &taps)?;
        numbers(&taps.value(words)?)
    }
}

fn read_kind(checkpoint: Checkpoint) -> std::result::Result<Loaded<Kind>, BertError> {
    fn kind<M>(loaded: Loaded<M>, kind: impl Fn(M) -> Kind) -> Loaded<Kind> {
        Loaded { model: kind(loaded.model), tokenizer: loaded.tokenizer, notes: loaded.notes }
    }
    if checkpoint.is_classifier() {
        return Ok(kind(checkpoint.classifier(Head::Keep)?, Kind::Classifier));
    }
    if checkpoint.is_masked_lm() {
        return Ok(kind(checkpoint.masked_lm()?, Kind::MaskedLm));
    }
    Ok(kind(checkpoint.base()?, Kind::Encoder))
}

impl Kind {
    fn parameters_mut(&mut self) -> &mut ParameterStore {
        match self {
            Kind::Encoder(model) => model.parameters_mut(),
            Kind::Classifier(model) => model.parameters_mut(),
            Kind::MaskedLm(model) => model.parameters_mut(),
        }
    }
}

fn freeze(parameters: &mut ParameterStore) {
    parameters.iter_mut().for_each(|(_, parameter)| parameter.trainable = false);
}

/// The elements of a tensor in row-major order, wherever and whatever it is.
pub(crate) fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.contiguous()?.to_device(Device::Cpu)?.to_dtype(DType::F64)?.to_vec()?)
}
