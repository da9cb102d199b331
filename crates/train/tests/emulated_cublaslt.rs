//! Training steps with the products of cuBLASLt, emulated: their losses, and how many kernels are left to us.

mod tiny;

use tiny::{CUDA, config, train_model};
use vitrine_tensor::{DType, Device, cuda};

#[test]
fn training_with_the_library_is_the_cpu_s() {
    vitrine_emulator::install();
    vitrine_emulator_cublaslt::install();
    assert!(cuda::describe(0).unwrap().cublaslt);
    let [cpu, library] =
        [Device::Cpu, CUDA].map(|device| train_model(&config(2), 3, device, DType::F32, false));
    for (library, cpu) in library.losses.iter().zip(&cpu.losses) {
        assert!((library - cpu).abs() <= 1e-4, "a loss of {library}, and {cpu} on the CPU");
    }
    let deep = train_model(&config(12), 2, CUDA, DType::BF16, false);
    println!("a step of 12 layers: {} kernels of our own", deep.launches[1]);
    assert!(deep.launches[1] <= 155, "more kernels a step than there were: {}", deep.launches[1]);
}
