//! Training on the CUDA backend, emulated: the same losses as on the CPU, the same weights on every run.

mod tiny;

use tiny::{CUDA, STEPS, config, train_model};
use vitrine_autograd::Tape;
use vitrine_bert::{SequenceClassifier, TokenBatch};
use vitrine_tensor::{DType, Device};
use vitrine_train::techniques::{ClassificationLoss, Distillation, Lora, Techniques};
use vitrine_train::{MicroBatch, StepSettings};

/// One test, for the emulated device counts for the whole process.
#[test]
fn training_is_the_cpu_s() {
    vitrine_emulator::install();
    // SAFETY: nothing reads the environment yet. A real cuBLASLt cannot read the emulated device.
    unsafe { std::env::set_var("VITRINE_GEMM", "own") };
    tiny::training_is_the_cpu_s();

    // By now the pool has every block that such steps need.
    let steady = train_model(&config(2), STEPS, CUDA, DType::BF16, false);
    assert_eq!(steady.allocations[1..].iter().sum::<u64>(), 0);
    // For the loss and the norm, before the update: what is not finite must not reach the weights.
    assert!(steady.waits[1..].iter().all(|&waits| waits == 2), "{:?}", steady.waits);

    techniques_are_the_cpu_s();

    let deep = train_model(&config(12), 2, CUDA, DType::BF16, false);
    println!("a step of 12 layers: {} kernels, {} copies", deep.launches[1], deep.copies[1]);
    assert!(deep.launches[1] <= 249, "more kernels a step than there were: {}", deep.launches[1]);
}

/// Losses and norms of steps with every technique on, and the logits of the averaged and merged weights.
fn numbers(techniques: &Techniques, device: Device, dtype: DType) -> Vec<f64> {
    let mut model = SequenceClassifier::random(config(2), 3).unwrap();
    techniques.prepare(&mut model, 5).unwrap();
    model.to_device(device).unwrap();
    model.compute_in(dtype).unwrap();
    let mut optimizer = techniques.optimizer(0.01);
    let (sequences, labels) = tiny::sequences(4, 0);
    let batches = sequences.chunks(2).zip(labels.chunks(2)).map(|(sequences, labels)| {
        let batch = TokenBatch::new(sequences, Some(labels), model.config()).unwrap();
        // The second row of each has no label.
        batch.with_teacher(&[0.5, -1.0, 2.0, 0.25], &[true, false], model.config()).unwrap()
    });
    let batches: Vec<TokenBatch> = batches.collect();
    let parts: Vec<MicroBatch> = batches.iter().map(|batch| techniques.loss.micro_batch(batch)).collect();
    let mut numbers = Vec::new();
    for step in 0..3 {
        let (seed, lr, max_grad_norm) = (9, 1e-3, Some(1.0));
        let settings =
            StepSettings { seed, step, lr, max_grad_norm, checkpoint_layers: false, profiled: false };
        let taken = vitrine_train::accumulating_step(
            &mut model,
            &parts,
            |model, tape, index| Ok(techniques.loss.of_batch(model, tape, &batches[index])?.0),
            optimizer.as_mut(),
            &settings,
        )
        .unwrap();
        numbers.extend([taken.loss.item().unwrap(), taken.norm.norm().unwrap()]);
    }
    optimizer.swap_averages(model.parameters_mut()).unwrap();
    techniques.finish(&mut model).unwrap();
    let logits =
        model.logits(&Tape::inference(), &batches[0]).unwrap().value().to_device(Device::Cpu).unwrap();
    numbers.extend(logits.to_vec::<f32>().unwrap().into_iter().map(f64::from));
    numbers
}

fn techniques_are_the_cpu_s() {
    let targets = ["query", "value", "intermediate.dense"].map(str::to_owned).to_vec();
    let loss = ClassificationLoss {
        label_smoothing: 0.1,
        class_weights: Some(vec![0.3, 2.0]),
        distillation: Some(Distillation::default()),
    };
    let lora = Some(Lora { rank: 8, alpha: 16.0, targets });
    let all = Techniques { loss, lora, ema: Some(0.5), layer_decay: Some(0.7), ..Techniques::default() };
    for (dtype, tolerance) in [(DType::F32, 1e-4), (DType::BF16, 3e-2)] {
        let [cpu, cuda] = [Device::Cpu, CUDA].map(|device| numbers(&all, device, dtype));
        for (index, (cpu, cuda)) in cpu.iter().zip(&cuda).enumerate() {
            assert!(
                (cpu - cuda).abs() <= tolerance * cpu.abs().max(1.0),
                "{dtype} {index}: {cuda} on CUDA, {cpu} on the CPU"
            );
        }
    }
}
