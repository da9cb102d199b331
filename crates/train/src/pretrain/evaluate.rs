//! [`evaluate_masked`]: how well a model predicts hidden words of documents that it was not trained on.

use super::{Piece, PretrainData, epoch_batches};
use crate::{Result, TrainError};
use serde::{Deserialize, Serialize};
use std::time::Instant;
use vitrine_autograd::Tape;
use vitrine_bert::MaskedLm;
use vitrine_tensor::cpu::parallel;

/// The epoch of the masks of evaluations, which no training reaches: they are the same in all.
pub const HELD_OUT_EPOCH: u32 = u32::MAX;

/// What an evaluation on held-out documents found.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct MaskedEvaluation {
    /// Mean cross entropy of the hidden tokens, in nats.
    pub loss: f64,
    /// The share of hidden tokens whose most probable guess is right.
    pub accuracy: f64,
    /// Hidden tokens.
    pub masked: usize,
    /// All tokens, with `[CLS]` and `[SEP]`.
    pub tokens: usize,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// Measures a model on the held-out pieces, without dropout, in batches of at most `batch_tokens` tokens.
///
/// # Errors
/// `Empty` without such pieces; `NonFinite`-like logits as `NonFiniteLogits`; errors of the layers below.
pub fn evaluate_masked(
    model: &MaskedLm,
    data: &PretrainData,
    batch_tokens: usize,
) -> Result<MaskedEvaluation> {
    let started = Instant::now();
    let (mut loss, mut right, mut masked, mut tokens) = (0.0, 0, 0, 0);
    for batch in epoch_batches(&data.held_out, batch_tokens, 0, HELD_OUT_EPOCH) {
        let pieces: Vec<Piece> = batch.iter().map(|&piece| data.held_out[piece]).collect();
        let batch = data.masking.batch(&data.documents, &pieces, HELD_OUT_EPOCH, model.config())?;
        let tape = Tape::inference();
        let logits = model.logits(&tape, &batch.batch, &batch.rows)?.value().to_vec::<f32>()?;
        let width = logits.len() / batch.rows.len();
        let found = parallel::map(logits.chunks(width).zip(batch.targets.iter()), |_, (logits, &target)| {
            let best = (0..width).fold(0, |best, id| if logits[id] > logits[best] { id } else { best });
            let most = f64::from(logits[best]);
            let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - most).exp()).sum();
            (most + sum.ln() - f64::from(logits[target as usize]), best == target as usize)
        });
        for (row, (row_loss, is_right)) in found.into_iter().enumerate() {
            if !row_loss.is_finite() {
                return Err(TrainError::NonFiniteLogits { row: masked + row, value: row_loss as f32 });
            }
            loss += row_loss;
            right += usize::from(is_right);
        }
        masked += batch.rows.len();
        tokens += batch.batch.len();
    }
    if masked == 0 {
        return Err(TrainError::Empty { data: "the held-out documents".into() });
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(MaskedEvaluation {
        loss: loss / masked as f64,
        accuracy: right as f64 / masked as f64,
        masked,
        tokens,
        seconds,
    })
}
