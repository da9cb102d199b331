//! Training on the CUDA backend, emulated: the same losses as on the CPU, the same weights on every run.

mod tiny;

use tiny::{CUDA, STEPS, config, train_model};
use vitrine_tensor::DType;

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

    let deep = train_model(&config(12), 2, CUDA, DType::BF16, false);
    println!("a step of 12 layers: {} kernels, {} copies", deep.launches[1], deep.copies[1]);
    assert!(deep.launches[1] <= 249, "more kernels a step than there were: {}", deep.launches[1]);
}
