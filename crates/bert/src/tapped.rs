//! [`TappedModel`]: whatever a folder holds, to be read at its points.

use crate::{
    BaseModel, Checkpoint, Head, Loaded, MaskedLm, ModelConfig, Result, SequenceClassifier, TokenBatch,
    Tokenizer,
};
use std::sync::Arc;
use vitrine_autograd::Tape;
use vitrine_nn::{Extent, Point, Source, Taps};
use vitrine_tensor::{DType, Device};

/// What a folder's weights are.
enum Kind {
    Encoder(BaseModel),
    Classifier(SequenceClassifier),
    MaskedLm(MaskedLm),
}

/// A model of any kind, of which only what taps see is wanted.
pub struct TappedModel {
    kind: Kind,
    points: Vec<Point>,
}

impl TappedModel {
    /// Reads a folder, or files in memory, as a classifier, a masked language model or an encoder, whichever its weights are. An encoder with a pooler, such
    /// as `BertModel` saves, has the point `pooler` too.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`], [`Checkpoint::classifier`] and [`Checkpoint::masked_lm`].
    pub fn load(source: impl Into<Source>) -> Result<Loaded<Self>> {
        let (mut loaded, finished) = Checkpoint::read(source, Self::from_checkpoint)?;
        loaded.notes.extend(finished);
        Ok(loaded)
    }

    fn from_checkpoint(checkpoint: Checkpoint) -> Result<Loaded<Self>> {
        let points = checkpoint.points();
        if checkpoint.is_classifier() {
            return Ok(checkpoint
                .classifier(Head::Keep)?
                .map(|model| TappedModel { kind: Kind::Classifier(model), points }));
        }
        if checkpoint.is_masked_lm() {
            return Ok(checkpoint
                .masked_lm()?
                .map(|model| TappedModel { kind: Kind::MaskedLm(model), points }));
        }
        if checkpoint.has_pooler() {
            let names = ["0", "1"].map(str::to_owned);
            let loaded = checkpoint.classifier(Head::New { names: &names, seed: 0 })?;
            let model = loaded.map(|model| TappedModel { kind: Kind::Classifier(model), points });
            // The classifier is new, but its result is no point, so nothing is to be said of it.
            let notes = model.notes.into_iter().filter(|note| !note.starts_with("new, ")).collect();
            return Ok(Loaded { model: model.model, tokenizer: model.tokenizer, notes });
        }
        Ok(checkpoint.base()?.map(|model| TappedModel { kind: Kind::Encoder(model), points }))
    }

    /// The sizes and settings.
    pub fn config(&self) -> &ModelConfig {
        match &self.kind {
            Kind::Encoder(model) => model.config(),
            Kind::Classifier(model) => model.config(),
            Kind::MaskedLm(model) => model.config(),
        }
    }

    /// The points that may be tapped, in the order in which they are computed.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Moves the parameters to a device and computes in `dtype` there.
    ///
    /// # Errors
    /// Errors of the device and of the conversion.
    pub fn prepare(&mut self, device: Device, dtype: DType) -> Result<()> {
        match &mut self.kind {
            Kind::Encoder(model) => model.to_device(device).and_then(|()| model.compute_in(dtype)),
            Kind::Classifier(model) => model.to_device(device).and_then(|()| model.compute_in(dtype)),
            Kind::MaskedLm(model) => model.to_device(device).and_then(|()| model.compute_in(dtype)),
        }
    }

    /// Runs the batch for what the taps see. A masked language model guesses at every token if one of its head's points is `wanted`.
    ///
    /// # Errors
    /// Tensor and tape errors; `Tap` for a tap that the model does not have.
    pub fn run(&self, tape: &Tape, batch: &TokenBatch, taps: &Taps, wanted: &[Point]) -> Result<()> {
        match &self.kind {
            Kind::Encoder(model) => model.forward(tape, batch, taps).map(drop),
            Kind::Classifier(model) => model.forward(tape, batch, taps).map(drop),
            Kind::MaskedLm(model) => {
                let rows: Arc<[u32]> = match wanted.iter().any(|point| point.shape().contains(&Extent::Rows))
                {
                    true => (0..batch.len() as u32).collect(),
                    false => batch.offsets().firsts().into(),
                };
                model.forward(tape, batch, &rows, taps).map(drop)
            }
        }
    }

    /// The size of a tap's value, where the model says it; none for tokens, sequences and rows.
    pub fn size(config: &ModelConfig, extent: Extent) -> Option<usize> {
        match extent {
            Extent::Width => Some(config.hidden_size),
            Extent::Heads => Some(config.num_attention_heads),
            Extent::Inner => Some(config.intermediate_size),
            Extent::Labels => Some(config.num_labels()),
            Extent::Vocabulary => Some(config.vocab_size),
            Extent::Tokens | Extent::Sequences | Extent::Rows | Extent::Sequence => None,
        }
    }
}

impl<M> Loaded<M> {
    /// The same with another model.
    fn map<N>(self, f: impl FnOnce(M) -> N) -> Loaded<N> {
        let (tokenizer, notes): (Tokenizer, _) = (self.tokenizer, self.notes);
        Loaded { model: f(self.model), tokenizer, notes }
    }
}
