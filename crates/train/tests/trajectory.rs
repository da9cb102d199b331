//! Twenty training steps against PyTorch's: batches, losses, gradient norms, learning rates and last weights are in
//! `crates/bert/tests/goldens/trajectory.safetensors` (`make_goldens.py` there makes it, in float64, without dropout).

use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize};
use std::path::Path;
use vitrine_bert::{BertConfig, BertForSequenceClassification, NAMES, TokenBatch, Weights};
use vitrine_tensor::cpu::isa::{every_path, with_isa};
use vitrine_train::StepSettings;
use vitrine_train::optimizer::AdamW;
use vitrine_train::schedule::{Schedule, ScheduleKind};

/// What `make_goldens.py` passes to PyTorch.
const LR: f64 = 5e-5;
const SCHEDULE: Schedule = Schedule { kind: ScheduleKind::Linear, total: 20, warmup: 5 };
const WEIGHT_DECAY: f64 = 0.01;
const MAX_GRAD_NORM: f64 = 1.0;

/// `trajectory.safetensors`, a part of the program: so it also runs where there is no source tree.
const GOLDEN: &[u8] = include_bytes!("../../bert/tests/goldens/trajectory.safetensors");

fn golden() -> SafeTensors<'static> {
    SafeTensors::deserialize(GOLDEN).unwrap()
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = file.tensor(name).unwrap();
    view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn integers(file: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let view = file.tensor(name).unwrap();
    view.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as u32).collect()
}

/// The model with the weights from which PyTorch started.
fn first_model(file: &SafeTensors<'_>, config: BertConfig) -> BertForSequenceClassification {
    let tensors = file.tensors();
    let weights = tensors.iter().filter_map(|(name, view)| {
        let key = name.strip_prefix("weight.")?;
        Some((key, TensorView::new(view.dtype(), view.shape().to_vec(), view.data()).unwrap()))
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), serialize(weights, None).unwrap()).unwrap();
    let weights = Weights::open(folder.path(), &NAMES).unwrap();
    BertForSequenceClassification::from_weights(config, weights, None).unwrap().0
}

fn batch(file: &SafeTensors<'_>, step: usize, config: &BertConfig) -> TokenBatch {
    let [ids, token_types, offsets, labels] =
        ["ids", "token_types", "offsets", "labels"].map(|name| integers(file, &format!("{step}.{name}")));
    let sequences = offsets.windows(2).map(|ends| &ids[ends[0] as usize..ends[1] as usize]);
    TokenBatch::new(sequences, Some(&labels), config).unwrap().with_token_types(&token_types, config).unwrap()
}

#[track_caller]
fn assert_close(name: &str, got: f64, expected: f32, tolerance: f64) {
    let expected = f64::from(expected);
    assert!((got - expected).abs() <= tolerance * expected.abs(), "{name}: got {got}, expected {expected}");
}

/// Takes the first `count` steps, and compares each with PyTorch's.
fn take_steps(count: usize) -> BertForSequenceClassification {
    let file = golden();
    let (_, header) = SafeTensors::read_metadata(GOLDEN).unwrap();
    let mut config =
        BertConfig::parse(&header.metadata().as_ref().unwrap()["config"], Path::new("golden")).unwrap();
    (config.hidden_dropout_prob, config.attention_probs_dropout_prob) = (0.0, 0.0);
    let mut model = first_model(&file, config);
    let [losses, norms, lrs] = ["losses", "grad_norms", "lrs"].map(|name| floats(&file, name));
    assert_eq!(losses.len(), SCHEDULE.total);

    let mut optimizer = AdamW::new(WEIGHT_DECAY);
    for step in 0..count {
        let batch = batch(&file, step, model.config());
        let lr = LR * SCHEDULE.factor(step);
        assert_close(&format!("learning rate of step {step}"), lr, lrs[step], 1e-6);
        let settings = StepSettings {
            seed: 0,
            step,
            lr,
            max_grad_norm: Some(MAX_GRAD_NORM),
            checkpoint_layers: false,
            profiled: false,
        };
        let taken = vitrine_train::step(
            &mut model,
            |model, tape| model.loss(tape, &batch),
            &mut optimizer,
            &settings,
        )
        .unwrap();
        assert_close(&format!("loss of step {step}"), taken.loss.item().unwrap(), losses[step], 1e-4);
        let norm = taken.norm.norm().unwrap();
        assert_close(&format!("gradient norm of step {step}"), norm, norms[step], 1e-4);
    }
    model
}

#[test]
fn three_steps_equal_the_ones_of_pytorch_on_every_path() {
    for isa in every_path() {
        with_isa(isa, || take_steps(3));
    }
}

#[test]
fn twenty_steps_equal_the_ones_of_pytorch() {
    let (model, file) = (take_steps(SCHEDULE.total), golden());
    // A weight moves by at most 20 x 5e-5 in all, and by its gradient's sign where that is well above the rounding:
    // compare how far it moved.
    for (key, value) in model.parameters().parts().unwrap() {
        let [first, last] = ["weight", "final"].map(|when| floats(&file, &format!("{when}.{key}")));
        let most = first.iter().zip(&last).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        for (index, (got, expected)) in value.to_vec::<f32>().unwrap().iter().zip(&last).enumerate() {
            if key.ends_with("key.bias") {
                continue; // The gradient is zero but for rounding, and AdamW divides it by its own size.
            }
            let limit = 0.02 * most;
            assert!((got - expected).abs() <= limit, "{key}[{index}]: got {got}, expected {expected}");
        }
    }
}
