//! [`ClassificationLoss`]: cross entropy with label smoothing and class weights, and what a teacher adds to it.

use super::Distillation;
use crate::{MicroBatch, Result, TrainError};
use serde::{Deserialize, Serialize};
use vitrine_autograd::{Tape, Var};
use vitrine_bert::{Classified, SequenceClassifier, TokenBatch};
use vitrine_tensor::Tensor;

/// The loss of a batch, as `torch.nn.CrossEntropyLoss(weight, label_smoothing)` with its weighted mean. With logits `x: [B, K]`,
/// labels y, class weights w and smoothing e:
///
/// `loss = sum_b sum_k t[b, k] (-log_softmax(x)[b, k]) / sum_b w[y_b]`, `t[b, k] = w[k] ((1 - e) [k = y_b] + e / K)`.
///
/// Without weights and smoothing it is one fused operation, else `log_softmax`, a product and a sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassificationLoss {
    /// The share of a target that is spread evenly over all classes, from 0 to below 1 (Szegedy et al., arXiv 1512.00567).
    #[serde(default)]
    pub label_smoothing: f64,
    /// A weight above 0 for each class; all 1 if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<Vec<f64>>,
    /// How much a teacher counts, where there is one.
    #[serde(flatten)]
    pub distillation: Option<Distillation>,
}

/// `rows / (classes * rows of the class)`: scikit-learn's `class_weight="balanced"`.
///
/// # Errors
/// `Technique` for a class without rows, which would weigh infinitely much.
pub fn balanced_class_weights(counts: &[usize], names: &[String]) -> Result<Vec<f64>> {
    let rows: usize = counts.iter().sum();
    if let Some(class) = counts.iter().position(|&count| count == 0) {
        let name = names.get(class).map_or_else(|| class.to_string(), Clone::clone);
        let why =
            format!("balanced needs rows of every class, and `{name}` has none; give the weights as numbers");
        return Err(TrainError::Technique { option: "--class-weights", why });
    }
    Ok(counts.iter().map(|&count| rows as f64 / (counts.len() * count) as f64).collect())
}

impl ClassificationLoss {
    /// Whether it fits so many classes.
    ///
    /// # Errors
    /// `Technique` for another number of weights, a weight that is not above 0, or a smoothing outside of [0, 1).
    pub fn check(&self, classes: usize) -> Result<()> {
        let smoothing = self.label_smoothing;
        if !(0.0..1.0).contains(&smoothing) {
            let why = format!("{smoothing} is not from 0 to below 1");
            return Err(TrainError::Technique { option: "--label-smoothing", why });
        }
        self.distillation.map_or(Ok(()), |distillation| distillation.check())?;
        let Some(weights) = &self.class_weights else { return Ok(()) };
        let why = if weights.len() != classes {
            format!("{} weights for {classes} classes", weights.len())
        } else if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
            format!("{weight} is not a number above 0")
        } else {
            return Ok(());
        };
        Err(TrainError::Technique { option: "--class-weights", why })
    }

    /// What the mean over a batch's rows is divided by: the number of rows, or the sum of their classes' weights. The loss of a
    /// batch in pieces is the mean of the pieces' losses, weighted by this.
    pub fn weight(&self, labels: &[u32]) -> f64 {
        labels.iter().map(|&label| self.row_weight(label, true)).sum()
    }

    /// The same of rows of which some have no label.
    pub(super) fn weight_of(&self, labels: &[u32], labelled: &[bool]) -> f64 {
        labels.iter().zip(labelled).map(|(&label, &is_labelled)| self.row_weight(label, is_labelled)).sum()
    }

    /// What a row weighs: as much as its class; 1 without a label.
    pub(super) fn row_weight(&self, label: u32, is_labelled: bool) -> f64 {
        self.class_weights.as_ref().filter(|_| is_labelled).map_or(1.0, |weights| weights[label as usize])
    }

    /// `t[b, k]` of the class k of so many, for a row with this label.
    pub(super) fn target(&self, label: u32, class: usize, classes: usize) -> f64 {
        let hit = if label as usize == class { 1.0 - self.label_smoothing } else { 0.0 };
        let weight = self.class_weights.as_ref().map_or(1.0, |weights| weights[class]);
        weight * (hit + self.label_smoothing / classes as f64)
    }

    /// A batch as a part of a step.
    pub fn micro_batch(&self, batch: &TokenBatch) -> MicroBatch {
        let weight = match (batch.labels(), batch.teacher()) {
            (None, _) => 0.0,
            (Some(labels), None) => self.weight(labels),
            (Some(labels), Some(teacher)) => self.weight_of(labels, teacher.labelled()),
        };
        MicroBatch { sequences: batch.sequences(), weight }
    }

    /// The loss of logits `[B, K]`, a scalar.
    ///
    /// # Errors
    /// As [`Var::cross_entropy`].
    pub fn of<'t>(&self, logits: &Var<'t>, labels: &[u32]) -> vitrine_bert::Result<Var<'t>> {
        if self.label_smoothing == 0.0 && self.class_weights.is_none() {
            return Ok(logits.cross_entropy(labels)?);
        }
        let classes = logits.dims()[1];
        let all = self.weight(labels);
        let target = |label: u32, class: usize| -self.target(label, class, classes) / all;
        let targets: Vec<f64> =
            labels.iter().flat_map(|&label| (0..classes).map(move |class| target(label, class))).collect();
        let (dtype, device) = (logits.value().dtype(), logits.value().device());
        let targets =
            Tensor::from_slice(&targets, &[labels.len(), classes])?.to_dtype(dtype)?.to_device(device)?;
        let targets = logits.tape().constant(targets);
        Ok(logits.log_softmax()?.mul(&targets)?.sum_all()?)
    }

    /// The loss of a batch with labels, and its logits `[B, K]`. With [`Distillation`], a batch without a teacher is as one without it.
    ///
    /// # Errors
    /// `Batch` without labels; as [`SequenceClassifier::forward`].
    pub fn of_batch<'t>(
        &self,
        model: &SequenceClassifier,
        tape: &'t Tape,
        batch: &TokenBatch,
    ) -> vitrine_bert::Result<(Var<'t>, Tensor)> {
        let labels = batch.require_labels()?;
        let (Some(distillation), Some(teacher)) = (self.distillation, batch.teacher()) else {
            let logits = model.logits(tape, batch)?;
            let _scope = tape.scope("loss");
            return Ok((self.of(&logits, labels)?, logits.into_value()));
        };
        if distillation.hidden == 0.0 {
            let logits = model.logits(tape, batch)?;
            let _scope = tape.scope("loss");
            return Ok((distillation.of(self, &logits, labels, teacher)?, logits.into_value()));
        }
        let (Classified { logits, .. }, firsts) = model.forward_with_firsts(tape, batch)?;
        let _scope = tape.scope("loss");
        let loss = distillation.of(self, &logits, labels, teacher)?;
        let loss = loss.add(&distillation.of_hidden(self, &firsts, labels, teacher)?)?;
        Ok((loss, logits.into_value()))
    }
}
