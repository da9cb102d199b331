//! Training steps of a tiny BERT, with what the emulated CUDA device counted: shared by the tests that use one.

#![allow(dead_code, reason = "each test reads its part of a run")]

use vitrine_bert::{Family, ModelConfig, SequenceClassifier, TokenBatch};
use vitrine_tensor::{DType, Device};
use vitrine_train::StepSettings;
use vitrine_train::optimizer::AdamW;

pub const CUDA: Device = Device::Cuda(0);

/// Heads of 32, so that bfloat16 runs on tensor cores.
pub fn config(layers: usize) -> ModelConfig {
    config_of(Family::named("bert").unwrap(), layers)
}

/// The same for another family.
pub fn config_of(family: &'static Family, layers: usize) -> ModelConfig {
    ModelConfig {
        vocab_size: 120,
        hidden_size: 64,
        num_hidden_layers: layers,
        num_attention_heads: 2,
        intermediate_size: 128,
        max_position_embeddings: 64,
        ..ModelConfig::defaults(family)
    }
}

/// Sequences of lengths that differ from step to step, and their labels.
pub fn sequences(count: usize, step: usize) -> (Vec<Vec<u32>>, Vec<u32>) {
    let sequence = |b: usize| {
        (0..5 + (7 * b + 3 * step) % 31).map(move |t| ((17 * t + 5 * b + step) % 120) as u32).collect()
    };
    let sequences: Vec<Vec<u32>> = (0..count).map(sequence).collect();
    let labels = sequences.iter().map(|sequence| sequence[0] % 2).collect();
    (sequences, labels)
}

fn batch(step: usize, config: &ModelConfig) -> TokenBatch {
    let (sequences, labels) = sequences(4, step);
    TokenBatch::new(&sequences, Some(&labels), config).unwrap()
}

#[derive(Default)]
pub struct Run {
    pub losses: Vec<f64>,
    pub weights: Vec<Vec<f32>>,
    /// Kernels, copies and allocations of each step.
    pub launches: Vec<u64>,
    pub copies: Vec<u64>,
    pub allocations: Vec<u64>,
    /// How often the host waited for the device within each step.
    pub waits: Vec<u64>,
}

/// The first steps of a training run.
pub fn train_model(
    config: &ModelConfig,
    steps: usize,
    device: Device,
    dtype: DType,
    checkpoint_layers: bool,
) -> Run {
    let mut model = SequenceClassifier::random(config.clone(), 3).unwrap();
    model.to_device(device).unwrap();
    model.compute_in(dtype).unwrap();
    let mut optimizer = AdamW::new(0.01);
    let mut run = Run::default();
    for step in 0..steps {
        let before = vitrine_emulator::counters();
        let settings = StepSettings {
            seed: 9,
            step,
            lr: 1e-3,
            max_grad_norm: Some(1.0),
            checkpoint_layers,
            profiled: false,
        };
        let batch = batch(step, config);
        let taken = vitrine_train::step(
            &mut model,
            |model, tape| model.loss(tape, &batch),
            &mut optimizer,
            &settings,
        )
        .unwrap();
        run.waits.push(vitrine_emulator::counters().synchronisations - before.synchronisations);
        let value = taken.loss.item().unwrap();
        let after = vitrine_emulator::counters();
        run.losses.push(value);
        run.launches.push(after.launches - before.launches);
        run.copies.push(after.copies - before.copies);
        run.allocations.push(after.allocations - before.allocations);
    }
    let parts = model.parameters().parts().unwrap();
    run.weights = parts.into_iter().map(|(_, value)| value.to_vec::<f32>().unwrap()).collect();
    run
}

/// How long a training run is compared.
pub const STEPS: usize = 20;

/// Training on the CUDA device has the CPU's losses, and the same weights on every run.
pub fn training_is_the_cpu_s() {
    let train =
        |device, dtype, checkpoint_layers| train_model(&config(2), STEPS, device, dtype, checkpoint_layers);
    let cpu = train(Device::Cpu, DType::F32, false);
    let cuda = train(CUDA, DType::F32, false);
    for (step, (cuda, cpu)) in cuda.losses.iter().zip(&cpu.losses).enumerate() {
        assert!((cuda - cpu).abs() <= 1e-4, "loss of step {step}: {cuda} on CUDA, {cpu} on the CPU");
    }

    for family in Family::all() {
        let config = config_of(family, 2);
        let [cpu, cuda] =
            [Device::Cpu, CUDA].map(|device| train_model(&config, 3, device, DType::F32, false).losses);
        for (cuda, cpu) in cuda.iter().zip(&cpu) {
            assert!((cuda - cpu).abs() <= 1e-4, "{}: {cuda} on CUDA, {cpu} on the CPU", family.model_type);
        }
    }

    // bfloat16: at most twice as far from f32 as the CPU's.
    let half_cpu = train(Device::Cpu, DType::BF16, false);
    let half_cuda = train(CUDA, DType::BF16, false);
    let far = |run: &Run| {
        let differences = run.losses.iter().zip(&cpu.losses).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, |most: f64, d| if d.is_nan() { d } else { most.max(d) })
    };
    let (cuda_error, cpu_error) = (far(&half_cuda), far(&half_cpu));
    println!("bfloat16: largest error of a loss {cuda_error:.2e} on CUDA, {cpu_error:.2e} on the CPU");
    assert!(cuda_error <= 2.0 * cpu_error.max(1e-4), "{cuda_error} on CUDA, {cpu_error} on the CPU");

    // Again: the same bits; and with layers recomputed in backward: the same bits.
    for checkpoint_layers in [false, true] {
        let again = train(CUDA, DType::BF16, checkpoint_layers);
        assert!(again.weights == half_cuda.weights && again.losses == half_cuda.losses);
    }
}
