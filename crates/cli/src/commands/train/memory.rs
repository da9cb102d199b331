//! How much memory a training step takes, by estimate.

use super::super::{check_memory, rows_that_fit};
use super::settings::Settings;
use crate::output::Outcome;
use vitrine_bert::SequenceClassifier;
use vitrine_tensor::Device;
use vitrine_train::TokenizedDataset;

/// Refuses a run whose steps cannot fit into this machine.
pub fn check(
    model: &SequenceClassifier,
    settings: &Settings,
    rows: &TokenizedDataset,
    place: Device,
) -> Outcome {
    let rows_at_once = settings.train.rows_at_once().min(rows.len());
    let mean_length = rows.tokens() / rows.len();
    let kept = model.config().cost(&vec![mean_length; rows_at_once]).activation_bytes;
    let layers = if settings.train.checkpoint_layers { model.config().num_hidden_layers as u64 } else { 1 };
    // Master; of what is trained gradient, two moments and the average; with micro-batches, the sum of the gradients before, too.
    let sums = rows_at_once < settings.train.batch_size.min(rows.len());
    let copies = 3 + usize::from(sums) + usize::from(settings.train.techniques.ema.is_some());
    let numbers = model.parameters().numel() + copies * model.parameters().trainable_numel();
    let needed = 4 * numbers as u64 + kept / layers;
    check_memory(place, needed, || format!("--micro-batch-size {}", settings.train.rows_at_once()))
}

/// Settings other than these with which a training step fits into `room` bytes of a device, by estimate.
pub fn what_fits(model: &SequenceClassifier, settings: &Settings, room: usize) -> String {
    // Master and a bfloat16 copy; of what is trained the gradient of a micro-batch, the sum of those before, two moments and the
    // average in f32.
    let of_trained = 16 + 4 * usize::from(settings.train.techniques.ema.is_some());
    let parameters = 6 * model.parameters().numel() + of_trained * model.parameters().trainable_numel();
    let config = model.config();
    let needs = |batch: usize, checkpoint: bool| {
        // Counted in f32; what backward adds for a moment is about a layer's share.
        let kept = config.cost(&vec![settings.max_length; batch]).activation_bytes as usize;
        let layers = config.num_hidden_layers;
        let needed = if checkpoint { 3 * kept / layers } else { kept + 2 * kept / layers };
        parameters + needed
    };
    let asked = (settings.train.rows_at_once(), settings.train.checkpoint_layers);
    let found = [asked.1, true].into_iter().find_map(|checkpoint| {
        // What was asked for did not fit, whatever the estimate says.
        let from = if checkpoint == asked.1 { asked.0 / 2 } else { asked.0 };
        rows_that_fit(from, room, |batch| needs(batch, checkpoint)).map(|batch| (batch, checkpoint))
    });
    match found.filter(|&(batch, _)| batch > 0) {
        Some((batch, false)) => format!("--micro-batch-size {batch} should fit"),
        Some((batch, true)) => format!("--micro-batch-size {batch} --checkpoint-layers should fit"),
        None => "no batch of this model and --max-length fits; use --device cpu".into(),
    }
}
