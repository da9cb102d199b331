//! What a run measures of its inside on request: gradient norms by layer, and the time of each operation of one step.

use crate::Result;
use serde::Serialize;
use vitrine_autograd::Gradients;
use vitrine_nn::ParameterStore;
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::adamw::GradNorm;

/// Requests. They change no result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Measurements {
    /// Whether the norm of each layer's gradient is measured in every step.
    pub log_gradient_norms: bool,
    /// The step, counted from 1, of which every operation is timed.
    pub profile_step: Option<usize>,
}

impl Measurements {
    /// The names of the settings, as they are serialized.
    pub const NAMES: [&str; 2] = ["log_gradient_norms", "profile_step"];
}

/// The norm of the gradient of each part of a model, before clipping: embeddings, layers, head, in the order of the parameters. On a
/// CUDA device it waits for each.
///
/// # Errors
/// Tensor errors.
pub fn gradient_norms(parameters: &ParameterStore, gradients: &Gradients) -> Result<Vec<(String, f64)>> {
    let mut parts: Vec<(String, Vec<&Tensor>)> = Vec::new();
    for (id, gradient) in gradients.parameters() {
        let part = part_of(&parameters.get(id).parts[0].key);
        match parts.iter_mut().find(|(name, _)| *name == part) {
            Some((_, tensors)) => tensors.push(gradient),
            None => parts.push((part, vec![gradient])),
        }
    }
    parts.into_iter().map(|(part, tensors)| Ok((part, GradNorm::of(&tensors, None)?.norm()?))).collect()
}

/// The part of a parameter by its key in a file: all families say `embeddings` and `layer.N`; the rest is the head.
fn part_of(key: &str) -> String {
    let mut words = key.split('.');
    if words.clone().any(|word| word == "embeddings") {
        return "embeddings".to_owned();
    }
    match words.by_ref().find(|&word| word == "layer").and_then(|_| words.next()) {
        Some(number) => format!("layer.{number}"),
        None => "head".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_every_family() {
        for (key, part) in [
            ("bert.embeddings.word_embeddings.weight", "embeddings"),
            ("bert.encoder.layer.11.attention.self.query.weight", "layer.11"),
            ("distilbert.transformer.layer.0.ffn.lin1.weight", "layer.0"),
            ("roberta.encoder.layer.3.output.LayerNorm.bias", "layer.3"),
            ("bert.pooler.dense.weight", "head"),
            ("classifier.bias", "head"),
        ] {
            assert_eq!(part_of(key), part);
        }
    }
}
