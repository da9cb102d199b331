//! Gradient accumulation: a step in micro-batches is the step of all its rows at once.

mod tiny;

use vitrine_bert::{ModelConfig, SequenceClassifier, TokenBatch};
use vitrine_train::optimizer::Sgd;
use vitrine_train::{MicroBatch, StepSettings};

/// Losses and gradient norms of three steps, and the weights after them, by key. Dropout is on.
fn run(micro_batches: &[usize], checkpoint_layers: bool) -> (Vec<f64>, Vec<(String, Vec<f32>)>) {
    let config = tiny::config(2);
    let mut model = SequenceClassifier::random(config.clone(), 3).unwrap();
    // SGD moves a weight by its gradient; AdamW would divide gradients of nothing but rounding by their own size.
    let mut optimizer = Sgd::new(0.9, 0.0);
    let mut numbers = Vec::new();
    for step in 0..3 {
        let (sequences, labels) = tiny::sequences(16, step);
        let mut start = 0;
        let batches: Vec<TokenBatch> = micro_batches
            .iter()
            .map(|&count| {
                let range = start..start + count;
                start += count;
                TokenBatch::new(&sequences[range.clone()], Some(&labels[range]), &config).unwrap()
            })
            .collect();
        assert_eq!(start, 16);
        let settings = StepSettings {
            seed: 9,
            step,
            lr: 0.1,
            max_grad_norm: Some(1.0),
            checkpoint_layers,
            profiled: false,
        };
        let parts: Vec<MicroBatch> = micro_batches.iter().map(|&count| MicroBatch::of(count)).collect();
        let taken = vitrine_train::accumulating_step(
            &mut model,
            &parts,
            |model, tape, index| model.loss(tape, &batches[index]),
            &mut optimizer,
            &settings,
        )
        .unwrap();
        numbers.extend([taken.loss.item().unwrap(), taken.norm.norm().unwrap()]);
    }
    let parts = model.parameters().parts().unwrap();
    (numbers, parts.iter().map(|(key, value)| (key.to_string(), value.to_vec().unwrap())).collect())
}

#[test]
fn micro_batches_make_the_step_of_the_whole_batch() {
    let (numbers, weights) = run(&[16], false);
    assert!(numbers.iter().all(|number| number.is_finite() && *number > 0.1), "{numbers:?}");
    for (micro_batches, checkpoint_layers) in
        [(&[4, 4, 4, 4][..], false), (&[5, 5, 6], false), (&[4, 4, 4, 4], true)]
    {
        let (other_numbers, other_weights) = run(micro_batches, checkpoint_layers);
        for (a, b) in numbers.iter().zip(&other_numbers) {
            assert!(
                (a - b).abs() <= 1e-6 * a.abs().max(1.0),
                "{micro_batches:?}: {numbers:?} {other_numbers:?}"
            );
        }
        for ((key, expected), (_, got)) in weights.iter().zip(&other_weights) {
            for (index, (a, b)) in expected.iter().zip(got).enumerate() {
                assert!((a - b).abs() <= 1e-6, "{micro_batches:?}: {key}[{index}] is {b}, not {a}");
            }
        }
    }
}

/// What the test is worth: sequences that start anew in each micro-batch draw other masks.
#[test]
fn a_sequence_s_place_in_the_step_decides_its_dropout() {
    let config = ModelConfig { hidden_dropout_prob: 0.5, ..tiny::config(2) };
    let model = SequenceClassifier::random(config.clone(), 3).unwrap();
    let sequence: Vec<u32> = (0..20).collect();
    let batch = TokenBatch::new([&sequence], Some(&[1]), &config).unwrap();
    let loss = |first_sequence| {
        let tape = vitrine_autograd::Tape::training(vitrine_autograd::Randomness {
            seed: 9,
            step: 0,
            first_sequence,
        });
        model.loss(&tape, &batch).unwrap().value().item().unwrap()
    };
    assert_eq!(loss(0), loss(0));
    assert_ne!(loss(0), loss(4));
}
