//! [`Distillation`]: a student learns from the logits of a teacher.

use super::ClassificationLoss;
use crate::data::batching::EvalBatch;
use crate::evaluation::for_each_batch;
use crate::tokenized::TokenizedDataset;
use crate::{Result, TrainError};
use serde::{Deserialize, Serialize};
use vitrine_autograd::Var;
use vitrine_bert::{SequenceClassifier, Teacher};
use vitrine_tensor::Tensor;

/// How much a teacher counts in the loss (Hinton, Vinyals and Dean 2015, arXiv 1503.02531).
///
/// With student logits x, teacher logits z, weight a and temperature T, a row of the class weight v has the loss
///
/// `v ((1 - a) CE(x, label) + a T^2 KL(softmax(z / T) || softmax(x / T)))`,
///
/// and a batch has the sum of these, divided by the sum of v. Without class weights v is 1, and the two terms are
/// `torch.nn.functional.cross_entropy` and `kl_div(log_softmax(x / T), softmax(z / T), reduction="batchmean")`. A row without a label
/// has v = 1 and only the teacher's term. The gradient of that term keeps its size when T changes, because of `T^2`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distillation {
    /// The share a of the teacher's term, from 0 to 1.
    #[serde(rename = "distill_weight")]
    pub weight: f64,
    /// The temperature T, above 0: a high one shows how the teacher ranks the less likely classes.
    #[serde(rename = "distill_temperature")]
    pub temperature: f64,
}

impl Default for Distillation {
    fn default() -> Self {
        Distillation { weight: 0.5, temperature: 2.0 }
    }
}

impl Distillation {
    /// Whether the settings can be followed.
    ///
    /// # Errors
    /// `Technique` for a weight outside of [0, 1], or a temperature that is not a number above 0.
    pub fn check(&self) -> Result<()> {
        let refuse = |option, why| Err(TrainError::Technique { option, why });
        if !(0.0..=1.0).contains(&self.weight) {
            return refuse("--distill-weight", format!("{} is not from 0 to 1", self.weight));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return refuse("--distill-temperature", format!("{} is not a number above 0", self.temperature));
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
        let rows = labels.iter().zip(teacher.labelled()).zip(teacher.logits().chunks_exact(classes));
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
}

/// `log_softmax(z / T)`, in f64.
fn log_softmax(logits: &[f32], temperature: f64) -> impl Iterator<Item = f64> {
    let scaled = logits.iter().map(move |&z| f64::from(z) / temperature);
    let max = scaled.clone().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = max + scaled.clone().map(|z| (z - max).exp()).sum::<f64>().ln();
    scaled.map(move |z| z - log_sum)
}

/// The logits of a teacher for every row, `[rows, K]` row-major, computed without dropout. `classes[k]` is the teacher's class for the
/// student's class k; `progress` learns how many rows are done, and ends it by an error.
///
/// # Errors
/// Errors of the layers below; logits that are not numbers; that of `progress`.
pub fn teacher_logits(
    teacher: &SequenceClassifier,
    rows: &TokenizedDataset,
    classes: &[u32],
    batch: EvalBatch,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<f32>> {
    let (of_teacher, width) = (teacher.config().num_labels(), classes.len());
    let mut all = vec![0.0; rows.len() * width];
    for_each_batch(teacher, rows, batch, progress, |indices, logits| {
        for (&row, logits) in indices.iter().zip(logits.chunks_exact(of_teacher)) {
            if let Some(&value) = logits.iter().find(|value| !value.is_finite()) {
                return Err(TrainError::NonFiniteLogits { row, value });
            }
            let to = &mut all[row * width..(row + 1) * width];
            to.iter_mut().zip(classes).for_each(|(to, &class)| *to = logits[class as usize]);
        }
        Ok(())
    })?;
    Ok(all)
}
