//! [`Distillation`]: a student learns from the logits of a teacher, and from its hidden states.

use super::ClassificationLoss;
use crate::data::batching::EvalBatch;
use crate::evaluation::for_each_batch;
use crate::tokenized::TokenizedDataset;
use crate::{Result, TrainError};
use serde::{Deserialize, Serialize};
use vitrine_autograd::{Tape, Var};
use vitrine_bert::{Classified, SequenceClassifier, Teacher};
use vitrine_tensor::Tensor;

/// How much a teacher counts in the loss (Hinton, Vinyals and Dean 2015, arXiv 1503.02531).
///
/// With student logits x, teacher logits z, weight a and temperature T, a row of the class weight v has the loss
///
/// `v ((1 - a) CE(x, label) + a T^2 KL(softmax(z / T) || softmax(x / T)))`,
///
/// and a batch has the sum of these, divided by the sum of v. Without class weights v is 1, and the two terms are
/// `torch.nn.functional.cross_entropy` and `kl_div(log_softmax(x / T), softmax(z / T), reduction="batchmean")`. A row without a label
/// has v = 1 and only the teacher's terms. The gradient of that term keeps its size when T changes, because of `T^2`.
///
/// With a weight h of hidden states, a row's loss has a third term: with `s_j` the student's state of the first token, `[CLS]`, after its
/// layer j of L, and `t_j` the teacher's after the [layer in its place](teacher_layers),
///
/// `v h / L sum_j || s_j / ||s_j|| - t_j / ||t_j|| ||^2`,
///
/// as in patient knowledge distillation (Sun et al. 2019, arXiv 1908.09355, equation 7), but with the last layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distillation {
    /// The share a of the teacher's term, from 0 to 1.
    #[serde(rename = "distill_weight")]
    pub weight: f64,
    /// The temperature T, above 0: a high one shows how the teacher ranks the less likely classes.
    #[serde(rename = "distill_temperature")]
    pub temperature: f64,
    /// The weight h of the hidden states; 0 compares none.
    #[serde(rename = "distill_hidden", default)]
    pub hidden: f64,
}

impl Default for Distillation {
    fn default() -> Self {
        Distillation { weight: 0.5, temperature: 2.0, hidden: 0.0 }
    }
}

impl Distillation {
    /// Whether the settings can be followed.
    ///
    /// # Errors
    /// `Technique` for a weight outside of [0, 1], a temperature that is not a number above 0, or a weight of hidden states that is
    /// not a number from 0 on.
    pub fn check(&self) -> Result<()> {
        let refuse = |option, why| Err(TrainError::Technique { option, why });
        if !(0.0..=1.0).contains(&self.weight) {
            return refuse("--distill-weight", format!("{} is not from 0 to 1", self.weight));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return refuse("--distill-temperature", format!("{} is not a number above 0", self.temperature));
        }
        if !(self.hidden.is_finite() && self.hidden >= 0.0) {
            return refuse("--distill-hidden", format!("{} is not a number from 0 on", self.hidden));
        }
        Ok(())
    }

    /// The loss of logits `[B, K]`, a scalar. Entries of `labels: [B]` of rows without a label do not count.
    ///
    /// # Errors
    /// As [`Var::log_softmax`].
    pub fn of<'t>(
        &self,
        loss: &ClassificationLoss,
        logits: &Var<'t>,
        labels: &[u32],
        teacher: &Teacher,
    ) -> vitrine_bert::Result<Var<'t>> {
        let (classes, temperature) = (logits.dims()[1], self.temperature);
        let all = loss.weight_of(labels, teacher.labelled());
        let (mut hard, mut soft) = (Vec::new(), Vec::new());
        // sum of p ln p: without it the term would be a cross entropy, and no 0 where student and teacher agree.
        let mut negative_entropy = 0.0;
        let rows = labels.iter().zip(teacher.labelled()).zip(teacher.logits());
        for ((&label, &is_labelled), teacher) in rows {
            let share = if is_labelled { (1.0 - self.weight) / all } else { 0.0 };
            hard.extend((0..classes).map(|class| -share * loss.target(label, class, classes)));
            let share = self.weight * temperature * temperature * loss.row_weight(label, is_labelled) / all;
            for log_p in log_softmax(teacher, temperature) {
                soft.push(-share * log_p.exp());
                negative_entropy += share * log_p.exp() * log_p;
            }
        }
        let (dtype, device) = (logits.value().dtype(), logits.value().device());
        let constant = |values: &[f64]| -> vitrine_bert::Result<Var<'t>> {
            let values = Tensor::from_slice(values, &[labels.len(), classes])?;
            Ok(logits.tape().constant(values.to_dtype(dtype)?.to_device(device)?))
        };
        let cross_entropy = logits.log_softmax()?.mul(&constant(&hard)?)?.sum_all()?;
        let soft = logits.scale(1.0 / temperature)?.log_softmax()?.mul(&constant(&soft)?)?.sum_all()?;
        Ok(cross_entropy.add(&soft)?.add_scalar(negative_entropy)?)
    }

    /// The term of the hidden states, a scalar: `firsts` are the student's, `[B, C]` for each layer.
    ///
    /// # Errors
    /// Tensor errors, also for states of a teacher that has other numbers of layers or of a state's elements.
    pub fn of_hidden<'t>(
        &self,
        loss: &ClassificationLoss,
        firsts: &[Var<'t>],
        labels: &[u32],
        teacher: &Teacher,
    ) -> vitrine_bert::Result<Var<'t>> {
        let (rows, width) = (labels.len(), firsts[0].dims()[1]);
        let (dtype, device) = (firsts[0].value().dtype(), firsts[0].value().device());
        let constant = |values: &[f64], dims: &[usize]| -> vitrine_bert::Result<Var<'t>> {
            let values = Tensor::from_slice(values, dims)?.to_dtype(dtype)?.to_device(device)?;
            Ok(firsts[0].tape().constant(values))
        };
        let all = loss.weight_of(labels, teacher.labelled());
        let shares: Vec<f64> = labels
            .iter()
            .zip(teacher.labelled())
            .map(|(&label, &labelled)| {
                loss.row_weight(label, labelled) / all * self.hidden / firsts.len() as f64
            })
            .collect();
        // The square of the distance of two unit vectors is 2 - 2 cos.
        let weights = constant(&shares.iter().map(|share| -2.0 * share).collect::<Vec<_>>(), &[rows])?;
        let mut sum = constant(&[2.0 * firsts.len() as f64 * shares.iter().sum::<f64>()], &[1])?.sum_all()?;
        for (layer, first) in firsts.iter().enumerate() {
            let mut directions = Vec::with_capacity(rows * width);
            for states in teacher.hidden() {
                let state = states.get(layer * width..(layer + 1) * width).unwrap_or_default();
                let norm = state.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                directions.extend(state.iter().map(|&x| f64::from(x) / norm.max(f64::MIN_POSITIVE)));
            }
            let product = first.mul(&constant(&directions, &[rows, width])?)?.sum(1, false)?;
            let cosine = product.div(&first.mul(first)?.sum(1, false)?.sqrt()?)?;
            sum = sum.add(&cosine.mul(&weights)?.sum_all()?)?;
        }
        Ok(sum)
    }
}

/// The teacher's layer in the place of each of the student's, counted from 0: as far up in proportion, so the last for the last.
pub fn teacher_layers(student: usize, teacher: usize) -> Vec<usize> {
    (1..=student).map(|layer| (layer * teacher).div_ceil(student).max(1) - 1).collect()
}

/// `log_softmax(z / T)`, in f64.
fn log_softmax(logits: &[f32], temperature: f64) -> impl Iterator<Item = f64> {
    let scaled = logits.iter().map(move |&z| f64::from(z) / temperature);
    let max = scaled.clone().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = max + scaled.clone().map(|z| (z - max).exp()).sum::<f64>().ln();
    scaled.map(move |z| z - log_sum)
}

/// What a student learns from a teacher: `[rows, K + layers C]`, computed without dropout. A row has the logits, then the first token's
/// hidden states. `classes[k]` is the teacher's class for the student's class k, and `layers` are those of the teacher whose states are
/// wanted; `progress` learns how many rows are done, and ends it by an error.
///
/// # Errors
/// Errors of the layers below; logits and states that are not numbers; that of `progress`.
///
/// # Panics
/// If the teacher does not have such a class or layer.
pub fn teacher_rows(
    teacher: &SequenceClassifier,
    rows: &TokenizedDataset,
    classes: &[u32],
    layers: &[usize],
    batch: EvalBatch,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<f32>> {
    let (labels, width) = (teacher.config().num_labels(), teacher.config().hidden_size);
    let row_width = classes.len() + layers.len() * width;
    let mut all = vec![0.0; rows.len() * row_width];
    for_each_batch(rows, teacher.config(), batch, progress, |indices, batch| {
        let tape = Tape::inference();
        let (Classified { logits, .. }, firsts) = teacher.forward_with_firsts(&tape, batch)?;
        let logits = logits.value().to_vec::<f32>()?;
        let states = layers.iter().map(|&layer| firsts[layer].value().to_vec::<f32>());
        let states: Vec<Vec<f32>> = states.collect::<vitrine_tensor::Result<_>>()?;
        for (place, &row) in indices.iter().enumerate() {
            let logits = &logits[place * labels..(place + 1) * labels];
            let chosen = classes.iter().map(|&class| logits[class as usize]);
            let states =
                states.iter().flat_map(|states| &states[place * width..(place + 1) * width]).copied();
            let to = &mut all[row * row_width..(row + 1) * row_width];
            to.iter_mut().zip(chosen.chain(states)).for_each(|(to, value)| *to = value);
            if let Some(&value) = to.iter().find(|value| !value.is_finite()) {
                return Err(TrainError::NonFiniteLogits { row, value });
            }
        }
        Ok(())
    })?;
    Ok(all)
}
