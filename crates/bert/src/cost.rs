//! [`Cost`]: what running a BERT takes, by counting.

use crate::ModelConfig;
use serde::Serialize;

/// Arithmetic and memory for one batch through a classifier.
///
/// FLOPs are nominal, the convention of the field: two per encoder weight and token, `4 C` per pair of tokens of a sequence
/// and layer for attention, and twice the forward pass again for backward. What a pass really executes is less: the last
/// layer computes only the `[CLS]` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Weights of the layers' matrices: `L (4 C^2 + 2 C I)`.
    pub encoder_weights: u64,
    /// `2 weights T + 4 L C sum(S^2)`.
    pub forward_flops: u64,
    /// `6 weights T + 12 L C sum(S^2)`.
    pub training_flops: u64,
    /// What a forward pass executes when only `[CLS]` rows leave the last layer.
    pub executed_forward_flops: u64,
    /// The same for a training step.
    pub executed_training_flops: u64,
    /// F32 tensors that a training step keeps for backward.
    pub activation_bytes: u64,
}

impl ModelConfig {
    /// The cost of one batch of sequences with these lengths, in tokens.
    pub fn cost(&self, lengths: &[usize]) -> Cost {
        // Sizes that no machine has must not wrap: they are compared with its memory.
        let [c, i, l, h] =
            [self.hidden_size, self.intermediate_size, self.num_hidden_layers, self.num_attention_heads]
                .map(|size| size as u128);
        let tokens: u128 = lengths.iter().map(|&s| s as u128).sum();
        let squares: u128 = lengths.iter().map(|&s| (s as u128).pow(2)).sum();
        let sequences = lengths.len() as u128;
        let layer_weights = 4 * c * c + 2 * c * i;
        let encoder_weights = l * layer_weights;
        let forward_flops = 2 * encoder_weights * tokens + 4 * l * c * squares;
        // Of the last layer's rows beyond queries, keys and values, only one a sequence is computed.
        let spared_weights = layer_weights - 3 * c * c;
        let spared = 2 * spared_weights * (tokens - sequences) + 4 * c * (squares - tokens);
        let executed = forward_flops - spared;
        // Per row of a layer: its input, query, key and value, the context, two LayerNorms' sums, the feed-forward's input, its
        // hidden values before and after the activation; per row also two LayerNorms' mean and rstd, and a number a head.
        let row = 8 * c + 2 * i + 4 + h;
        let last = tokens * 4 * c + sequences * (row - 4 * c);
        let embeddings = tokens * (c + 2);
        let head = sequences * 3 * c;
        let elements = embeddings + (l - 1) * tokens * row + last + head;
        let [encoder_weights, forward_flops, training_flops] =
            [encoder_weights, forward_flops, 3 * forward_flops].map(saturated);
        let [executed_forward_flops, executed_training_flops, activation_bytes] =
            [executed, 3 * executed, 4 * elements].map(saturated);
        Cost {
            encoder_weights,
            forward_flops,
            training_flops,
            executed_forward_flops,
            executed_training_flops,
            activation_bytes,
        }
    }
}

fn saturated(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bert_base_is_what_is_published() {
        let cost = ModelConfig::bert_base().cost(&[512; 16]);
        assert_eq!(cost.encoder_weights, 84_934_656);
        let expected = 2 * 84_934_656 * 8192 + 4 * 12 * 768 * 16 * 512 * 512;
        assert_eq!((cost.forward_flops, cost.training_flops), (expected, 3 * expected));
        assert!(cost.executed_forward_flops < cost.forward_flops);
    }

    #[test]
    fn one_token_a_sequence_spares_nothing() {
        let cost = ModelConfig::bert_mini().cost(&[1; 7]);
        assert_eq!(cost.executed_forward_flops, cost.forward_flops);
    }

    #[test]
    fn the_largest_sizes_saturate() {
        let largest = ModelConfig {
            hidden_size: 1 << 16,
            intermediate_size: 1 << 18,
            num_hidden_layers: 4096,
            num_attention_heads: 1 << 16,
            max_position_embeddings: 1 << 16,
            ..ModelConfig::default()
        };
        let cost = largest.cost(&[1 << 16; 256]);
        assert_eq!(cost.forward_flops, u64::MAX);
        assert!(cost.activation_bytes > 1 << 50 && cost.activation_bytes < u64::MAX);
    }
}
