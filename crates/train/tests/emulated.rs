//! Training on the CUDA backend, emulated: the same losses as on the CPU, the same weights on every run.

mod tiny;

use tiny::{CUDA, Run, config, train_model};
use vitrine_tensor::{DType, Device};

const STEPS: usize = 20;

fn train(device: Device, dtype: DType, checkpoint_layers: bool) -> Run {
    train_model(&config(2), STEPS, device, dtype, checkpoint_layers)
}

/// One test, for the emulated device counts for the whole process.
#[test]
fn training_is_the_cpu_s() {
    vitrine_emulator::install();
    // SAFETY: nothing reads the environment yet. A real cuBLASLt cannot read the emulated device.
    unsafe { std::env::set_var("VITRINE_GEMM", "own") };
    let cpu = train(Device::Cpu, DType::F32, false);
    let cuda = train(CUDA, DType::F32, false);
    for (step, (cuda, cpu)) in cuda.losses.iter().zip(&cpu.losses).enumerate() {
        assert!((cuda - cpu).abs() <= 1e-4, "loss of step {step}: {cuda} on CUDA, {cpu} on the CPU");
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

    // By now the pool has every block that such steps need.
    let steady = train(CUDA, DType::BF16, false);
    assert_eq!(steady.allocations[1..].iter().sum::<u64>(), 0);
    assert_eq!(steady.waits[1..].iter().sum::<u64>(), 0);

    let deep = train_model(&config(12), 2, CUDA, DType::BF16, false);
    println!("a step of 12 layers: {} kernels, {} copies", deep.launches[1], deep.copies[1]);
    assert!(deep.launches[1] <= 249, "more kernels a step than there were: {}", deep.launches[1]);
}
