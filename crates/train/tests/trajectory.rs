//! Twenty training steps against PyTorch's: batches, losses, gradient norms, learning rates and last weights are in
//! `crates/bert/tests/goldens/trajectory.safetensors`, and in the golden file of each model family (`make_goldens.py` and
//! `make_families.py` there make them, in float64, without dropout).

use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize};
use std::path::Path;
use vitrine_bert::{Family, ModelConfig, SequenceClassifier, TokenBatch, Weights};
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

/// A golden file, in which the names of a trajectory begin with `section`.
struct Golden<'a> {
    bytes: &'a [u8],
    file: SafeTensors<'a>,
    section: &'static str,
}

impl<'a> Golden<'a> {
    fn new(bytes: &'a [u8], section: &'static str) -> Self {
        Golden { bytes, file: SafeTensors::deserialize(bytes).unwrap(), section }
    }

    fn tensor(&self, name: &str) -> TensorView<'a> {
        self.file.tensor(&format!("{}{name}", self.section)).unwrap()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.tensor(name).data().chunks_exact(4);
        bytes.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    fn integers(&self, name: &str) -> Vec<u32> {
        let bytes = self.tensor(name).data().chunks_exact(8);
        bytes.map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as u32).collect()
    }

    fn config(&self) -> ModelConfig {
        let (_, header) = SafeTensors::read_metadata(self.bytes).unwrap();
        let text = &header.metadata().as_ref().unwrap()[&format!("{}config", self.section)];
        let config = ModelConfig::parse(text, Path::new("golden")).unwrap();
        let (hidden_dropout_prob, attention_probs_dropout_prob, classifier_dropout) = (0.0, 0.0, Some(0.0));
        ModelConfig { hidden_dropout_prob, attention_probs_dropout_prob, classifier_dropout, ..config }
    }

    /// The model with the weights from which PyTorch started.
    fn first_model(&self) -> SequenceClassifier {
        let tensors = self.file.tensors();
        let weights = tensors.iter().filter_map(|(name, view)| {
            let key = name.strip_prefix(self.section)?.strip_prefix("weight.")?;
            Some((key, TensorView::new(view.dtype(), view.shape().to_vec(), view.data()).unwrap()))
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), serialize(weights, None).unwrap()).unwrap();
        let config = self.config();
        let weights = Weights::open(folder.path(), &config.family.names).unwrap();
        SequenceClassifier::from_weights(config, weights, None).unwrap().0
    }

    fn batch(&self, step: usize, config: &ModelConfig) -> TokenBatch {
        let [ids, token_types, offsets, labels] =
            ["ids", "token_types", "offsets", "labels"].map(|name| self.integers(&format!("{step}.{name}")));
        let sequences = offsets.windows(2).map(|ends| &ids[ends[0] as usize..ends[1] as usize]);
        let batch = TokenBatch::new(sequences, Some(&labels), config).unwrap();
        batch.with_token_types(&token_types, config).unwrap()
    }
}

#[track_caller]
fn assert_close(name: &str, got: f64, expected: f32, tolerance: f64) {
    let expected = f64::from(expected);
    assert!((got - expected).abs() <= tolerance * expected.abs(), "{name}: got {got}, expected {expected}");
}

/// Takes the first `count` steps, and compares each with PyTorch's.
fn take_steps(golden: &Golden, count: usize) -> SequenceClassifier {
    let mut model = golden.first_model();
    let [losses, norms, lrs] = ["losses", "grad_norms", "lrs"].map(|name| golden.floats(name));
    assert_eq!(losses.len(), SCHEDULE.total);

    let mut optimizer = AdamW::new(WEIGHT_DECAY);
    for step in 0..count {
        let batch = golden.batch(step, model.config());
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

/// Takes all steps, and compares how far each weight moved: by at most 20 x 5e-5 in all, and by its gradient's sign where that
/// is well above the rounding.
fn take_all_steps(golden: &Golden) {
    let model = take_steps(golden, SCHEDULE.total);
    for (key, value) in model.parameters().parts().unwrap() {
        let [first, last] = ["weight", "final"].map(|when| golden.floats(&format!("{when}.{key}")));
        let most = first.iter().zip(&last).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        for (index, (got, expected)) in value.to_vec::<f32>().unwrap().iter().zip(&last).enumerate() {
            if key.ends_with("key.bias") || key.ends_with("k_lin.bias") {
                continue; // The gradient is zero but for rounding, and AdamW divides it by its own size.
            }
            let limit = 0.02 * most;
            assert!((got - expected).abs() <= limit, "{key}[{index}]: got {got}, expected {expected}");
        }
    }
}

#[test]
fn three_steps_equal_the_ones_of_pytorch_on_every_path() {
    for isa in every_path() {
        with_isa(isa, || take_steps(&Golden::new(GOLDEN, ""), 3));
    }
}

#[test]
fn twenty_steps_equal_the_ones_of_pytorch() {
    take_all_steps(&Golden::new(GOLDEN, ""));
}

#[test]
fn twenty_steps_of_each_family_equal_the_ones_of_pytorch() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bert/tests/goldens");
    for family in Family::all() {
        let bytes = std::fs::read(goldens.join(format!("{}.safetensors", family.model_type))).unwrap();
        take_all_steps(&Golden::new(&bytes, "trajectory."));
    }
}
