//! Fine-tuning and measuring, as the claims do it.

use crate::{ClaimError, Result, Setting};
use std::collections::BTreeMap;
use vitrine_bert::{Head, Loaded, MaskedLm, Place, SequenceClassifier, Source, Tokenizer};
use vitrine_train::data::Dataset;
use vitrine_train::data::batching::EvalBatch;
use vitrine_train::measurements::Measurements;
use vitrine_train::schedule::ScheduleKind;
use vitrine_train::{
    Evaluation, Observer, Rows, StepRecord, TokenizedDataset, TrainError, TrainSettings, ValidationSettings,
    evaluate, predict, train,
};

/// Texts that are classified at once.
const AT_ONCE: usize = 32;

/// A run's settings but for what claims vary.
pub fn settings(lr: f64, epochs: usize, warmup_steps: usize, seed: u64) -> TrainSettings {
    TrainSettings {
        epochs,
        batch_size: 16,
        micro_batch_size: None,
        eval_batch: EvalBatch::default(),
        lr,
        schedule: ScheduleKind::Linear,
        warmup_steps,
        weight_decay: 0.01,
        max_grad_norm: 1.0,
        seed,
        shuffle: true,
        group_by_length: false,
        checkpoint_layers: false,
        validation: ValidationSettings::default(),
        techniques: vitrine_train::techniques::Techniques::default(),
        measurements: Measurements { log_gradient_norms: true, profile_step: None },
    }
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Course {
    /// Every step.
    pub steps: Vec<StepRecord>,
    /// The mean norm of each part's gradient over the steps.
    pub norms: Vec<(Place, f64)>,
}

/// Remembers a run, and ends it when the setting's watch says so.
struct Recorder<'a> {
    setting: &'a Setting<'a>,
    what: &'a str,
    course: Course,
    sums: BTreeMap<Place, f64>,
    stopped: bool,
}

impl Observer for Recorder<'_> {
    fn step(&mut self, record: &StepRecord, total: usize) -> vitrine_train::Result<()> {
        self.course.steps.push(*record);
        let text = format!("{}: step {} of {total}", self.what, record.step);
        self.stopped = !(self.setting.watch)(&text);
        Ok(())
    }

    fn gradient_norms(&mut self, _: usize, norms: &[(Place, f64)]) -> vitrine_train::Result<()> {
        for &(place, norm) in norms {
            *self.sums.entry(place).or_default() += norm;
        }
        Ok(())
    }

    fn wants_to_stop(&self) -> bool {
        self.stopped
    }
}

/// Fine-tunes a new classifier of the rows' classes on an encoder. `what` is said while it goes.
pub fn fine_tune(
    setting: &Setting,
    source: &Source,
    rows: &Dataset,
    (max_length, tokenizer): (usize, Option<&Tokenizer>),
    settings: &TrainSettings,
    what: &str,
) -> Result<(SequenceClassifier, Tokenizer, Course)> {
    let head = Head::New { names: &rows.label_names, seed: settings.seed };
    let Loaded { mut model, tokenizer: own, .. } = SequenceClassifier::load_with(source, head)?;
    let tokenizer = tokenizer.cloned().unwrap_or(own);
    let max_length = max_length.min(model.config().max_length());
    let tokens = TokenizedDataset::new(rows, &tokenizer, max_length)?;
    settings.techniques.prepare(&mut model, settings.seed)?;
    let mut recorder =
        Recorder { setting, what, course: Course::default(), sums: BTreeMap::new(), stopped: false };
    let rows = Rows { train: &tokens, validation: None };
    match train(&mut model, rows, settings, None, &mut recorder) {
        Ok(_) => {}
        Err(TrainError::Interrupted { .. }) => return Err(ClaimError::Stopped),
        Err(error) => return Err(error.into()),
    }
    let Recorder { mut course, sums, .. } = recorder;
    let steps = course.steps.len().max(1) as f64;
    course.norms = sums.into_iter().map(|(place, sum)| (place, sum / steps)).collect();
    Ok((model, tokenizer, course))
}

/// What a classifier says of labelled rows.
pub fn measured(
    setting: &Setting,
    model: &SequenceClassifier,
    tokenizer: &Tokenizer,
    rows: &Dataset,
    max_length: usize,
) -> Result<Evaluation> {
    let tokens = TokenizedDataset::new(rows, tokenizer, max_length.min(model.config().max_length()))?;
    let stopped = std::cell::Cell::new(false);
    let mut watch = |done: usize| {
        if (setting.watch)(&format!("{done} of {} reviews", rows.len())) {
            return Ok(());
        }
        stopped.set(true);
        Err(TrainError::Interrupted { step: 0, total: 0, checkpoint: None })
    };
    let evaluation = evaluate(model, &tokens, EvalBatch::default(), &mut watch);
    if stopped.get() {
        return Err(ClaimError::Stopped);
    }
    Ok(evaluation?)
}

/// Which rows are right.
pub fn right(evaluation: &Evaluation) -> Vec<bool> {
    let predictions = &evaluation.predictions;
    (0..predictions.len()).map(|row| predictions.is_correct(row)).collect()
}

/// The probability of the second class, positive, for each text.
pub fn probabilities(loaded: &Loaded<SequenceClassifier>, texts: &[String]) -> Result<Vec<f64>> {
    let mut all = Vec::with_capacity(texts.len());
    for texts in texts.chunks(AT_ONCE) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let predictions = predict(&loaded.model, &loaded.tokenizer, &texts)?;
        all.extend(predictions.iter().map(|one| f64::from(one.probabilities[1])));
    }
    Ok(all)
}

/// Gives a masked language model the encoder of a classifier: what is left of its head's knowledge is then measured.
pub fn transplant(from: &SequenceClassifier, into: &mut MaskedLm) -> Result<()> {
    let mut values = BTreeMap::new();
    for (_, parameter) in from.parameters().iter() {
        values.insert(parameter.name(), parameter.value.clone());
    }
    for (_, parameter) in into.parameters_mut().iter_mut() {
        if let Some(value) = values.get(&parameter.name()) {
            parameter.value = value.clone();
        }
    }
    Ok(())
}
